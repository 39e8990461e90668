/// States of layers that have one in place of keys and values.
///
/// A state knows no position but the last that it has taken in. A chunk changes states in place, so that one that was broken off
/// leaves none, until the sequence is cut to its beginning. Of a chunk with tentative positions states take in nothing before it
/// is decided which of them are certain: where it is broken off, they are those before it.
extension KeyValueStore {
  /// A layer's state, of the layers that have one; a worker may change a part of its own.
  package func state(_ number: Int) -> UnsafeMutableRawPointer {
    pool.state(place: place, number: number)
  }

  /// Notes that all states have taken in the chunk's positions before `end`, those that are certain.
  public func finishStates(at end: Int) { statesEnd = end }

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
    statesEnd = other.statesEnd
    guard shape.hasStates else { return }
    pool.states(place: place).copyMemory(
      from: UnsafeRawBufferPointer(pool.states(place: other.place)))
  }
}
