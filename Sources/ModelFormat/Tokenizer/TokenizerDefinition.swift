public import TensorBasics

/// A vocabulary and its rules as a model file states them, before a tokenizer is built from it.
public struct TokenizerDefinition: Sendable {
  /// How text becomes tokens.
  public enum Model: String, Sendable, Codable {
    /// Byte-level BPE with merges (GGUF `gpt2`); tokens are spelt in GPT-2's byte alphabet.
    case byteLevelBPE
    /// SentencePiece-style greedy merging by score with byte fallback (GGUF `llama`).
    case sentencePieceBPE
    /// SentencePiece unigram: the best segmentation by score (GGUF `t5`).
    case unigram
    /// BPE with merges over UTF-8 with `▁` for spaces and byte fallback (GGUF `gemma4`).
    case spacedBPE
    /// BPE as ``TokenizerDefinition/pipeline`` says (Hugging Face folders).
    case bytePairs
    /// Unigram as ``TokenizerDefinition/pipeline`` says (Hugging Face folders).
    case unigramPieces
  }

  /// ggml's token types, as they stand in GGUF files.
  public enum TokenKind: UInt8, Sendable {
    case normal = 1
    case unknown = 2
    case control = 3
    case userDefined = 4
    case unused = 5
    case byte = 6
  }

  public var model: Model
  /// The pre-tokenizer's name as the file gives it (`smollm`, `llama-bpe`); nil if it gives none.
  public var preTokenizer: String?
  /// What is done to text before the model; only, and always, of ``Model/bytePairs`` and
  /// ``Model/unigramPieces``.
  public var pipeline: TokenizerPipeline?
  /// Token spellings, by id.
  public var tokens: PackedStrings
  /// Scores by id; empty if the file has none.
  public var scores: [Float]
  /// Raw ``TokenKind`` by id; empty = all normal.
  public var kinds: [UInt8]
  /// ``AddedTokenFlags`` by id; empty = none is looked for by flags.
  public var addedFlags: [UInt8] = []
  /// Merge rules, best first, each "left right" with one space; empty without merges.
  public var merges: PackedStrings
  public var bosToken: Int?
  public var eosToken: Int?
  /// End of turn, where the file names one beside ``eosToken``.
  public var eotToken: Int?
  /// All tokens that the files name as ends of an answer.
  public var stopTokens: [Int] = []
  public var unknownToken: Int?
  /// Whether a prompt begins with BOS; nil if the file does not say.
  public var addsBOS: Bool?
  public var addsEOS: Bool?
  /// SentencePiece's dummy prefix: a space before the text; nil if the file does not say.
  public var addsSpacePrefix: Bool?
  /// SentencePiece's collapsing of repeated spaces; nil if the file does not say.
  public var removesExtraWhitespace: Bool?

  public init(
    model: Model, preTokenizer: String? = nil, tokens: PackedStrings, scores: [Float] = [],
    kinds: [UInt8] = [], merges: PackedStrings = PackedStrings(), bosToken: Int? = nil,
    eosToken: Int? = nil, eotToken: Int? = nil, unknownToken: Int? = nil, addsBOS: Bool? = nil,
    addsEOS: Bool? = nil, addsSpacePrefix: Bool? = nil, removesExtraWhitespace: Bool? = nil
  ) {
    self.model = model
    self.preTokenizer = preTokenizer
    self.tokens = tokens
    self.scores = scores
    self.kinds = kinds
    self.merges = merges
    self.bosToken = bosToken
    self.eosToken = eosToken
    self.eotToken = eotToken
    self.unknownToken = unknownToken
    self.addsBOS = addsBOS
    self.addsEOS = addsEOS
    self.addsSpacePrefix = addsSpacePrefix
    self.removesExtraWhitespace = removesExtraWhitespace
  }
}
