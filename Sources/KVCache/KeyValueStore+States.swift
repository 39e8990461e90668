/// States of layers that have one in place of keys and values.
///
/// A state knows no position but the last that it has taken in. A chunk changes states in place, so that one that was broken off
/// leaves none, until the sequence is cut to where there is a copy, or to its beginning. Of a chunk with tentative positions states take in nothing before it
/// is decided which of them are certain: where it is broken off, they are those before it.
extension KeyValueStore {
  /// A layer's state, of the layers that have one; a worker may change a part of its own.
  package func state(_ number: Int) -> UnsafeMutableRawPointer {
    pool.states(place: place).baseAddress! + pool.stateOffset(number)
  }

  /// Positions of the chunk that states are copied after, as it passes; nil = they are not.
  package var savedRowCount: Int? { savingStates.map { $0.position - chunk.lowerBound } }

  /// Where a layer's state goes after ``savedRowCount`` positions; a worker writes a part of its own.
  package func savedState(_ number: Int) -> UnsafeMutableRawPointer? {
    // Where there are fewer than sequences, another may have taken its place.
    guard let savingStates, pool.savedStates.isThere(savingStates) else { return nil }
    return pool.savedStates.address(of: savingStates) + pool.stateOffset(number)
  }

  /// Has states copied, one position before a prompt's end, that the chunk reaches: logits follow what is read.
  func beginSavingStates(promptEnd: Int?) {
    savingStates = nil
    guard shape.hasStates, let promptEnd, promptEnd == chunk.upperBound, tentativeCount == 0,
      promptEnd > Self.leastSavedCount
    else { return }
    savingStates = pool.savedStates.add(after: promptEnd - 1)
  }

  /// Tokens that are worth a copy.
  private static let leastSavedCount = 16

  /// The last copy of states after at most so many positions.
  func savedStates(atOrBefore position: Int) -> SavedStates.Copy? {
    savedStates.last { $0.position <= position && pool.savedStates.isThere($0) }
  }

  /// Makes states what they were when they had taken in `position` positions, which there is a copy of.
  func returnStates(to position: Int) {
    savedStates.removeAll { $0.position > position || !pool.savedStates.isThere($0) }
    keptStates.removeAll { $0 > position }
    if position == 0 { return clearStates() }
    guard shape.hasStates, statesEnd != position, let copy = savedStates.last else { return }
    precondition(copy.position == position, "a restore point has states")
    let states = pool.states(place: place)
    states.copyMemory(
      from: UnsafeRawBufferPointer(
        start: pool.savedStates.address(of: copy), count: states.count))
    pool.savedStates.noteUse(of: copy)
    statesEnd = position
  }

  /// Notes that all states have taken in the chunk's positions before `end`, those that are certain.
  public func finishStates(at end: Int) {
    statesEnd = end
    guard let saved = savingStates else { return }
    savedStates.append(saved)
    savingStates = nil
  }

  /// Whether states have taken in all positions that are certain.
  var hasWholeStates: Bool { !shape.hasStates || statesEnd ?? -1 >= certainEnd }

  /// Makes states those of a sequence without positions.
  func clearStates() {
    statesEnd = 0
    guard shape.hasStates else { return }
    let states = pool.states(place: place)
    states.baseAddress?.initializeMemory(as: UInt8.self, repeating: 0, count: states.count)
  }

  /// The states of all layers, where they have taken in all positions that the sequence has.
  package var wholeStates: UnsafeRawBufferPointer? {
    shape.hasStates && isCommitted && statesEnd == positionCount
      ? UnsafeRawBufferPointer(pool.states(place: place)) : nil
  }

  /// Notes that somebody keeps the states as they are now: ``keptStates``.
  package func noteKeptStates() {
    if keptStates.last != positionCount { keptStates.append(positionCount) }
  }

  /// Puts states back that were those after the positions that the sequence begins with.
  ///
  /// - Parameter fill: brings them; false if it could not. Then the sequence has to be reset.
  package func restoreStates(_ fill: (UnsafeMutableRawBufferPointer) -> Bool) -> Bool {
    guard fill(pool.states(place: place)) else { return false }
    statesEnd = chunk.upperBound
    return true
  }

  /// Takes over another sequence's states.
  func copyStates(of other: KeyValueStore) {
    (statesEnd, savedStates) = (other.statesEnd, other.savedStates)
    guard shape.hasStates else { return }
    pool.states(place: place).copyMemory(
      from: UnsafeRawBufferPointer(pool.states(place: other.place)))
  }
}
