public import BlockIO
import Glibc
public import ModelFormat
import TensorBasics
public import WeightLoader

/// An open Hugging Face folder: `config.json`, safetensors files, `tokenizer.json` and what goes
/// with them.
public struct HuggingFaceFolder {
  /// The model and its safetensors files.
  public let source: ModelSource
  /// Where each tensor of `source.description` gets its elements from.
  public let contents: [TensorContent]

  /// Longer documents are refused: the largest tokenizers in use are 33 MiB.
  private static let documentByteLimit = 256 << 20

  /// Whether `path` is a folder with a `config.json`.
  public static func isOne(_ path: String) -> Bool { exists(path + "/config.json") }

  /// Opens the folder at `path`.
  ///
  /// - Throws: ``ConversionError`` if files are missing, damaged or not supported.
  public static func open(
    _ path: String, backend: StorageBackend = .auto
  ) throws(ConversionError) -> HuggingFaceFolder {
    guard let configuration = try document(path, "config.json") else {
      throw .notPossible("\(path): there is no config.json")
    }
    var documents = HuggingFace.Documents(configuration: configuration)
    documents.tokenizer = try document(path, "tokenizer.json")
    documents.tokenizerConfiguration = try document(path, "tokenizer_config.json")
    documents.generationConfiguration = try document(path, "generation_config.json")
    documents.chatTemplate = try document(path, "chat_template.jinja")
    var shards: [SafetensorsFile] = []
    for name in try shardNames(path) { shards.append(try shard("\(path)/\(name)")) }
    let name = (path.split(separator: "/").last.map(String.init) ?? path).displayingPaths
    let model: HuggingFace.Model
    do {
      model = try HuggingFace.describe(documents, name: name, shards: shards)
    } catch { throw .format(error) }
    do {
      let device = try openDevice(
        paths: model.description.files, backend: backend, queueDepth: 16)
      return HuggingFaceFolder(
        source: ModelSource(path: path, description: model.description, device: device),
        contents: model.contents)
    } catch { throw .io(error) }
  }

  private static func shardNames(_ path: String) throws(ConversionError) -> [String] {
    if exists("\(path)/model.safetensors") { return ["model.safetensors"] }
    guard let index = try document(path, "model.safetensors.index.json") else {
      throw .notPossible(
        "\(path): there is neither model.safetensors nor model.safetensors.index.json")
    }
    do { return try HuggingFace.shardNames(index: index) } catch { throw .format(error) }
  }

  private static func exists(_ path: String) -> Bool {
    path.withSystemPath { access($0, F_OK) } == 0
  }

  /// A file of the folder; nil if there is none.
  private static func document(
    _ folder: String, _ name: String
  ) throws(ConversionError) -> HuggingFace.Document? {
    let path = "\(folder)/\(name)"
    guard exists(path) else { return nil }
    let prefix: FilePrefix
    do { prefix = try FilePrefix(path: path, byteCount: documentByteLimit) } catch {
      throw .io(error)
    }
    guard prefix.byteCount == prefix.fileByteCount else {
      throw .format(
        FormatError(.unsupported, path: path, "longer than \(documentByteLimit) bytes"))
    }
    return HuggingFace.Document(path: path, bytes: [UInt8](prefix.bytes))
  }

  /// Parses a safetensors file's header, reading as much of the file as it needs.
  static func shard(_ path: String) throws(ConversionError) -> SafetensorsFile {
    var prefixByteCount = ModelFile.firstReadByteCount
    while true {
      let prefix: FilePrefix
      do { prefix = try FilePrefix(path: path, byteCount: prefixByteCount) } catch {
        throw .io(error)
      }
      do throws(FormatError) {
        switch try Safetensors.parse(
          prefix.bytes, fileByteCount: prefix.fileByteCount, path: path)
        {
        case .complete(let file): return file
        case .needsMore(let byteCount): prefixByteCount = max(byteCount, 2 * prefixByteCount)
        }
      } catch { throw .format(error) }
    }
  }
}
