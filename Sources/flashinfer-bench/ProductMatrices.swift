import Glibc
import Kernels
import TensorBasics

/// Matrices of random blocks that fill a piece of memory, interleaved, and activations to multiply them by.
final class ProductMatrices {
  private let rowCount: Int
  private let columnCount: Int
  private let weights: AlignedBuffer
  private let values: AlignedBuffer
  private let blockMemory: AlignedBuffer
  private let output: AlignedBuffer
  private var type = ElementType.q4_0

  /// Row groups that differ. The other ones are copies, which takes less time and changes no product's.
  private static let randomGroupCount = 16
  /// Weights that a worker multiplies at a time, about, as in decoding.
  private static let grainByteCount = 128 << 10
  /// With so many activation rows a worker multiplies one row group at a time.
  private static let longGrainTokenCount = 24

  /// - Parameters:
  ///   - memory: bytes for all matrices together.
  ///   - tokenCount: activation rows that there may be.
  /// - Throws: `AllocationError`.
  init(memory: Int, rowCount: Int, columnCount: Int, tokenCount: Int) throws(AllocationError) {
    (self.rowCount, self.columnCount) = (rowCount, columnCount)
    weights = try AlignedBuffer(byteCount: memory, prefersHugePages: true)
    values = try AlignedBuffer(byteCount: 4 * tokenCount * columnCount)
    blockMemory = try AlignedBuffer(
      byteCount: ActivationBlocks.byteCount(tokenCapacity: tokenCount, columnCount: columnCount))
    output = try AlignedBuffer(byteCount: 4 * tokenCount * rowCount)
    var generator = SeededGenerator(seed: 1)
    let floats = values.elements(of: Float.self)
    for index in floats.indices { floats[index] = Float(generator.nextUnit() * 2 - 1) }
  }

  /// Bytes of one matrix.
  static func matrixByteCount(_ type: ElementType, rows: Int, columns: Int) -> Int {
    RowGroup.groupCount(rows: rows) * RowGroup.byteCount(type, columnCount: columns)
  }

  var matrixByteCount: Int {
    Self.matrixByteCount(type, rows: rowCount, columns: columnCount)
  }

  /// How many matrices of the present type there are.
  var count: Int { weights.byteCount / matrixByteCount }

  /// What plain reading of the matrices' memory gives.
  func memoryBytesPerSecond(_ pool: ThreadPool) -> Double {
    MemoryBandwidth.bytesPerSecond(
      reading: UnsafeRawBufferPointer(start: weights.address, count: count * matrixByteCount),
      passCount: 1, pool: pool)
  }

  /// Makes all matrices be of `type`, random in every bit but those of scales.
  func fill(with type: ElementType) {
    self.type = type
    let groupByteCount = RowGroup.byteCount(type, columnCount: columnCount)
    let groupCount = count * matrixByteCount / groupByteCount
    let made = min(Self.randomGroupCount, groupCount)
    var generator = SeededGenerator(seed: 2)
    let blockCount = RowGroup.rowCount * columnCount / type.blockElementCount
    for group in 0..<made {
      var bytes: [UInt8] = []
      for _ in 0..<blockCount { bytes += Self.block(type, &generator) }
      bytes.withUnsafeBytes {
        Interleaving.interleave(
          rows: $0.baseAddress!, rowByteCount: bytes.count / RowGroup.rowCount,
          rowCount: RowGroup.rowCount, type: type, columnCount: columnCount,
          into: weights.address + group * groupByteCount)
      }
    }
    for group in made..<groupCount {
      memcpy(
        weights.address + group * groupByteCount,
        weights.address + group % made * groupByteCount, groupByteCount)
    }
  }

  private static func block(_ type: ElementType, _ generator: inout SeededGenerator) -> [UInt8] {
    var bytes = (0..<type.blockByteCount).map { _ in
      UInt8(truncatingIfNeeded: generator.next())
    }
    switch type.layout.scale {
    case .none, .finite: break
    case .exponent(let offset): bytes[offset] = 120
    case .half, .halves:
      // 2^-6 and more, up to twice that.
      for offset in type.layout.halfOffsets { bytes[offset + 1] = 0x24 }
    case .nibbles(let offset):
      for (index, nibble) in [0, 0, 4, 2].enumerated() {
        bytes[offset + 2 * index + 1] = bytes[offset + 2 * index + 1] & 15 | UInt8(nibble << 4)
      }
    }
    return bytes
  }

  /// Prepares `tokenCount` activation rows.
  func quantise(tokenCount: Int) {
    blocks.quantise(floats, stride: columnCount, tokens: 0..<tokenCount)
  }

  private var floats: UnsafePointer<Float> {
    UnsafePointer(values.address.assumingMemoryBound(to: Float.self))
  }

  private var blocks: ActivationBlocks {
    ActivationBlocks(memory: blockMemory.address, columnCount: columnCount)
  }

  /// Multiplies one matrix by the activation rows that were prepared last.
  func multiply(_ index: Int, tokenCount: Int, on pool: ThreadPool) {
    let operand = MatrixOperand(
      address: weights.address + index * matrixByteCount, type: type, layout: .interleaved,
      rowCount: rowCount, columnCount: columnCount)
    let activations = Activations(
      values: floats, stride: columnCount, blocks: blocks, tokenCount: tokenCount)
    let groupCount = RowGroup.groupCount(rows: rowCount)
    let share = min(Self.grainByteCount, matrixByteCount / (16 * pool.threadCount))
    let grain =
      tokenCount >= Self.longGrainTokenCount ? 1 : max(1, share * groupCount / matrixByteCount)
    // Safety: each grain writes rows of its own.
    nonisolated(unsafe) let result = output.address.assumingMemoryBound(to: Float.self)
    pool.run(count: (groupCount + grain - 1) / grain) { part, _ in
      MatrixProduct.multiply(
        operand, groups: part * grain..<min((part + 1) * grain, groupCount), by: activations,
        into: result, outputStride: rowCount, scratch: nil)
    }
  }
}
