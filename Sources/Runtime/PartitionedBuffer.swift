import TensorBasics

/// One allocation cut into buffers, each at a multiple of 64 bytes.
struct PartitionedBuffer: ~Copyable {
  private let memory: AlignedBuffer
  private let parts: [UnsafeMutableRawBufferPointer]

  /// - Parameter byteCounts: of each buffer, as ``roundedUp(_:)`` makes them.
  /// - Throws: ``AllocationError``.
  init(_ byteCounts: [Int]) throws(AllocationError) {
    let memory = try AlignedBuffer(byteCount: byteCounts.reduce(0, +))
    var next = memory.address
    var parts: [UnsafeMutableRawBufferPointer] = []
    for byteCount in byteCounts {
      parts.append(UnsafeMutableRawBufferPointer(start: next, count: byteCount))
      next += byteCount
    }
    self.parts = parts
    self.memory = memory
  }

  /// The first byte of a buffer.
  func address(_ index: Int) -> UnsafeMutableRawPointer { parts[index].baseAddress! }

  /// A buffer as an array of `type`.
  func pointer<T: ~Copyable>(_ index: Int, as type: T.Type) -> UnsafeMutablePointer<T> {
    parts[index].bindMemory(to: type).baseAddress!
  }

  /// Bytes that buffers of those lengths take together.
  static func byteCount(_ byteCounts: [Int]) -> Int {
    AlignedBuffer.roundedUp(byteCounts.reduce(0, +))
  }

  /// A buffer's length with what keeps the next one aligned.
  static func roundedUp(_ byteCount: Int) -> Int { (byteCount + 63) & ~63 }
}
