import WeightLoader

#if canImport(Glibc)
  import Glibc
#endif

/// A matrix as it lies in a file: rows of 32-bit, 16-bit or Q8_0 elements, one after the other or sixteen
/// interleaved in 4-byte words (`docs/format.md`, section 5).
struct Matrix {
  private let expert: LoadedTensors
  /// Which of the expert's parts this is.
  private let index: Int
  private let type: String
  private let isInterleaved: Bool
  private let rowCount: Int
  private let columnCount: Int

  init(_ tensor: LoadableTensor, _ expert: LoadedTensors, _ index: Int) {
    self.expert = expert
    self.index = index
    type = tensor.type.name
    isInterleaved = tensor.layout == .interleaved
    rowCount = tensor.partRowCount
    columnCount = tensor.columnCount
    precondition(["F32", "F16", "Q8_0"].contains(type), "this example does not multiply \(type)")
  }

  /// The product with a vector of `columnCount` elements.
  static func * (matrix: Matrix, vector: [Float]) -> [Float] {
    var row = [Float](repeating: 0, count: matrix.columnCount)
    return matrix.expert.withBytes(matrix.index) { bytes in
      (0..<matrix.rowCount).map { index in
        matrix.read(row: index, of: bytes, into: &row)
        return zip(row, vector).reduce(into: Float(0)) { $0 += $1.0 * $1.1 }
      }
    }
  }

  /// Bytes of one row in one block, and elements in it.
  private var block: (byteCount: Int, elementCount: Int) {
    switch type {
    case "F32": (4, 1)
    case "F16": (4, 2)
    default: (34, 32)
    }
  }

  /// One row as floats.
  private func read(row: Int, of bytes: UnsafeRawBufferPointer, into values: inout [Float]) {
    let (byteCount, elementCount) = block
    let blockCount = (columnCount + elementCount - 1) / elementCount
    var words = [UInt8](repeating: 0, count: byteCount)
    for index in 0..<blockCount {
      copyBlock(index, of: row, blockCount: blockCount, bytes, into: &words)
      for element in 0..<min(elementCount, columnCount - index * elementCount) {
        values[index * elementCount + element] = Self.value(element, type, words)
      }
    }
  }

  /// One block of a row, with its bytes in the order of a row that is not interleaved.
  private func copyBlock(
    _ index: Int, of row: Int, blockCount: Int, _ bytes: UnsafeRawBufferPointer,
    into words: inout [UInt8]
  ) {
    let count = words.count
    guard isInterleaved else {
      let rowByteCount = type == "F16" ? 2 * columnCount : blockCount * count
      let start = row * rowByteCount + index * count
      for byte in 0..<min(count, rowByteCount - index * count) { words[byte] = bytes[start + byte] }
      return
    }
    let start = (row / 16 * blockCount + index) * 16 * count
    // A block of Q8_0 begins with the two bytes of its scale.
    let half = type == "Q8_0" ? 2 : 0
    for byte in 0..<half { words[byte] = bytes[start + row % 16 * 2 + byte] }
    for byte in half..<count {
      let word = (byte - half) / 4
      words[byte] = bytes[start + 16 * half + (word * 16 + row % 16) * 4 + (byte - half) % 4]
    }
  }

  private static func value(_ element: Int, _ type: String, _ words: [UInt8]) -> Float {
    words.withUnsafeBytes { bytes in
      switch type {
      case "F32": bytes.loadUnaligned(as: Float.self)
      case "F16": Float(bytes.loadUnaligned(fromByteOffset: 2 * element, as: Float16.self))
      default:
        Float(bytes.loadUnaligned(as: Float16.self))
          * Float(bytes.load(fromByteOffset: 2 + element, as: Int8.self))
      }
    }
  }
}

func silu(_ x: Float) -> Float { x / (1 + exp(-x)) }

/// SplitMix64.
struct Generator: RandomNumberGenerator {
  var state: UInt64

  mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var z = state
    z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
    z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
    return z ^ (z >> 31)
  }
}
