import ModelFormat

/// How the vocabularies with a pre-tokenizer's name cut text, and what else the name stands for.
///
/// The table holds the names and patterns that llama.cpp gives them. Where it simplifies a model's
/// original pattern (gpt-4o, tekken, youtu and tiny_aya: letters outside ASCII are of either case)
/// so do we: GGUF files are made for, and tested with, its reading.
struct PreTokenizerRule: Sendable {
  struct Options: OptionSet, Sendable {
    let rawValue: UInt8
    /// A piece that is a token stays whole, whatever merges say.
    static let wholePieces = Options(rawValue: 1)
    /// Prompts begin with BOS unless the file says otherwise.
    static let addsBOS = Options(rawValue: 2)
    /// Prompts begin with BOS whatever the file says.
    static let forcesBOS = Options(rawValue: 4)
    /// Tokens are spelt in UTF-8 with `▁` for spaces instead of the byte alphabet.
    static let escapesSpaces = Options(rawValue: 8)
    /// A run of line feeds that is a token stays whole.
    static let wholeNewlines = Options(rawValue: 16)
  }

  let names: [String]
  let steps: [TokenizerPipeline.PreTokenizer]
  let options: Options

  private init(
    _ names: [String], _ steps: [TokenizerPipeline.PreTokenizer], _ options: Options = []
  ) {
    self.names = names
    self.steps = steps
    self.options = options
  }

  /// - Throws: `unknownPreTokenizer`.
  static func named(_ name: String) throws(TokenizerError) -> PreTokenizerRule {
    guard let rule = known.first(where: { $0.names.contains(name) }) else {
      throw .unknownPreTokenizer(name)
    }
    return rule
  }

  static let known: [PreTokenizerRule] = [
    PreTokenizerRule(
      ["default"],
      [
        .matches(#"[\p{P}$+<=>^~|]+"#), .matches(gpt2), .matches(#"\p{N}+"#),
        .matches("[0-9][0-9][0-9]"),
      ]),
    PreTokenizerRule(
      [
        "gpt-2", "phi-2", "jina-es", "jina-de", "jina-v1-en", "jina-v2-es", "jina-v2-de",
        "jina-v2-code", "roberta-bpe", "gigachat", "a.x-4.0", "mellum", "modern-bert", "mpt",
        "olmo", "jais", "exaone4", "trillion", "granite-docling",
      ],
      [.matches(gpt2)]),
    PreTokenizerRule(
      [
        "starcoder", "refact", "command-r", "smollm", "codeshell", "exaone", "minerva-7b",
        "mellum2",
      ],
      [.matches(#"\p{N}"#), .matches(gpt2)]),
    PreTokenizerRule(
      [
        "llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2",
        "jina-v5-nano",
      ],
      [.matches(llama3)], [.wholePieces, .addsBOS]),
    PreTokenizerRule(["dbrx", "smaug-bpe", "chatglm-bpe", "glm4"], [.matches(llama3)]),
    PreTokenizerRule(["glm5"], [.matches(llama3)], [.wholePieces]),
    PreTokenizerRule(
      [
        "qwen2", "stablelm2", "deepseek-r1-qwen", "kormo", "f2llmv2", "megrez", "hunyuan",
        "solar-open", "grok-2",
      ],
      [.matches(qwen2)]),
    PreTokenizerRule(
      ["qwen35"],
      [
        .matches(
          contraction + #"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}"#
            + #"| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*"# + spaces)
      ]),
    PreTokenizerRule(["laguna"], [newlines, .matches(qwen2)]),
    PreTokenizerRule(
      ["minicpm5"],
      [.matches(#"\p{N}{1,3}"#), .matches(contraction + word + #"|\p{N}+"# + symbols + spaces)],
      [.wholePieces]),
    PreTokenizerRule(
      ["ufakzeka"], [.matches(#"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"# + symbols + spaces)]),
    PreTokenizerRule(
      ["seed-coder"],
      [.matches(contraction + word + #"|\p{N}| ?[^\s\p{L}\p{N}\r\n]+"# + spaces)]),
    PreTokenizerRule(
      ["bailingmoe", "bailingmoe2", "llada-moe"],
      [
        .matches(
          "'(?:[sSdDmMtT]|[lL][lL]|[vV][eE]|[rR][eE])" + word + #"|\p{N}"# + symbols
            + #"|\s*[\r\n]|\s+(?!\S)|\s+"#)
      ]),
    PreTokenizerRule(
      ["exaone-moe"],
      [
        .matches(
          contraction + #"|[^\r\n\p{L}\p{N}]?\p{L}[\p{L}\p{M}]*+(?: \p{L}[\p{L}\p{M}]*+)*+|\p{N}"#
            + #"| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+"#)
      ]),
    PreTokenizerRule(
      ["jais-2"],
      [
        .matches(
          contraction + word + #"|\p{N}{1,3}"# + symbols + #"|\s*[\r\n]+|\s{512}(?!\S)"#
            + #"|\s{256}(?!\S)|\s{128}(?!\S)|\s{64}(?!\S)|\s{32}(?!\S)|\s{16}(?!\S)|\s{8}(?!\S)"#
            + #"|\s{4}(?!\S)|\s{1,2}(?!\S)|\s{1}"#)
      ]),
    PreTokenizerRule(
      ["falcon"],
      [.matches(#"[\p{P}$+<=>^~|`]+"#), .matches(gpt2), .matches("[0-9][0-9][0-9]")]),
    PreTokenizerRule(
      ["deepseek-llm"],
      [
        .matches(#"[\r\n]"#), .matches(#"\s?"# + deepseekLetters),
        .matches(
          #"\s?[!-/:-~\x{ff01}-\x{ff0f}\x{ff1a}-\x{ff5e}\x{2018}-\x{201f}\x{3001}\x{3002}]+"#),
        // The look-behind only spares the search a run's other places.
        .matches(#"(?<!\s)\s+\z"#), .matches(deepseekIdeographs), .matches(#"\p{N}+"#),
      ]),
    PreTokenizerRule(
      ["deepseek-coder"],
      [
        .matches(#"[\r\n]"#), .matches(#"\s?\p{L}+"#), .matches(#"\s?\p{P}+"#),
        .matches(deepseekIdeographs), .matches(#"\p{N}"#),
      ]),
    PreTokenizerRule(
      ["deepseek-v3", "hunyuan-dense", "joyai-llm", "hy_v4"],
      [
        .matches(#"\p{N}{1,3}"#), .matches(hanAndKana),
        .matches(asciiWord + #"| ?[\p{P}\p{S}]+[\r\n]*"# + spaces),
      ]),
    PreTokenizerRule(
      ["spark2_5"],
      [
        .matches(#"\p{N}{1,3}"#), .matches(hanAndKana),
        .matches(asciiWord + #"| ?[\p{P}\p{S}]+|[\r\n]|\s+(?!\S)|\s+"#), .matches(#"\p{N}"#),
      ]),
    PreTokenizerRule(
      ["afmoe"],
      [
        .digitGroups, .matches(asianScripts),
        .matches(asciiWord + #"| ?[\p{P}\p{S}]+[\r\n]*"# + spaces),
      ]),
    PreTokenizerRule(
      ["youtu"],
      [
        .matches(
          #"[\x{ac00}-\x{d7a3}\x{3131}-\x{318e}]+|[\x{ff01}\x{2026}\x{201c}\x{201d}\x{2018}"#
            + #"\x{2019}\x{2014}\x{ff1a}\x{ff1b}\x{ff0c}\x{3001}-\x{303f}\x{fe30}-\x{fe4f}]+"#
            + #"|[\x{3105}-\x{312f}]+|"# + hanAndKana),
        .matches(#"[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+"# + suffix + #"|\p{N}"# + slashSymbols + spaces),
      ],
      [.wholePieces]),
    PreTokenizerRule(
      ["tiny_aya", "cohere2moe"],
      [
        .digitGroups,
        .matches(
          #"[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+"# + suffix + #"|\p{N}{1,3}"# + slashSymbols + spaces),
      ]),
    PreTokenizerRule(
      ["tekken"],
      [
        .matches(
          #"[^\r\n\p{L}\p{N}]?[^\P{L}a-z]*[^\P{L}A-Z]+"#
            + #"|[^\r\n\p{L}\p{N}]?[^\P{L}a-z]+[^\P{L}A-Z]*|\p{N}"# + slashSymbols + spaces)
      ],
      [.wholePieces, .addsBOS]),
    PreTokenizerRule(
      ["gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"],
      [
        .matches(
          #"[^\r\n\p{L}\p{N}]?[^\P{L}a-z]*[^\P{L}A-Z]+"# + suffix
            + #"|[^\r\n\p{L}\p{N}]?[^\P{L}a-z]+[^\P{L}A-Z]*"# + suffix
            + #"|\p{N}{1,3}"# + slashSymbols + spaces)
      ]),
    PreTokenizerRule(
      ["granite-embed-multi-97m"],
      [
        // Letters and marks are what is neither number, symbol, punctuation, separator nor other.
        .matches(
          #"[^\r\n\p{L}\p{N}]?[^\p{N}\p{P}\p{S}\p{Z}\p{C}a-z]*[^\p{N}\p{P}\p{S}\p{Z}\p{C}A-Z]+"#
            + suffix
            + #"|[^\r\n\p{L}\p{N}]?[^\p{N}\p{P}\p{S}\p{Z}\p{C}a-z]+[^\p{N}\p{P}\p{S}\p{Z}\p{C}A-Z]*"#
            + suffix + #"|\p{N}{1,3}"# + slashSymbols + spaces)
      ],
      [.wholePieces]),
    PreTokenizerRule(
      ["kimi-k2"],
      [
        .matches(
          "[\(han)]+|[^\\r\\n\\p{L}\\p{N}]?[^\\P{L}\(han)]+" + suffix + #"|\p{N}{1,3}"# + symbols
            + spaces)
      ]),
    PreTokenizerRule(["superbpe"], [.matches(#"\p{N}+"#), .thousands]),
    PreTokenizerRule(["poro-chat", "bloom", "gpt3-finnish"], [.matches(bloom)]),
    PreTokenizerRule(["viking"], [.matches(bloom), .matches(#"\p{N}"#)]),
    PreTokenizerRule(
      ["chameleon"],
      [
        .matches("<sentinel:[0-9]+>"), .matches("IMGIMG[A-I]{1,4}Z"), .matches(#"[\t\n]|    |  "#),
        .matches(#"\p{N}"#), .matches(#"[\p{P}!-/:-@\[-`{-~]"#), .matches(gpt2),
      ],
      [.addsBOS]),
    PreTokenizerRule(
      ["gemma4", "gemma-4", "granite-embed-multi-311m"], [newlines],
      [.escapesSpaces, .wholeNewlines, .forcesBOS]),
    PreTokenizerRule(["sarvam-moe"], [newlines], [.escapesSpaces]),
  ]
}

extension PreTokenizerRule {
  /// Runs of line feeds and runs of everything else.
  private static let newlines = TokenizerPipeline.PreTokenizer.matches(#"\n+"#)
}

extension TokenizerPipeline.PreTokenizer {
  /// Cuts around every match of a pattern.
  fileprivate static func matches(_ pattern: String) -> Self {
    .split(pattern: .regex(pattern), behavior: .isolated, inverted: false)
  }
}
