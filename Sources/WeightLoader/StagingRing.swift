/// Byte ranges of one buffer handed out first in, first out.
///
/// Bookkeeping only: it neither owns nor touches the memory.
package struct StagingRing {
  private let byteCount: Int
  /// End offsets of what is handed out, oldest first; a ring of fixed capacity.
  private var ends: [Int]
  private var oldest = 0
  package private(set) var count = 0
  private var head = 0
  private var tail = 0

  /// - Parameter capacity: most ranges handed out at once.
  package init(byteCount: Int, capacity: Int) {
    self.byteCount = byteCount
    ends = [Int](repeating: 0, count: max(1, capacity))
  }

  /// Hands out `length` contiguous bytes, or nil while they are not free.
  package mutating func allocate(_ length: Int) -> Int? {
    guard count < ends.count else { return nil }
    if count == 0 {
      head = 0
      tail = 0
    }
    let start: Int
    if count == 0 || head > tail {
      if byteCount - head >= length {
        start = head
      } else if tail >= length, count > 0 {
        start = 0
      } else {
        return nil
      }
    } else {
      guard tail - head >= length else { return nil }
      start = head
    }
    head = start + length
    ends[(oldest + count) % ends.count] = head
    count += 1
    return start
  }

  /// Takes back the oldest range.
  package mutating func releaseOldest() {
    precondition(count > 0, "nothing is handed out")
    tail = ends[oldest]
    oldest = (oldest + 1) % ends.count
    count -= 1
  }
}
