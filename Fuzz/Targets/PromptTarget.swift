import ModelFormat
import TensorBasics
import Tokenization

extension FuzzTarget {
  /// Texts: a byte that chooses the vocabulary and its pre-tokenizer, then the text.
  static let prompt = FuzzTarget(
    name: "prompt", inputByteLimit: 1024,
    dictionary: [
      "<|im_start|>", "<|im_end|>", "<s>", "tag", "\\xe2\\x96\\x81", "\\xef\\xbf\\xbd", "'ll",
      "123456", "<sentinel:1>", "IMGIMGAZ", "\\x0d\\x0a", "        ", "\\xe4\\xb8\\xad",
      "\\xe3\\x81\\x82", "\\xed\\x95\\x9c", "\\xcc\\x81", "\\xef\\xbc\\x81", "\\xe2\\x80\\x83",
    ], seeds: { PromptTarget.seeds }, run: PromptTarget.run)
}

enum PromptTarget {
  /// One name of every pre-tokenizer.
  static let preTokenizers = [
    "default", "gpt-2", "starcoder", "llama3", "dbrx", "glm5", "qwen2", "qwen35", "laguna",
    "minicpm5", "ufakzeka", "seed-coder", "bailingmoe", "exaone-moe", "jais-2", "falcon",
    "deepseek-llm", "deepseek-coder", "deepseek-v3", "spark2_5", "afmoe", "youtu", "tiny_aya",
    "tekken", "gpt-4o", "granite-embed-multi-97m", "kimi-k2", "superbpe", "poro-chat", "viking",
    "chameleon",
  ]

  static let tokenizers: [Tokenizer] = {
    var definitions = preTokenizers.map(PromptVocabulary.byteLevel)
    for model in [TokenizerDefinition.Model.sentencePieceBPE, .unigram, .spacedBPE] {
      definitions.append(PromptVocabulary.spaced(model, preTokenizer: nil))
    }
    definitions.append(PromptVocabulary.spaced(.byteLevelBPE, preTokenizer: "sarvam-moe"))
    return definitions.map { definition in
      do { return try Tokenizer(definition) } catch { preconditionFailure("\(error)") }
    }
  }()

  static let seeds: [[UInt8]] = (0..<tokenizers.count).map { number in
    let texts = [
      "Hello world, it's 12345 o'clock!\r\n\r\n  \t the\u{A0}end",
      "<|im_start|>user\nhé\u{301}ÀB cd",
      "日本語と한국어 Ελληνικά 🙂 ½²३", "    x = [1,2]; // ▁ tag",
    ]
    return [UInt8(number)] + Array(texts[number % texts.count].utf8)
  }

  static func run(_ input: UnsafeRawBufferPointer) throws(FuzzFinding) -> Bool {
    var reader = InputReader(input)
    let number = Int(reader.byte()) % tokenizers.count
    let text = Array(reader.rest())
    let isByteLevel = number < preTokenizers.count
    let tokenizer = tokenizers[number]
    try TokenizerChecks.check(tokenizer, text: text, keepsText: isByteLevel)
    guard !isByteLevel, !text.contains(0xE2), tokenizer.addsSpacePrefix == false else {
      return true
    }
    // Unigram vocabularies have no bytes to fall back on.
    guard number != preTokenizers.count + 1 else { return true }
    let tokens = try TokenizerChecks.encode(tokenizer, [ChatPiece(text, isMarkup: false)])
    try require(tokenizer.decode(tokens) == text, "\(text) became \(tokens)")
    return true
  }
}

/// Small vocabularies that spell any text.
enum PromptVocabulary {
  private typealias Kind = TokenizerDefinition.TokenKind

  /// All bytes in GPT-2's alphabet, some merges, two control tokens and a user-defined one.
  static func byteLevel(_ preTokenizer: String) -> TokenizerDefinition {
    var tokens = byteAlphabet.map { Array(String($0).utf8) }
    var merges = PackedStrings()
    let pairs = [
      "t h", "th e", "Ġ t", "Ġ the", "i n", "e r", "Ġ Ġ", "ĠĠ ĠĠ", "Ċ Ċ", "' s", "1 2", "12 3",
      "Ã ©", "æ Ĺ", "æĹ ¥", "Ġ a", "o n", "r o", "o r", "l l", "he l",
    ]
    for pair in pairs {
      merges.append(pair.utf8)
      tokens.append(Array(pair.filter { $0 != " " }.utf8))
    }
    var kinds = [UInt8](repeating: Kind.normal.rawValue, count: tokens.count)
    for (token, kind) in [
      ("<|im_start|>", Kind.control), ("<|im_end|>", .control), ("tag", .userDefined),
      ("<|", .userDefined),
    ] {
      tokens.append(Array(token.utf8))
      kinds.append(kind.rawValue)
    }
    return TokenizerDefinition(
      model: .byteLevelBPE, preTokenizer: preTokenizer, tokens: packed(tokens), kinds: kinds,
      merges: merges, eosToken: tokens.count - 3)
  }

  /// All bytes as `<0xXX>`, and pieces with `▁`.
  static func spaced(
    _ model: TokenizerDefinition.Model, preTokenizer: String?
  ) -> TokenizerDefinition {
    let digits = Array("0123456789ABCDEF")
    var tokens = ["<unk>", "<s>", "</s>"]
    var kinds: [UInt8] = [2, 3, 3]
    for byte in 0..<256 {
      tokens.append("<0x\(digits[byte >> 4])\(digits[byte & 15])>")
      kinds.append(Kind.byte.rawValue)
    }
    let pieces = ["▁", "t", "h", "e", "a", "n", "th", "the", "▁the", "▁t", "an", "▁▁", "é", "日"]
    tokens += pieces
    kinds += pieces.map { _ in Kind.normal.rawValue }
    tokens.append("tag")
    kinds.append(Kind.userDefined.rawValue)
    var merges = PackedStrings()
    for pair in ["t h", "th e", "▁ the", "▁ t", "a n", "▁ ▁"] { merges.append(pair.utf8) }
    let hasMerges = model == .spacedBPE || model == .byteLevelBPE
    return TokenizerDefinition(
      model: model, preTokenizer: preTokenizer, tokens: packed(tokens.map { Array($0.utf8) }),
      scores: hasMerges ? [] : tokens.indices.map { $0 < 259 ? 0 : Float(259 - $0) },
      kinds: kinds, merges: hasMerges ? merges : PackedStrings(), bosToken: 1, eosToken: 2,
      unknownToken: 0, addsSpacePrefix: false)
  }

  private static func packed(_ tokens: [[UInt8]]) -> PackedStrings {
    var packed = PackedStrings()
    for token in tokens { packed.append(token) }
    return packed
  }

  private static let byteAlphabet: [Character] = {
    var next: UInt32 = 0x100
    return (UInt32(0)..<256).map { byte in
      let prints = (0x21...0x7E).contains(byte) || (0xA1...0xAC).contains(byte) || byte >= 0xAE
      if !prints { next += 1 }
      return Character(Unicode.Scalar(prints ? byte : next - 1) ?? " ")
    }
  }()
}
