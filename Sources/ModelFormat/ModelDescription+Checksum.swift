import FoundationEssentials
import TensorBasics

extension ModelDescription {
  /// XXH3-64 over the configuration, thresholds of neurons, the table of tensors and the checksums of the data.
  ///
  /// Models with equal data and graph have equal checksums, whatever their names and wherever they lie. Where
  /// the format has no checksums of its data, models of one shape have equal ones as well.
  public var structureChecksum: UInt64 {
    var bytes: [UInt8] = []
    let encoder = JSONEncoder()
    encoder.outputFormatting = .sortedKeys
    // Plain values without a way to fail: numbers in a description are finite.
    if let json = try? encoder.encode(configuration) { bytes.append(contentsOf: json) }
    if let thresholds = neurons?.thresholds, let json = try? encoder.encode(thresholds) {
      bytes.append(contentsOf: json)
    }
    for tensor in tensors {
      bytes.append(contentsOf: tensor.name.utf8)
      bytes.append(contentsOf: "\n\(tensor.type.name) \(tensor.layout.rawValue)\n".utf8)
      for number in [
        tensor.columnCount, tensor.rowCount, tensor.fileIndex, tensor.offset, tensor.byteCount,
      ] { bytes.appendLittleEndian(number) }
    }
    for extent in extents { bytes.appendLittleEndian(extent.checksum) }
    return bytes.withUnsafeBytes(FlashImage.checksum)
  }
}
