import TensorBasics

/// Checks that an image's tensors and extents lie where `docs/format.md` wants them.
struct FlashImageGeometry {
  let description: ModelDescription
  /// The file's data.
  let data: Range<Int>
  let path: String

  /// Shapes have been validated against the configuration, so products of them cannot overflow.
  func validate() throws(FormatError) {
    try validateTensors()
    try validateExtents()
  }

  private func error(at offset: Int, _ message: String) -> FormatError {
    FormatError(.malformed, at: offset, path: path, message)
  }

  private func validateTensors() throws(FormatError) {
    var end = data.lowerBound
    for tensor in description.tensors {
      guard tensor.rowCount > 1 || tensor.layout == .rowMajor else {
        throw error(at: tensor.offset, "vector \"\(tensor.name)\" is interleaved")
      }
      guard let byteCount = tensor.expectedByteCount, byteCount == tensor.byteCount else {
        throw error(
          at: tensor.offset,
          "tensor \"\(tensor.name)\" has \(tensor.byteCount) bytes, which its shape does not make")
      }
      guard tensor.offset % FlashImage.alignment == 0, tensor.offset >= end,
        tensor.offset <= data.upperBound, byteCount <= data.upperBound - tensor.offset
      else {
        throw error(
          at: tensor.offset,
          "tensor \"\(tensor.name)\" is not aligned, overlaps the one before or leaves the file")
      }
      end = FlashImage.roundedUp(tensor.offset + byteCount)
    }
  }

  /// Extents follow each other without gap, and each matrix is a whole number of them.
  private func validateExtents() throws(FormatError) {
    var end = data.lowerBound
    var starts: Set<Int> = []
    for extent in description.extents {
      guard extent.offset == end, extent.byteCount > 0,
        extent.byteCount % FlashImage.alignment == 0, extent.byteCount <= data.upperBound - end
      else { throw error(at: extent.offset, "extents do not cover the data one after the other") }
      starts.insert(end)
      end += extent.byteCount
    }
    guard end == data.upperBound else {
      throw error(at: end, "no extent covers the data from here")
    }
    starts.insert(end)
    for tensor in description.tensors where tensor.rowCount > 1 {
      let tensorEnd = FlashImage.roundedUp(tensor.offset + tensor.byteCount)
      guard starts.contains(tensor.offset), starts.contains(tensorEnd) else {
        throw error(
          at: tensor.offset, "tensor \"\(tensor.name)\" is not a whole number of extents")
      }
    }
  }
}

extension TensorRecord {
  /// Bytes that type, shape and layout make, or nil where rows are not whole blocks.
  ///
  /// Shapes must be within the bounds of ``DecoderConfiguration/validate(path:)``.
  var expectedByteCount: Int? {
    guard let rowByteCount = type.rowByteCount(columnCount: columnCount) else { return nil }
    return switch layout {
    case .rowMajor: rowByteCount * rowCount
    case .interleaved:
      RowGroup.groupCount(rows: rowCount) * RowGroup.byteCount(type, columnCount: columnCount)
    }
  }

  /// Bytes after which rows begin anew: a row, or a row group when interleaved.
  var rowUnitByteCount: Int {
    switch layout {
    case .rowMajor: byteCount / rowCount
    case .interleaved: RowGroup.byteCount(type, columnCount: columnCount)
    }
  }
}
