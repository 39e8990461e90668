import TensorBasics

/// Copies of sequences' states as they were before their ends: restore points of layers that have states.
///
/// There are few, because each takes as much as a sequence's own: whoever needs one takes that which was not used for longest. A
/// copy never changes until then, so forks know the same ones.
struct SavedStates: ~Copyable {
  /// A copy, as a sequence knows it; others may have taken its place since.
  struct Copy {
    /// Positions that it has taken in.
    let position: Int
    fileprivate let index: Int
    fileprivate let number: UInt64
  }

  private let memory: AlignedBuffer
  private let byteCount: Int
  /// Of each place: the copy's number, and when it was used last.
  private var places: [(number: UInt64, use: UInt64)]
  private var count: UInt64 = 0

  /// - Parameters:
  ///   - capacity: copies that there is room for.
  ///   - byteCount: of one.
  init(capacity: Int, byteCount: Int) throws(AllocationError) {
    memory = try AlignedBuffer(byteCount: capacity * byteCount)
    self.byteCount = byteCount
    places = Array(repeating: (0, 0), count: byteCount == 0 ? 0 : capacity)
  }

  /// Room for a copy; nil where there is none at all.
  mutating func add(after position: Int) -> Copy? {
    guard let index = places.indices.min(by: { places[$0].use < places[$1].use }) else {
      return nil
    }
    count += 1
    places[index] = (count, count)
    return Copy(position: position, index: index, number: count)
  }

  func isThere(_ copy: Copy) -> Bool { places[copy.index].number == copy.number }

  mutating func noteUse(of copy: Copy) {
    count += 1
    places[copy.index].use = count
  }

  /// - Precondition: it is there.
  func address(of copy: Copy) -> UnsafeMutableRawPointer {
    precondition(isThere(copy), "another copy has taken its place")
    return memory.address + copy.index * byteCount
  }
}
