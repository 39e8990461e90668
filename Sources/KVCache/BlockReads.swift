import TensorBasics

/// Reading of single blocks of pages: a policy may plan the blocks of some heads only, and what it leaves
/// out is not read.
///
/// A page's own checksum covers all its blocks. Theirs are computed while the page is in memory; before that
/// it is read whole.
final class BlockReads {
  private let shape: KeyValueShape
  /// XXH3-64 of each block [pageCount, keyValueHeadCount].
  private let checksums: UnsafeMutablePointer<UInt64>

  /// Nil where blocks do not begin at multiples of what devices read, or cannot be counted.
  init?(_ shape: KeyValueShape) {
    guard shape.blockByteCount % AlignedBuffer.pageByteCount == 0,
      (2...Int(UInt8.max)).contains(shape.keyValueHeadCount)
    else { return nil }
    self.shape = shape
    checksums = .allocate(capacity: shape.pageCount * shape.keyValueHeadCount)
    checksums.initialize(repeating: 0, count: shape.pageCount * shape.keyValueHeadCount)
  }

  deinit { checksums.deallocate() }

  static func byteCount(_ shape: KeyValueShape) -> Int {
    shape.pageCount * 8 * shape.keyValueHeadCount
  }

  /// Computes the checksums of the blocks of a page in memory.
  func sum(_ page: Int, _ address: UnsafeRawPointer) {
    for head in 0..<shape.keyValueHeadCount {
      checksums[page * shape.keyValueHeadCount + head] = checksum(head, address)
    }
  }

  /// How many reads bring the planned blocks of a page whose blocks have checksums; nil if it is read
  /// whole anyway.
  func runs(of page: Int, _ selection: BlockSelection, most: Int) -> Int? {
    var (count, head) = (0, 0)
    while let run = nextRun(of: page, selection, from: head) {
      (count, head) = (count + 1, run.end)
    }
    return (1...most).contains(count) ? count : nil
  }

  /// The next neighbouring planned blocks of a page, as bytes of it, and the head that follows them.
  func nextRun(
    of page: Int, _ selection: BlockSelection, from head: Int
  ) -> (bytes: Range<Int>, end: Int)? {
    let count = shape.keyValueHeadCount
    guard let first = (head..<count).first(where: { selection.includes(page, head: $0) }) else {
      return nil
    }
    let end = (first..<count).first { !selection.includes(page, head: $0) } ?? count
    return (first * shape.blockByteCount..<end * shape.blockByteCount, end)
  }

  /// Whether the planned blocks of a page are what they were.
  func areIntact(_ page: Int, _ selection: BlockSelection, _ address: UnsafeRawPointer) -> Bool {
    (0..<shape.keyValueHeadCount).allSatisfy {
      !selection.includes(page, head: $0)
        || checksum($0, address) == checksums[page * shape.keyValueHeadCount + $0]
    }
  }

  /// Takes over what `other`, of another sequence with the same pages, knows.
  func adopt(_ other: BlockReads) {
    checksums.update(
      from: other.checksums, count: shape.pageCount * shape.keyValueHeadCount)
  }

  private func checksum(_ head: Int, _ address: UnsafeRawPointer) -> UInt64 {
    Checksum.of(
      UnsafeRawBufferPointer(
        start: address + head * shape.blockByteCount, count: shape.blockByteCount))
  }
}
