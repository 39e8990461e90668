import BlockIO
import Glibc
import ModelFormat
import TensorBasics

/// A folder that holds a model in several files.
struct ModelFolder {
  let path: String

  /// Longer documents are refused: the largest tokenizers in use are 33 MiB.
  private static let documentByteLimit = 256 << 20

  /// The folder at `path`; nil if there is none.
  init?(_ path: String) {
    var status = stat()
    guard path.withSystemPath({ stat($0, &status) }) == 0, status.st_mode & S_IFMT == S_IFDIR
    else { return nil }
    self.path = path
  }

  /// Its safetensors files in ascending order: `model.safetensors`; otherwise those that
  /// `model.safetensors.index.json` names; without an index, all that there are.
  ///
  /// - Returns: nothing where the folder has none.
  /// - Throws: ``LoaderError/missingFile(path:_:)`` if one that the index names is not there,
  ///   ``LoaderError/format(_:)`` if the index is damaged, ``LoaderError/io(_:)``.
  func safetensors() throws(LoaderError) -> [String] {
    if has("model.safetensors") { return ["\(path)/model.safetensors"] }
    guard let index = try document("model.safetensors.index.json") else {
      let names: [String]
      do { names = try FolderListing.names(in: path) } catch { throw .io(error) }
      let shards = names.filter { $0.hasSuffix(".safetensors") }.sorted()
      if let missing = Self.missingShard(of: shards) {
        throw .missingFile(
          path: "\(path)/\(missing)",
          "the file is missing, although others of the folder count it; finish the download")
      }
      return shards.map { "\(path)/\($0)" }
    }
    let names: [String]
    do { names = try HuggingFace.shardNames(index: index) } catch { throw .format(error) }
    for name in names where !has(name) {
      throw .missingFile(
        path: "\(path)/\(name)",
        "the file is missing, although \(index.path) names it; finish the download")
    }
    return names.map { "\(path)/\($0)" }
  }

  /// The first file that is not among `names`, of those that one of them says there are, such as
  /// `model-00002-of-00003.safetensors`.
  private static func missingShard(of names: [String]) -> String? {
    for name in names {
      let words = name.dropLast(".safetensors".count).split(separator: "-")
      guard words.count >= 3, words[words.count - 2] == "of", let count = Int(words.last ?? ""),
        let digits = words.last?.count, digits == words[words.count - 3].count, count <= 10_000
      else { continue }
      let stem = name.dropLast("-of-.safetensors".count + 2 * digits)
      for index in 1...max(1, count) {
        let number = String(repeating: "0", count: max(0, digits - "\(index)".count)) + "\(index)"
        let wanted = "\(stem)\(number)-of-\(words.last ?? "").safetensors"
        if !names.contains(wanted) { return wanted }
      }
    }
    return nil
  }

  /// What a folder without weights of its own holds in their place, and what to do; nil where nothing is known.
  func otherModels() throws(LoaderError) -> String? {
    let names: [String]
    do { names = try FolderListing.names(in: path) } catch { throw .io(error) }
    let models = names.filter { name in
      guard name.hasSuffix(".gguf") else { return false }
      // Of a split model the first member; projectors of images are no models.
      let words = name.dropLast(".gguf".count).split(separator: "-")
      let isLater =
        words.count >= 3 && words[words.count - 2] == "of" && Int(words[words.count - 3]) ?? 1 > 1
      return !isLater && !name.hasPrefix("mmproj")
    }.sorted()
    if models.count == 1 { return "the folder holds a GGUF model: give \(path)/\(models[0])" }
    if let first = models.first {
      return
        "the folder holds \(models.count) GGUF models: give one of them, such as \(path)/\(first)"
    }
    return names.sorted().first(where: FileDiagnosis.isUnfinished).map {
      "the download is not finished: \($0) is in the folder in place of a whole file; finish it"
    }
  }

  /// The file with tiktoken's ranks, `tiktoken.model` or the only `*.tiktoken`; nil where there is none.
  func ranks() throws(LoaderError) -> HuggingFace.Document? {
    let names: [String]
    do { names = try FolderListing.names(in: path) } catch { throw .io(error) }
    let found = names.filter { $0 == "tiktoken.model" || $0.hasSuffix(".tiktoken") }
    guard found.count == 1 else { return nil }
    return try document(found[0])
  }

  /// The templates of `additional_chat_templates`, by name.
  func otherTemplates() throws(LoaderError) -> [String: HuggingFace.Document] {
    let name = "additional_chat_templates"
    guard has(name) else { return [:] }
    let files: [String]
    do { files = try FolderListing.names(in: path + "/" + name) } catch { throw .io(error) }
    var templates: [String: HuggingFace.Document] = [:]
    for file in files.sorted().prefix(64) where file.hasSuffix(".jinja") {
      templates[String(file.dropLast(6))] = try document(name + "/" + file)
    }
    return templates
  }

  /// Whether there is a file of that name.
  func has(_ name: String) -> Bool {
    "\(path)/\(name)".withSystemPath { access($0, F_OK) } == 0
  }

  /// The bytes of a file; nil where there is none.
  func document(_ name: String) throws(LoaderError) -> HuggingFace.Document? {
    guard has(name) else { return nil }
    let path = "\(path)/\(name)"
    let prefix = try FileHeader.prefix(path, byteCount: Self.documentByteLimit)
    guard prefix.byteCount == prefix.fileByteCount else {
      throw .format(
        FormatError(.unsupported, path: path, "longer than \(Self.documentByteLimit) bytes"))
    }
    if let text = FileDiagnosis.text(prefix.bytes) {
      throw .format(FormatError(.unrecognised, path: path, text))
    }
    return HuggingFace.Document(path: path, bytes: [UInt8](prefix.bytes))
  }
}
