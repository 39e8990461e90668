import TensorBasics

/// A model as Hugging Face's transformers store it: JSON documents beside safetensors files.
public enum HuggingFace {
  /// One file of the folder, read whole.
  public struct Document: Sendable {
    public let path: String
    public let bytes: [UInt8]

    public init(path: String, bytes: [UInt8]) {
      self.path = path
      self.bytes = bytes
    }

    func json() throws(FormatError) -> JSONValue {
      try bytes.withUnsafeBufferPointer { bytes throws(FormatError) in
        try JSONParser.parse(UnsafeRawBufferPointer(bytes), path: path)
      }
    }

    func text() throws(FormatError) -> String {
      guard let text = String(validating: bytes, as: UTF8.self) else {
        throw FormatError(.malformed, path: path, "not UTF-8")
      }
      return text
    }
  }

  /// The folder's small files; only `config.json` must be there.
  public struct Documents: Sendable {
    /// `config.json`
    public var configuration: Document
    /// `tokenizer.json`
    public var tokenizer: Document?
    /// `tekken.json`
    public var tekken: Document?
    /// `tokenizer.model`: SentencePiece's, or tiktoken's under its name.
    public var pieces: Document?
    /// `*.tiktoken` or `tiktoken.model`
    public var ranks: Document?
    /// `vocab.json`
    public var vocabulary: Document?
    /// `merges.txt`
    public var merges: Document?
    /// `tokenizer_config.json`
    public var tokenizerConfiguration: Document?
    /// `generation_config.json`
    public var generationConfiguration: Document?
    /// `chat_template.jinja`
    public var chatTemplate: Document?
    /// `additional_chat_templates/NAME.jinja`, by name.
    public var otherTemplates: [String: Document] = [:]

    /// `1_Pooling/config.json`, of models that sentence-transformers knows.
    public var pooling: Document?

    public init(configuration: Document) { self.configuration = configuration }
  }

  /// The safetensors files that `model.safetensors.index.json` names, in ascending order.
  ///
  /// - Throws: ``FormatError``, also for names that lead out of the folder.
  public static func shardNames(index: Document) throws(FormatError) -> [String] {
    guard let members = try index.json()["weight_map"]?.members, !members.isEmpty else {
      throw FormatError(.malformed, path: index.path, "there is no weight_map")
    }
    var names = Set<String>()
    for member in members {
      guard let name = member.value.string, !name.isEmpty, name.utf8.first != UInt8(ascii: "."),
        !name.utf8.contains(UInt8(ascii: "/")), !name.utf8.contains(0)
      else {
        throw FormatError(
          .malformed, at: member.value.offset, path: index.path,
          "tensor \"\(member.key)\" is in no file of the folder")
      }
      names.insert(name)
    }
    return names.sorted()
  }

  /// The tokenizer of a `tokenizer.json` alone.
  ///
  /// - Throws: ``FormatError``; of kind `unsupported` for one that would not give the same tokens here.
  package static func tokenizer(_ document: Document) throws(FormatError) -> TokenizerDefinition {
    let definition = try HuggingFaceTokenizerReader(
      document, HuggingFaceSpecialTokens()
    ).definition()
    try definition.validate(path: document.path)
    return definition
  }

  /// The tokenizer of a folder, from the first of the files that it may be in; nil if there is none.
  ///
  /// - Throws: ``FormatError``; of kind `unsupported` for one that would not give the same tokens here.
  package static func tokenizer(
    _ documents: Documents
  ) throws(FormatError) -> TokenizerDefinition? {
    let special = try HuggingFaceSpecialTokens(documents)
    if let document = documents.tokenizer {
      return try HuggingFaceTokenizerReader(document, special).definition()
    }
    return try HuggingFaceVocabularies(special).definition(documents)
  }

  /// Says what the folder holds.
  ///
  /// - Parameters:
  ///   - name: The model's name, for people.
  ///   - shards: Its safetensors files; ``TensorRecord/fileIndex`` counts them.
  ///   - collectsProblems: Whether what keeps the model from being run goes to
  ///     ``ModelDescription/problems`` and is not thrown.
  /// - Throws: ``FormatError`` for an architecture, hyper-parameter, tokenizer or tensor that is
  ///   not supported or contradicts the others.
  public static func describe(
    _ documents: Documents, name: String, shards: [SafetensorsFile],
    collectingProblems collectsProblems: Bool = false
  ) throws(FormatError) -> ModelDescription {
    let root = try documents.configuration.json()
    var description = ModelDescription(name: name, files: shards.map(\.path))
    var problems = ProblemCollector(collectsProblems)
    do throws(FormatError) {
      let tensors = try describeDecoder(documents, root, shards, &description)
      try description.validate(path: documents.configuration.path, origins: tensors)
    } catch { try problems.note(error) }
    do throws(FormatError) {
      description.tokenizer = try tokenizer(documents)
      try description.tokenizer?.validate(
        path: documents.tokenizer?.path ?? documents.configuration.path)
    } catch {
      guard error.kind == .unsupported else { throw error }
      description.tokenizerProblem = error
    }
    description.chatTemplate = ModelDescription.unlessBlank(try chatTemplate(documents))
    description.otherTemplates = try otherTemplates(documents)
    description.pooling = try pooling(documents)
    description.problems = problems.problems
    return description
  }

  /// Adds the configuration and the tensors.
  private static func describeDecoder(
    _ documents: Documents, _ root: JSONValue, _ shards: [SafetensorsFile],
    _ description: inout ModelDescription
  ) throws(FormatError) -> HuggingFaceTensors {
    let path = documents.configuration.path
    // Folders of Based need not name their class.
    let unnamed = root["alt_mixer_layers"].flatMap { _ in Based.huggingFaceNames.first }
    guard let family = (root["architectures"]?.array?.first)?.string ?? unnamed else {
      throw FormatError(.malformed, at: root.offset, path: path, "\"architectures\" is missing")
    }
    let architecture = try Architectures.named(
      huggingFace: family, layerTensors: HuggingFaceNames.layerTensors(shards), path: path)
    let config = root["text_config"] ?? root
    var tensors = try HuggingFaceTensors(
      shards: shards, architecture: architecture,
      quantisation: HuggingFaceQuantisation(root, path: path),
      layerCount: architecture.skipsPredictionLayers ? config["num_hidden_layers"]?.integer : nil)
    let parameters = HuggingFaceHyperparameters(
      config: config, path: path, name: family,
      architecture: architecture.name, vocabularyCount: tensors.rowCount("token_embd.weight") ?? 0,
      hasOutputHead: tensors.rowCount("output.weight") != nil)
    let configuration = try architecture.configuration(huggingFace: parameters)
    try tensors.transpose(
      configuration.decoder, architecture.huggingFaceExpertLayout(family))
    try tensors.split(configuration.decoder)
    description.configuration = configuration.decoder
    description.tensors = tensors.records
    description.derivations = tensors.derivations
    if let layers = tensors.predictionLayers {
      description.predictionLayers = layers
      description.notes.append(layers.note)
    }
    for (name, values) in configuration.derivedValues.sorted(by: { $0.key < $1.key }) {
      description.append(name, values: values)
    }
    return tensors
  }

  /// The one way of pooling that the folder asks for; nil where it says none, or several at once.
  private static func pooling(_ documents: Documents) throws(FormatError) -> String? {
    guard let json = try documents.pooling?.json() else { return nil }
    let asked: [String] = [
      (json["pooling_mode_mean_tokens"], "mean"), (json["pooling_mode_lasttoken"], "last"),
      (json["pooling_mode_cls_token"], "cls"),
    ].compactMap { flag, name in flag?.bool == true ? name : nil }
    return asked.count == 1 ? asked[0] : nil
  }

  /// Templates beside the default one.
  private static func otherTemplates(
    _ documents: Documents
  ) throws(FormatError) -> [String: String] {
    var templates: [String: String] = [:]
    for entry in try documents.tokenizerConfiguration?.json()["chat_template"]?.array ?? [] {
      guard let name = entry["name"]?.string, name != "default" else { continue }
      templates[name] = entry["template"]?.string
    }
    for (name, document) in documents.otherTemplates { templates[name] = try document.text() }
    return templates
  }

  /// The template of `chat_template.jinja`, or else that of `tokenizer_config.json`, where a list
  /// has one called "default".
  private static func chatTemplate(_ documents: Documents) throws(FormatError) -> String? {
    if let document = documents.chatTemplate { return try document.text() }
    guard let document = documents.tokenizerConfiguration,
      let template = try document.json()["chat_template"]
    else { return nil }
    guard !template.isUnusable else {
      throw FormatError(
        .malformed, at: template.offset, path: document.path,
        "\"chat_template\" is \(template.found)")
    }
    if let text = template.string { return text }
    return template.array?.first { $0["name"]?.string == "default" }?["template"]?.string
  }
}
