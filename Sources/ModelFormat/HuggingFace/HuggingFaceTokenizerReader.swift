import TensorBasics

/// Reads `tokenizer.json` (the `tokenizers` library's format) with what the other documents add.
struct HuggingFaceTokenizerReader {
  let path: String
  let root: JSONValue
  private let special: HuggingFaceSpecialTokens

  /// - Parameter special: what the documents beside it say.
  init(
    _ document: HuggingFace.Document, _ special: HuggingFaceSpecialTokens
  ) throws(FormatError) {
    path = document.path
    root = try document.json()
    self.special = special
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
    try addTemplate(to: &pipeline, vocabulary)
    definition.pipeline = pipeline
    special.add(to: &definition) { vocabulary.id(of: $0) }
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
