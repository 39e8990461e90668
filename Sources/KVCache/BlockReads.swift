import TensorBasics

/// Reading of single blocks of rows: a policy may plan the blocks of some heads only, and what it leaves
/// out is not read.
///
/// A row's own checksum covers all its blocks. Theirs are computed while the row is in memory; before that
/// it is read whole.
final class BlockReads {
  /// Reads under way of a row's blocks [rowCount]; 0 if it is read whole or not at all.
  let pendingRuns: UnsafeMutablePointer<UInt8>

  private let shape: KeyValueShape
  /// XXH3-64 of each block [rowCount, keyValueHeadCount].
  private let checksums: UnsafeMutablePointer<UInt64>

  /// Nil where blocks do not begin at multiples of what devices read, or cannot be counted.
  init?(_ shape: KeyValueShape) {
    guard shape.blockByteCount % AlignedBuffer.pageByteCount == 0,
      (2...Int(UInt8.max)).contains(shape.keyValueHeadCount)
    else { return nil }
    self.shape = shape
    pendingRuns = .allocate(capacity: shape.rowCount)
    pendingRuns.initialize(repeating: 0, count: shape.rowCount)
    checksums = .allocate(capacity: shape.rowCount * shape.keyValueHeadCount)
    checksums.initialize(repeating: 0, count: shape.rowCount * shape.keyValueHeadCount)
  }

  deinit {
    pendingRuns.deallocate()
    checksums.deallocate()
  }

  static func byteCount(_ shape: KeyValueShape) -> Int {
    shape.rowCount * (8 * shape.keyValueHeadCount + 1)
  }

  /// Computes the checksums of the blocks of a row in memory.
  func sum(_ row: Int, _ address: UnsafeRawPointer) {
    for head in 0..<shape.keyValueHeadCount {
      checksums[row * shape.keyValueHeadCount + head] = checksum(head, address)
    }
  }

  /// How many reads bring the planned blocks of a row whose blocks have checksums; nil if it is read
  /// whole anyway.
  func runs(of row: Int, _ selection: BlockSelection, most: Int) -> Int? {
    var (count, head) = (0, 0)
    while let run = nextRun(of: row, selection, from: head) {
      (count, head) = (count + 1, run.end)
    }
    return (1...most).contains(count) ? count : nil
  }

  /// The next neighbouring planned blocks of a row, as bytes of it, and the head that follows them.
  func nextRun(
    of row: Int, _ selection: BlockSelection, from head: Int
  ) -> (bytes: Range<Int>, end: Int)? {
    let count = shape.keyValueHeadCount
    guard let first = (head..<count).first(where: { selection.includes(row, head: $0) }) else {
      return nil
    }
    let end = (first..<count).first { !selection.includes(row, head: $0) } ?? count
    return (first * shape.blockByteCount..<end * shape.blockByteCount, end)
  }

  /// Whether the planned blocks of a row are what they were.
  func areIntact(_ row: Int, _ selection: BlockSelection, _ address: UnsafeRawPointer) -> Bool {
    (0..<shape.keyValueHeadCount).allSatisfy {
      !selection.includes(row, head: $0)
        || checksum($0, address) == checksums[row * shape.keyValueHeadCount + $0]
    }
  }

  func reset() {
    pendingRuns.update(repeating: 0, count: shape.rowCount)
  }

  private func checksum(_ head: Int, _ address: UnsafeRawPointer) -> UInt64 {
    KeyValueStore.checksum(
      UnsafeRawBufferPointer(
        start: address + head * shape.blockByteCount, count: shape.blockByteCount))
  }
}
