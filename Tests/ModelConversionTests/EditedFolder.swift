import Glibc
import ModelFormat
import TensorBasics
import TestSupport
import Testing

/// A copy of a folder under `Vectors` with other tensors and another `config.json`.
struct EditedFolder {
  /// A tensor of a safetensors file, of any dtype.
  struct Tensor {
    var type: String
    var shape: [Int]
    var bytes: [UInt8]
  }

  /// By name, of all shards together.
  var tensors: [String: Tensor] = [:]
  var config: String
  private let others: [(name: String, bytes: [UInt8])]

  init(_ name: String) throws {
    let folder = VectorModel.folder(name)
    config = String(decoding: try VectorModel.read(folder + "/config.json"), as: UTF8.self)
    others = try ["tokenizer.json", "tokenizer_config.json", "generation_config.json"]
      .filter { access("\(folder)/\($0)", F_OK) == 0 }
      .map { ($0, try VectorModel.read("\(folder)/\($0)")) }
    var names = ["model.safetensors"]
    if access("\(folder)/model.safetensors", F_OK) != 0 {
      names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    }
    for name in names {
      let bytes = try VectorModel.read("\(folder)/\(name)")
      let progress = try bytes.withUnsafeBytes { bytes throws(FormatError) in
        try Safetensors.parse(bytes, fileByteCount: bytes.count, path: name)
      }
      guard case .complete(let file) = progress else {
        Issue.record("\(name) is not whole")
        continue
      }
      for tensor in file.tensors {
        tensors[tensor.name] = Tensor(
          type: tensor.type.name, shape: tensor.shape,
          bytes: Array(bytes[tensor.offset..<tensor.offset + tensor.byteCount]))
      }
    }
  }

  /// Takes a tensor out.
  mutating func take(_ name: String) throws -> Tensor {
    let tensor = tensors.removeValue(forKey: name)
    return try #require(tensor, "\(name)")
  }

  /// Puts matrices, or vectors, below each other in one tensor.
  mutating func fuse(_ names: [String], as name: String) throws {
    var fused = try take(names[0])
    for name in names.dropFirst() {
      let next = try take(name)
      fused.shape[0] += next.shape[0]
      fused.bytes += next.bytes
    }
    tensors[name] = fused
  }

  /// Gives `config.json` further members, which win over those it has.
  mutating func configure(_ members: String) {
    config = "\(config[..<config.lastIndex(of: "}")!]),\(members)}"
  }

  /// Writes the folder.
  ///
  /// - Parameter gap: bytes that belong to no tensor, before each of them.
  func write(gap: Int = 0) -> TemporaryFolder {
    let folder = TemporaryFolder()
    for (name, bytes) in others { folder.write(name, bytes) }
    folder.write("config.json", Array(config.utf8))
    var (entries, data): ([String], [UInt8]) = ([], [])
    // In an order that is not the graph's.
    for (name, tensor) in tensors.sorted(by: { $0.key > $1.key }) {
      data += [UInt8](repeating: 0xFF, count: gap)
      entries.append(
        #""\#(name)":{"dtype":"\#(tensor.type)","shape":\#(tensor.shape),"data_offsets":"#
          + "[\(data.count),\(data.count + tensor.bytes.count)]}")
      data += tensor.bytes
    }
    var header = Array("{\(entries.joined(separator: ","))}".utf8)
    while header.count % 8 != 0 { header.append(UInt8(ascii: " ")) }
    let length = withUnsafeBytes(of: UInt64(header.count).littleEndian) { Array($0) }
    folder.write("model.safetensors", length + header + data)
    return folder
  }
}
