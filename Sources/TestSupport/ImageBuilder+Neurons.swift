import ModelFormat
import TensorBasics

extension ImageBuilder {
  /// Puts the bundles of one layer into `image`, byte by byte, where no value changes: `docs/format.md`,
  /// section 6.
  static func putNeurons(
    _ bundles: NeuronBundles, layer: Int, of gguf: [UInt8], _ table: TensorTable,
    into image: inout [UInt8]
  ) {
    for number in 0..<bundles.bundleCount {
      var bundle: [UInt8] = []
      for part in bundles.parts {
        guard let tensor = table["blk.\(layer).ffn_\(part.role.rawValue).weight"] else { continue }
        bundle +=
          part.role == .down
          ? columns(of: tensor, bundle: number, bundles.neuronsPerBundle, gguf)
          : rows(of: tensor, bundle: number, bundles.neuronsPerBundle, gguf)
      }
      let start = bundles.offset + number * bundles.byteStride
      image.replaceSubrange(start..<start + bundle.count, with: bundle)
      let prefix = bundles.prefixByteCount
      for (word, part) in [bundle[..<prefix], bundle[prefix...]].enumerated() {
        let checksum = part.withUnsafeBytes { Checksum.of($0) }
        for byte in 0..<4 {
          image[bundles.checksumOffset + 8 * number + 4 * word + byte] =
            UInt8(truncatingIfNeeded: checksum >> UInt64(8 * byte))
        }
      }
    }
  }

  private static func rows(
    of tensor: TensorRecord, bundle: Int, _ neuronCount: Int, _ gguf: [UInt8]
  ) -> [UInt8] {
    let rowByteCount = tensor.byteCount / tensor.rowCount
    let start = tensor.offset + bundle * neuronCount * rowByteCount
    let rows = Array(gguf[start..<start + neuronCount * rowByteCount])
    guard neuronCount > 1 else { return rows }
    var part = tensor
    part.rowCount = neuronCount
    return interleaved(rows, tensor: part)
  }

  private static func columns(
    of tensor: TensorRecord, bundle: Int, _ neuronCount: Int, _ gguf: [UInt8]
  ) -> [UInt8] {
    precondition(
      neuronCount > 1 || !tensor.type.isQuantised, "quantised columns are the converter's")
    let rowByteCount = tensor.byteCount / tensor.rowCount
    let blockByteCount = tensor.type.blockByteCount
    var blocks: [UInt8] = []
    for row in 0..<tensor.rowCount {
      let start = tensor.offset + row * rowByteCount + bundle * blockByteCount
      blocks += gguf[start..<start + blockByteCount]
    }
    guard neuronCount > 1 else { return blocks }
    var part = tensor
    part.columnCount = neuronCount
    return interleaved(blocks, tensor: part)
  }
}
