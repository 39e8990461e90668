public import ModelFormat
import TensorBasics

/// Builds a flash image in memory from a GGUF file in memory, word by word as `docs/format.md` says.
///
/// Slow, obvious, and independent of the converter that it checks.
public enum ImageBuilder {
  /// The image of the model in `gguf`.
  ///
  /// - Throws: `FormatError` where `gguf` is not a valid, complete model.
  public static func image(
    of gguf: [UInt8], bundling: Bundling? = nil,
    extentByteCount: Int = FlashImage.defaultExtentByteCount
  ) throws(FormatError) -> [UInt8] {
    var source = try description(of: gguf)
    source.sourceIdentity = identity(of: gguf, source)
    let layout = try FlashImage.Layout(
      for: source, bundling: bundling, extentByteCount: extentByteCount)
    let table = try TensorTable(source.tensors)
    var bytes = [UInt8](repeating: 0, count: layout.fileByteCount)
    for tensor in layout.description.tensors {
      // The matrix that decides is a copy of gate.
      let name = tensor.name.replacing(".ffn_select.", with: ".ffn_gate.")
      guard let origin = table[name] else { continue }
      if case .values(let values) = source.derivations[name] {
        let data = values.flatMap { value in
          withUnsafeBytes(of: value.bitPattern.littleEndian) { Array($0) }
        }
        bytes.replaceSubrange(tensor.offset..<tensor.offset + data.count, with: data)
        continue
      }
      let partByteCount = origin.byteCount / (tensor.stack?.count ?? 1)
      for number in 0..<(tensor.stack?.count ?? 1) {
        let start = origin.offset + number * partByteCount
        let content = Array(gguf[start..<start + partByteCount])
        let data =
          tensor.layout == .rowMajor
          ? content : interleaved(content, tensor: tensor.part(number))
        let target = tensor.offset + number * (tensor.stack?.byteStride ?? 0)
        bytes.replaceSubrange(target..<target + data.count, with: data)
      }
    }
    for (layer, bundles) in (layout.description.neurons?.layers ?? []).enumerated() {
      putNeurons(bundles, layer: layer, of: gguf, table, into: &bytes)
    }
    let checksums = layout.description.extents.map { extent in
      bytes.withUnsafeBytes {
        Checksum.of(
          UnsafeRawBufferPointer(rebasing: $0[extent.offset..<extent.offset + extent.byteCount]))
      }
    }
    bytes.replaceSubrange(0..<layout.dataOffset, with: try layout.preamble(checksums: checksums))
    return bytes
  }

  /// The identity of the dense model in `gguf`; nil of one with experts.
  public static func identity(
    of gguf: [UInt8], _ description: ModelDescription
  ) -> ModelIdentity? {
    guard description.configuration?.experts == nil else { return nil }
    var checksums: [UInt64] = []
    for tensor in ModelIdentity.order(description.storedTensors) {
      let end = tensor.offset + tensor.byteCount
      for start in stride(from: tensor.offset, to: end, by: 1 << 20) {
        checksums.append(
          gguf[start..<min(start + (1 << 20), end)].withUnsafeBytes(Checksum.of))
      }
    }
    return description.identity(checksums: checksums)
  }

  /// The description of a whole file in memory, GGUF or image.
  ///
  /// - Throws: `FormatError`, also where the parser wants more than there is.
  public static func description(of file: [UInt8]) throws(FormatError) -> ModelDescription {
    let file = file
    let result: Result<ModelDescription, FormatError> = file.withUnsafeBytes { bytes in
      do throws(FormatError) {
        switch try ModelFile.describe(bytes, fileByteCount: bytes.count, path: "memory") {
        case .complete(let description): return .success(description)
        case .needsMore: return .failure(FormatError(.truncated, "the parser wants more"))
        }
      } catch { return .failure(error) }
    }
    return try result.get()
  }

  /// Rows one after the other (as in GGUF) put into groups of sixteen interleaved rows.
  public static func interleaved(_ rows: [UInt8], tensor: TensorRecord) -> [UInt8] {
    let type = tensor.type
    let blockCount = RowGroup.blockCount(type, columnCount: tensor.columnCount)
    let blockByteCount = RowGroup.blockByteCount(type)
    let rowByteCount = rows.count / tensor.rowCount
    var result: [UInt8] = []
    /// `count` bytes of block `block` of row `row`, zero if there are none.
    func append(_ count: Int, row: Int, block: Int, at offset: Int) {
      for index in block * blockByteCount + offset..<block * blockByteCount + offset + count {
        let isThere = row < tensor.rowCount && index < rowByteCount
        result.append(isThere ? rows[row * rowByteCount + index] : 0)
      }
    }
    for group in 0..<RowGroup.groupCount(rows: tensor.rowCount) {
      let members = group * RowGroup.rowCount..<(group + 1) * RowGroup.rowCount
      for block in 0..<blockCount {
        let (lone, count) = (type.layout.loneOffset, type.layout.loneByteCount)
        for row in members { append(count, row: row, block: block, at: lone) }
        let first = lone == 0 ? count : 0
        for offset in stride(from: first, to: first + blockByteCount / 4 * 4, by: 4) {
          for row in members { append(4, row: row, block: block, at: offset) }
        }
      }
    }
    return result
  }
}
