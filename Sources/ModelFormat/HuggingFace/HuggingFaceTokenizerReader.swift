import TensorBasics

/// Reads `tokenizer.json` (the `tokenizers` library's format) with what the other documents add.
struct HuggingFaceTokenizerReader {
  let path: String
  let root: JSONValue
  /// `tokenizer_config.json`.
  private let settings: JSONValue?
  /// `config.json`.
  private let modelConfiguration: JSONValue?
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

  /// Of a document without the others.
  init(_ document: HuggingFace.Document) throws(FormatError) {
    path = document.path
    root = try document.json()
    (settings, modelConfiguration, generation) = (nil, nil, nil)
  }

  func error(_ kind: FormatError.Kind, _ value: JSONValue?, _ message: String) -> FormatError {
    FormatError(kind, at: value?.offset, path: path, message)
  }

  /// - Throws: ``FormatError``; of kind `unsupported` for a tokenizer that would not give the same
  ///   tokens here.
  func definition() throws(FormatError) -> TokenizerDefinition {
    try HuggingFaceFields.check(
      root, "tokenizer.json",
      [
        "version", "truncation", "padding", "added_tokens", "normalizer", "pre_tokenizer",
        "post_processor", "decoder", "model",
      ], path: path)
    guard let model = root["model"] else { throw error(.malformed, root, "\"model\" is missing") }
    let type = model["type"]?.string ?? (model["merges"] == nil ? "unknown" : "BPE")
    guard type == "BPE" || type == "Unigram" else {
      throw error(
        .unsupported, model, "tokenizer model \"\(type)\" is not supported; BPE and Unigram are")
    }
    try check(model, type)
    let steps = try HuggingFaceTokenizerSteps(root, path: path)
    var pipeline = steps.pipeline
    pipeline.ignoresMerges = model["ignore_merges"]?.bool ?? false
    pipeline.byteFallback = model["byte_fallback"]?.bool ?? false
    pipeline.fusesUnknown = type == "Unigram" || model["fuse_unk"]?.bool ?? false
    let vocabulary = try HuggingFaceVocabulary(self, model)
    let isUnigram = type == "Unigram"
    var definition = TokenizerDefinition(
      model: isUnigram ? .unigramPieces : .bytePairs, tokens: vocabulary.packed(),
      scores: isUnigram ? vocabulary.packedScores() : [], kinds: vocabulary.kinds,
      merges: isUnigram ? PackedStrings() : try vocabulary.merges(of: model),
      unknownToken: vocabulary.kinds.firstIndex(of: TokenizerDefinition.TokenKind.unknown.rawValue),
      addsSpacePrefix: steps.stripsFirstSpace)
    definition.addedFlags = vocabulary.flags
    definition.pipeline = pipeline
    try addSpecialTokens(to: &definition, vocabulary)
    return definition
  }

  private func check(_ model: JSONValue, _ type: String) throws(FormatError) {
    let fields =
      type == "BPE"
      ? [
        "dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk",
        "byte_fallback", "ignore_merges", "merges",
      ] : ["unk_id", "byte_fallback"]
    try HuggingFaceFields.check(model, type, ["type", "vocab"] + fields, path: path)
    if let dropout = model["dropout"]?.double, dropout != 0 {
      throw error(.unsupported, model, "BPE dropout is not supported")
    }
    for key: StaticString in ["continuing_subword_prefix", "end_of_word_suffix"] {
      if let text = model[key]?.string, !text.isEmpty {
        throw error(.unsupported, model, "\(key) \"\(text)\" is not supported")
      }
    }
  }

  private func addSpecialTokens(
    to definition: inout TokenizerDefinition, _ vocabulary: HuggingFaceVocabulary
  ) throws(FormatError) {
    let count = definition.tokens.count
    func id(_ key: StaticString, _ idKey: StaticString) -> Int? {
      if let settings {
        // A stated null means that there is none.
        let token = settings[key]
        return (token?.string ?? token?["content"]?.string).flatMap { vocabulary.id(of: $0) }
      }
      return ids(modelConfiguration?[idKey], below: count).first
    }
    definition.bosToken = id("bos_token", "bos_token_id")
    definition.eosToken = id("eos_token", "eos_token_id")
    definition.stopTokens =
      ids(generation?["eos_token_id"], below: count)
      + ids(modelConfiguration?["eos_token_id"], below: count)
    definition.eosToken = definition.eosToken ?? definition.stopTokens.first
    definition.eotToken = definition.stopTokens.first { $0 != definition.eosToken }
    var pipeline = definition.pipeline ?? TokenizerPipeline()
    try addTemplate(to: &pipeline, vocabulary)
    if let bos = definition.bosToken, let adds = settings?["add_bos_token"]?.bool {
      if pipeline.prefix.first == bos { pipeline.prefix.removeFirst() }
      if adds { pipeline.prefix.insert(bos, at: 0) }
    }
    if let eos = definition.eosToken, let adds = settings?["add_eos_token"]?.bool {
      if pipeline.suffix.last == eos { pipeline.suffix.removeLast() }
      if adds { pipeline.suffix.append(eos) }
    }
    definition.pipeline = pipeline
    definition.addsBOS = pipeline.prefix.first.map { $0 == definition.bosToken } ?? false
    definition.addsEOS = pipeline.suffix.last.map { $0 == definition.eosToken } ?? false
  }

  /// One id or several; those that are no token are left out.
  private func ids(_ value: JSONValue?, below count: Int) -> [Int] {
    guard let value else { return [] }
    return (value.array ?? [value]).compactMap(\.integer).filter { (0..<count).contains($0) }
  }

  /// Adds the tokens that the post-processor puts before and after a text.
  private func addTemplate(
    to pipeline: inout TokenizerPipeline, _ vocabulary: HuggingFaceVocabulary
  ) throws(FormatError) {
    guard let processor = root["post_processor"] else { return }
    let steps = processor["type"]?.string == "Sequence" ? processor["processors"]?.array : nil
    for step in steps ?? [processor] {
      switch step["type"]?.string {
      case "ByteLevel":  // It moves offsets, not tokens.
        try HuggingFaceFields.check(
          step, "ByteLevel", ["type", "add_prefix_space", "trim_offsets", "use_regex"], path: path)
      case "TemplateProcessing":
        try HuggingFaceFields.check(
          step, "TemplateProcessing", ["type", "single", "pair", "special_tokens"], path: path)
        var before: [Int] = []
        var after: [Int] = []
        var hasText = false
        for piece in step["single"]?.array ?? [] {
          if piece["Sequence"] != nil, !hasText {
            hasText = true
          } else if hasText {
            after += try tokens(piece, of: step, vocabulary)
          } else {
            before += try tokens(piece, of: step, vocabulary)
          }
        }
        guard hasText else { throw error(.malformed, step, "a template without the text") }
        pipeline.prefix = before + pipeline.prefix
        pipeline.suffix += after
      case let type:
        throw error(
          .unsupported, step, "the post-processor \"\(type ?? "?")\" is not supported")
      }
    }
  }

  /// The tokens that a piece of a template stands for.
  private func tokens(
    _ piece: JSONValue, of step: JSONValue, _ vocabulary: HuggingFaceVocabulary
  ) throws(FormatError) -> [Int] {
    guard let name = piece["SpecialToken"]?["id"]?.string else {
      throw error(.unsupported, piece, "a template with anything but special tokens and one text")
    }
    let listed = step["special_tokens"]?.members?.last { ExactString($0.key) == ExactString(name) }
    let ids = listed?.value["ids"]?.array?.compactMap(\.integer)
    guard let ids = ids ?? vocabulary.id(of: name).map({ [$0] }) else {
      throw error(.malformed, piece, "the template's token \"\(name)\" is not in the vocabulary")
    }
    return ids
  }
}
