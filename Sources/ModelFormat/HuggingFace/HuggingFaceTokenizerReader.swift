import TensorBasics

/// Reads `tokenizer.json` (the `tokenizers` library's format) with what the other documents add.
struct HuggingFaceTokenizerReader {
  let path: String
  let root: JSONValue
  /// `tokenizer_config.json`.
  private let settings: JSONValue?
  /// `config.json`.
  private let modelConfiguration: JSONValue
  /// `generation_config.json`.
  private let generation: JSONValue?

  /// nil if the folder has no `tokenizer.json`.
  init?(_ documents: HuggingFace.Documents, root configuration: JSONValue) throws(FormatError) {
    guard let document = documents.tokenizer else { return nil }
    path = document.path
    root = try document.json()
    settings = try documents.tokenizerConfiguration?.json()
    modelConfiguration = configuration
    generation = try documents.generationConfiguration?.json()
  }

  func error(_ kind: FormatError.Kind, _ value: JSONValue?, _ message: String) -> FormatError {
    FormatError(kind, at: value?.offset, path: path, message)
  }

  /// - Throws: ``FormatError``; of kind `unsupported` for a tokenizer that would not give the same
  ///   tokens here.
  func definition() throws(FormatError) -> TokenizerDefinition {
    guard let model = root["model"] else { throw error(.malformed, root, "\"model\" is missing") }
    let type = model["type"]?.string ?? (model["merges"] == nil ? "unknown" : "BPE")
    guard type == "BPE" else {
      throw error(.unsupported, model, "tokenizer model \"\(type)\" is not supported; BPE is")
    }
    if let dropout = model["dropout"]?.double, dropout != 0 {
      throw error(.unsupported, model, "BPE dropout is not supported")
    }
    for key: StaticString in ["continuing_subword_prefix", "end_of_word_suffix"] {
      if let text = model[key]?.string, !text.isEmpty {
        throw error(.unsupported, model, "\(key) \"\(text)\" is not supported")
      }
    }
    let scheme = try HuggingFaceTokenizerScheme(self, model)
    var vocabulary = try HuggingFaceVocabulary(self, model, isByteLevel: scheme.isByteLevel)
    let merges = try vocabulary.merges(of: model)
    if !scheme.isByteLevel { try vocabulary.scoreMerges() }
    var definition = TokenizerDefinition(
      model: scheme.isByteLevel ? .byteLevelBPE : .sentencePieceBPE,
      preTokenizer: scheme.preTokenizer, tokens: vocabulary.packed(),
      scores: scheme.isByteLevel ? [] : vocabulary.scores, kinds: vocabulary.kinds,
      merges: scheme.isByteLevel ? merges : PackedStrings(),
      unknownToken: model["unk_token"]?.string.flatMap { vocabulary.id(of: $0) },
      addsSpacePrefix: scheme.addsSpacePrefix)
    addSpecialTokens(to: &definition, vocabulary)
    return definition
  }

  private func addSpecialTokens(
    to definition: inout TokenizerDefinition, _ vocabulary: HuggingFaceVocabulary
  ) {
    let count = definition.tokens.count
    func id(_ key: StaticString, _ idKey: StaticString) -> Int? {
      if let settings {
        // A stated null means that there is none.
        let token = settings[key]
        return (token?.string ?? token?["content"]?.string).flatMap { vocabulary.id(of: $0) }
      }
      return ids(modelConfiguration[idKey], below: count).first
    }
    definition.bosToken = id("bos_token", "bos_token_id")
    definition.eosToken = id("eos_token", "eos_token_id")
    let ends =
      ids(generation?["eos_token_id"], below: count)
      + ids(modelConfiguration["eos_token_id"], below: count)
    definition.eosToken = definition.eosToken ?? ends.first
    definition.eotToken = ends.first { $0 != definition.eosToken }
    let (first, last) = template(vocabulary)
    definition.addsBOS =
      settings?["add_bos_token"]?.bool ?? (first != nil && first == definition.bosToken)
    definition.addsEOS =
      settings?["add_eos_token"]?.bool ?? (last != nil && last == definition.eosToken)
  }

  /// One id or several; those that are no token are left out.
  private func ids(_ value: JSONValue?, below count: Int) -> [Int] {
    guard let value else { return [] }
    return (value.array ?? [value]).compactMap(\.integer).filter { (0..<count).contains($0) }
  }

  /// The special tokens that the post-processor puts before and after a text.
  private func template(_ vocabulary: HuggingFaceVocabulary) -> (first: Int?, last: Int?) {
    let processor = root["post_processor"]
    let steps = processor?["processors"]?.array ?? processor.map { [$0] } ?? []
    for step in steps where step["type"]?.string == "TemplateProcessing" {
      guard let pieces = step["single"]?.array, pieces.count > 1 else { continue }
      func token(_ piece: JSONValue?) -> Int? {
        piece?["SpecialToken"]?["id"]?.string.flatMap { vocabulary.id(of: $0) }
      }
      return (token(pieces.first), token(pieces.last))
    }
    return (nil, nil)
  }
}
