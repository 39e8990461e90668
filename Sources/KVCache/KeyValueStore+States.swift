/// States of layers that have one in place of keys and values.
///
/// A state is that after the last position: it is changed in place, and there is no way back but to begin anew. So a chunk that was
/// broken off has none, until the sequence is cut to its beginning.
extension KeyValueStore {
  /// A layer's state, of the layers that have one; a worker may change a part of its own.
  package func state(_ number: Int) -> UnsafeMutableRawPointer {
    pool.state(place: place, number: number)
  }

  /// Notes that all states have taken in the chunk.
  public func finishStates() { hasStates = true }

  /// Makes states those of a sequence without positions.
  func clearStates() {
    hasStates = true
    guard shape.hasStates else { return }
    let states = pool.states(place: place)
    states.baseAddress?.initializeMemory(as: UInt8.self, repeating: 0, count: states.count)
  }

  /// Takes over another sequence's states.
  func copyStates(of other: KeyValueStore) {
    guard shape.hasStates else { return }
    pool.states(place: place).copyMemory(
      from: UnsafeRawBufferPointer(pool.states(place: other.place)))
  }
}
