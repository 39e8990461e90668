import BlockIO
import Kernels
import ModelFormat
import TensorBasics
import WeightLoader

/// The rows of a packed matrix, unpacked with their scales.
///
/// Scales are read for the rows at hand, a few at a time: those of a whole matrix may take more memory than a
/// conversion has.
final class PackedRows {
  private let record: TensorRecord
  private let matrix: PackedMatrix
  private let path: String
  private let scalesPath: String
  private let place: ExpertStack.Place
  /// Scales of rows of blocks ``loaded``.
  private var scales: [Float] = []
  private var loaded = 0..<0
  private let values: [Float]
  /// Where the matrix's rows and columns are stated; nil once they were compared.
  private var shapePlace: (path: String, offset: Int)?

  private static let chunkByteCount = 1 << 20

  /// - Parameters:
  ///   - record: the whole tensor.
  ///   - part: which of its matrices.
  /// - Returns: nil of a tensor that is not packed.
  init?(
    _ record: TensorRecord, _ derivation: TensorDerivation?, part: Int, of source: ModelSource
  ) {
    guard case .packed(let matrix) = derivation else { return nil }
    self.record = record.part(part)
    self.matrix = matrix
    place = matrix.scales.places[part]
    path = source.description.files[self.record.fileIndex]
    scalesPath = source.description.files[place.fileIndex]
    values = Self.values(of: matrix.form)
    if matrix.shapes.indices.contains(part) {
      let shape = matrix.shapes[part]
      shapePlace = (source.description.files[shape.fileIndex], shape.offset)
    }
  }

  /// The type that holds every value; nil where they are rounded.
  var exactType: ElementType? {
    switch matrix.form {
    case .int4: .q4_0
    case .e2m1: .mxfp4
    case .e4m3, .e5m2: nil
    }
  }

  /// What each byte of a float of 8 bits stands for.
  private static func values(of form: PackedMatrix.Form) -> [Float] {
    (0..<256).map { byte in
      switch form {
      case .e5m2: return Float(Float16(bitPattern: UInt16(byte) << 8))
      case .e4m3:
        let (exponent, mantissa) = (byte >> 3 & 15, byte & 7)
        if byte & 0x7F == 0x7F { return .nan }
        let magnitude =
          exponent == 0
          ? Float(mantissa) * 0x1p-9
          : Float(8 + mantissa) * Float(sign: .plus, exponent: exponent - 10, significand: 1)
        return byte >= 128 ? -magnitude : magnitude
      case .int4: return 0
      case .e2m1:
        let magnitude: [Float] = [0, 0.5, 1, 1.5, 2, 3, 4, 6]
        return byte & 8 == 0 ? magnitude[byte & 7] : -magnitude[byte & 7]
      }
    }
  }

  /// Reads the scales of rows that are unpacked next; then several threads may unpack them.
  ///
  /// - Throws: ``ConversionError/io(_:)``, also for a file that became shorter; ``ConversionError/format(_:)`` where
  ///   the file states another shape.
  func prepare(rows: Range<Int>) throws(ConversionError) {
    guard !rows.isEmpty else { return }
    try checkShape()
    let (first, last) = (scaleRow(of: rows.lowerBound), scaleRow(of: rows.upperBound - 1))
    if !loaded.contains(first) || !loaded.contains(last) { try load(first...last) }
  }

  /// Writes the values of a row among those prepared.
  ///
  /// - Throws: ``ConversionError/format(_:)`` for one that is not finite.
  func unpack(
    _ bytes: UnsafeRawPointer, row: Int, into output: UnsafeMutablePointer<Float>
  ) throws(ConversionError) {
    let bytes = bytes + firstByte
    let scales = firstScale(ofRow: row)
    let width = matrix.scales.blockColumnCount
    for block in 0..<matrix.scales.columnCount {
      let scale = self.scales[scales + block]
      for column in block * width..<min((block + 1) * width, record.columnCount) {
        output[column] = element(bytes, column) * scale
        guard BrainFloat.bits(output[column]) & 0x7F80 != 0x7F80 else {
          throw notFinite(row: row, column: column)
        }
      }
    }
  }

  private func element(_ bytes: UnsafeRawPointer, _ column: Int) -> Float {
    guard matrix.form != .int4 else { return Float(nibble(bytes, column)) - 8 }
    if matrix.form == .e2m1 { return values[Int(nibble(bytes, column))] }
    return values[Int(bytes.load(fromByteOffset: column, as: UInt8.self))]
  }

  private func nibble(_ bytes: UnsafeRawPointer, _ column: Int) -> UInt8 {
    bytes.load(fromByteOffset: column / 2, as: UInt8.self) >> UInt8(column % 2 * 4) & 15
  }

  /// Writes a row of numbers of 4 bits, among those prepared, as the type that holds them: Q4_0 or MXFP4.
  ///
  /// - Throws: ``ConversionError/notPossible(_:)`` where a scale is none that the type has.
  func repack(
    _ bytes: UnsafeRawPointer, row: Int, into output: UnsafeMutableRawPointer
  ) throws(ConversionError) {
    let bytes = bytes + firstByte
    let scales = firstScale(ofRow: row)
    guard let type = exactType else { return }
    let headByteCount = type.blockByteCount - 16
    for block in 0..<record.columnCount / 32 {
      let scale = self.scales[scales + block * 32 / matrix.scales.blockColumnCount]
      let target = output + block * type.blockByteCount
      if type == .mxfp4 {
        guard scale.isFinite else { throw notFinite(row: row, column: 32 * block) }
        // Of the scale's bits the exponent alone; 0 is the one denormal among them.
        target.storeBytes(of: UInt8(scale.bitPattern >> 23 & 0xFF), as: UInt8.self)
      } else {
        let half = Float16(scale)
        guard Float(half) == scale, half.isFinite else {
          throw .notPossible(
            "row \(row) of tensor '\(record.name)' has the scale \(scale), which Q4_0 cannot store exactly in "
              + "its 16 bits: take the folder that this one was made from, and quantise that")
        }
        target.storeBytes(of: half.bitPattern.littleEndian, as: UInt16.self)
      }
      for index in 0..<16 {
        let low = nibble(bytes, 32 * block + index)
        let high = nibble(bytes, 32 * block + 16 + index)
        target.storeBytes(of: low | high << 4, toByteOffset: headByteCount + index, as: UInt8.self)
      }
    }
  }

  /// Where a row begins among the stored ones that are read for it.
  private var firstByte: Int {
    matrix.firstRow % matrix.rowStep * (record.byteCount / record.rowCount / matrix.rowStep)
  }

  private func notFinite(row: Int, column: Int) -> ConversionError {
    .format(
      FormatError(
        .malformed, at: record.offset + row * (record.byteCount / record.rowCount) + column,
        path: path,
        "row \(row) of tensor '\(record.name)' has a weight that is infinite or not a number at column "
          + "\(column): the file is damaged, or was made from weights that were"))
  }

  private func checkShape() throws(ConversionError) {
    guard let (path, offset) = shapePlace else { return }
    let bytes = try Self.read(16, path: path, offset: offset)
    let stated = bytes.withUnsafeBytes { buffer in
      [0, 8].map { Int64(littleEndian: buffer.loadUnaligned(fromByteOffset: $0, as: Int64.self)) }
    }
    // Of a fused matrix the shape is that of the whole, which has a row of scales for each row.
    let found = [Int64(matrix.scales.rowCount), Int64(record.columnCount)]
    guard stated == found else {
      throw .format(
        FormatError(
          .malformed, at: offset, path: path,
          "the weight_shape of tensor '\(record.name)' is \(stated), and what is packed has \(found[0]) rows of "
            + "\(found[1])"))
    }
    shapePlace = nil
  }

  private static func read(
    _ byteCount: Int, path: String, offset: Int
  ) throws(ConversionError) -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: byteCount)
    var failure: BlockIOError?
    bytes.withUnsafeMutableBytes { buffer in
      do throws(BlockIOError) {
        try FileRange.read(path: path, offset: offset, into: buffer)
      } catch { failure = error }
    }
    if let failure { throw .io(failure) }
    return bytes
  }

  // MARK: - Scales

  /// The row of blocks that a row belongs to.
  private func scaleRow(of row: Int) -> Int {
    (matrix.firstRow + row * matrix.rowStep) / matrix.scales.blockRowCount
  }

  /// Where in ``scales`` those of a row begin.
  private func firstScale(ofRow row: Int) -> Int {
    (scaleRow(of: row) - loaded.lowerBound) * matrix.scales.columnCount
  }

  /// Reads the scales of some rows of blocks, and of those after them while they are few.
  private func load(_ wanted: ClosedRange<Int>) throws(ConversionError) {
    let block = wanted.lowerBound
    let rowByteCount = matrix.scales.columnCount * matrix.scales.type.byteCount
    let count = max(
      wanted.count,
      min(matrix.scales.rowCount - block, Self.chunkByteCount / max(1, rowByteCount)))
    let bytes = try Self.read(
      count * rowByteCount, path: scalesPath, offset: place.offset + block * rowByteCount)
    let size = matrix.scales.type.byteCount
    scales = bytes.withUnsafeBytes { buffer in
      (0..<count * matrix.scales.columnCount).map { index in
        number(UnsafeRawBufferPointer(rebasing: buffer[index * size..<(index + 1) * size]))
      }
    }
    loaded = block..<block + count
  }

  private func number(_ bytes: UnsafeRawBufferPointer) -> Float {
    func half() -> UInt16 { UInt16(littleEndian: bytes.loadUnaligned(as: UInt16.self)) }
    switch matrix.scales.type {
    case .f32: return Float(bitPattern: UInt32(littleEndian: bytes.loadUnaligned(as: UInt32.self)))
    case .f16: return Float(Float16(bitPattern: half()))
    case .bf16: return Float(bitPattern: UInt32(half()) << 16)
    // 0 is 2^−127, a denormal; 255 is no number.
    case .e8m0:
      let exponent = UInt32(bytes[0])
      return exponent == 255
        ? .nan : Float(bitPattern: exponent == 0 ? 0x0040_0000 : exponent << 23)
    }
  }
}
