import BlockIO
import Glibc
import ModelFormat
import TensorBasics

/// A Hugging Face folder: `config.json`, safetensors files, `tokenizer.json` and what goes with them.
struct HuggingFaceFolder {
  let path: String
  /// Its safetensors files, in ascending order.
  let shards: [String]

  /// Longer documents are refused: the largest tokenizers in use are 33 MiB.
  private static let documentByteLimit = 256 << 20

  /// - Throws: ``LoaderError/format(_:)`` if the folder is no model, ``LoaderError/missingFile(path:_:)`` if a
  ///   file of it is missing, ``LoaderError/io(_:)``.
  init(_ path: String) throws(LoaderError) {
    self.path = path
    guard Self.exists(path + "/config.json") else {
      throw .format(
        FormatError(
          .unrecognised, path: path,
          "a folder without config.json is no model; name a GGUF file, an image made by "
            + "flashinfer-convert, or a folder with config.json and safetensors files"))
    }
    if Self.exists(path + "/model.safetensors") {
      shards = [path + "/model.safetensors"]
      return
    }
    guard let index = try Self.document(path, "model.safetensors.index.json") else {
      throw .format(
        FormatError(
          .unrecognised, path: path,
          "the folder has neither model.safetensors nor model.safetensors.index.json; weights in other "
            + "formats (pytorch_model.bin) are not read"))
    }
    let names: [String]
    do { names = try HuggingFace.shardNames(index: index) } catch { throw .format(error) }
    for name in names where !Self.exists("\(path)/\(name)") {
      throw .missingFile(
        path: "\(path)/\(name)",
        "the file is missing, although \(index.path) names it; finish the download")
    }
    shards = names.map { "\(path)/\($0)" }
  }

  /// What the folder's documents and headers say.
  ///
  /// - Throws: ``LoaderError/format(_:)`` where they are damaged or not supported, ``LoaderError/io(_:)``.
  func describe() throws(LoaderError) -> ModelDescription {
    guard let configuration = try Self.document(path, "config.json") else {
      throw .missingFile(path: path + "/config.json", "the file has gone")
    }
    var documents = HuggingFace.Documents(configuration: configuration)
    documents.tokenizer = try Self.document(path, "tokenizer.json")
    documents.tokenizerConfiguration = try Self.document(path, "tokenizer_config.json")
    documents.generationConfiguration = try Self.document(path, "generation_config.json")
    documents.chatTemplate = try Self.document(path, "chat_template.jinja")
    var files: [SafetensorsFile] = []
    for shard in shards { files.append(try FileHeader.parse(shard, Safetensors.parse)) }
    let name = (path.split(separator: "/").last.map(String.init) ?? path).displayingPaths
    do {
      return try HuggingFace.describe(documents, name: name, shards: files)
    } catch { throw .format(error) }
  }

  private static func exists(_ path: String) -> Bool {
    path.withSystemPath { access($0, F_OK) } == 0
  }

  /// A file of the folder; nil where there is none.
  private static func document(
    _ folder: String, _ name: String
  ) throws(LoaderError) -> HuggingFace.Document? {
    let path = "\(folder)/\(name)"
    guard exists(path) else { return nil }
    let prefix = try FileHeader.prefix(path, byteCount: documentByteLimit)
    guard prefix.byteCount == prefix.fileByteCount else {
      throw .format(
        FormatError(.unsupported, path: path, "longer than \(documentByteLimit) bytes"))
    }
    return HuggingFace.Document(path: path, bytes: [UInt8](prefix.bytes))
  }
}
