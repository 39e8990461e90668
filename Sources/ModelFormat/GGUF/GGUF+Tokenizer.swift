import TensorBasics

extension GGUF {
  /// Copies the tokenizer out of the metadata; nil if the file has none.
  ///
  /// - Throws: ``FormatError``; of kind `unsupported` for a tokenizer model that is not known.
  static func tokenizer(
    _ metadata: GGUFMetadataReader
  ) throws(FormatError) -> TokenizerDefinition? {
    guard let name = try metadata.string("tokenizer.ggml.model"), name != "none" else { return nil }
    guard let tokens = try metadata.strings("tokenizer.ggml.tokens") else {
      throw metadata.error(
        .malformed, key: "tokenizer.ggml.model", "a \"\(name)\" tokenizer without tokens")
    }
    guard let model = tokenizerModels[name] else {
      let known = tokenizerModels.keys.sorted().joined(separator: ", ")
      throw metadata.error(
        .unsupported, key: "tokenizer.ggml.model",
        "tokenizer \"\(name)\" is not supported; \(known) are")
    }
    func id(_ name: String) throws(FormatError) -> Int? {
      let key = "tokenizer.ggml.\(name)_token_id"
      guard let id = try metadata.integer(key), id != missingToken else { return nil }
      guard id < tokens.count else {
        throw metadata.error(
          .malformed, key: key, "\"\(key)\" is \(id), but there are \(tokens.count) tokens")
      }
      return id
    }
    func flag(_ name: String) throws(FormatError) -> Bool? {
      try metadata.bool("tokenizer.ggml.\(name)")
    }
    _ = try id("padding")  // unused, but it must make sense
    return TokenizerDefinition(
      model: model, preTokenizer: try metadata.string("tokenizer.ggml.pre"), tokens: tokens,
      scores: try metadata.floats("tokenizer.ggml.scores") ?? [],
      kinds: try metadata.smallIntegers("tokenizer.ggml.token_type") ?? [],
      merges: try metadata.strings("tokenizer.ggml.merges") ?? .init(),
      bosToken: try id("bos"), eosToken: try id("eos"), eotToken: try id("eot"),
      unknownToken: try id("unknown"), addsBOS: try flag("add_bos_token"),
      addsEOS: try flag("add_eos_token"), addsSpacePrefix: try flag("add_space_prefix"),
      removesExtraWhitespace: try flag("remove_extra_whitespaces"))
  }

  private static let tokenizerModels: [String: TokenizerDefinition.Model] = [
    "gpt2": .byteLevelBPE, "llama": .sentencePieceBPE, "t5": .unigram, "gemma4": .spacedBPE,
  ]

  /// Some writers state "no such token" as -1 in an unsigned field.
  private static let missingToken = Int(UInt32.max)
}
