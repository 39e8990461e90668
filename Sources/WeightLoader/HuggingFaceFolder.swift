import ModelFormat
import TensorBasics

/// A Hugging Face folder: `config.json`, safetensors files, `tokenizer.json` and what goes with them.
struct HuggingFaceFolder {
  /// Its safetensors files, in ascending order.
  let shards: [String]
  private let folder: ModelFolder

  /// - Throws: ``LoaderError/format(_:)`` if the folder is no model, ``LoaderError/missingFile(path:_:)`` if a
  ///   file of it is missing, ``LoaderError/io(_:)``.
  init(_ folder: ModelFolder) throws(LoaderError) {
    self.folder = folder
    guard folder.has("config.json") else {
      throw .format(
        FormatError(
          .unrecognised, path: folder.path,
          try folder.otherModels()
            ?? "a folder without config.json is not a model; name a GGUF file, an image made by "
            + "flashinfer-convert, or a folder with config.json and safetensors files"))
    }
    shards = try folder.safetensors()
    guard !shards.isEmpty else {
      throw .format(
        FormatError(
          .unrecognised, path: folder.path,
          try folder.otherModels()
            ?? "the folder has neither model.safetensors nor model.safetensors.index.json nor another "
            + "safetensors file; weights in other formats (pytorch_model.bin) are not read: download the "
            + "model's safetensors files (its page may have them under another revision), save it anew with "
            + "transformers' save_pretrained, or take a GGUF file"))
    }
  }

  /// What the folder's documents and headers say, and the headers.
  ///
  /// - Throws: ``LoaderError/format(_:)`` where they are damaged or not supported, ``LoaderError/io(_:)``.
  func describe(
    collectingProblems collectsProblems: Bool = false
  ) throws(LoaderError) -> (model: ModelDescription, files: [SafetensorsFile]) {
    guard let configuration = try folder.document("config.json") else {
      throw .missingFile(path: folder.path + "/config.json", "the file has gone")
    }
    var documents = HuggingFace.Documents(configuration: configuration)
    documents.tokenizer = try folder.document("tokenizer.json")
    if documents.tokenizer == nil {
      documents.tekken = try folder.document("tekken.json")
      documents.pieces = try folder.document("tokenizer.model")
      documents.ranks = try folder.ranks()
      documents.vocabulary = try folder.document("vocab.json")
      documents.merges = try folder.document("merges.txt")
    }
    documents.tokenizerConfiguration = try folder.document("tokenizer_config.json")
    documents.generationConfiguration = try folder.document("generation_config.json")
    documents.chatTemplate = try folder.document("chat_template.jinja")
    documents.otherTemplates = try folder.otherTemplates()
    documents.pooling = try folder.document("1_Pooling/config.json")
    var files: [SafetensorsFile] = []
    for shard in shards { files.append(try FileHeader.parse(shard, Safetensors.parse)) }
    let path = folder.path
    let name = (path.split(separator: "/").last.map(String.init) ?? path).displayingPaths
    do {
      let model = try HuggingFace.describe(
        documents, name: name, shards: files, collectingProblems: collectsProblems)
      return (model, files)
    } catch { throw .format(error) }
  }
}
