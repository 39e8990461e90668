/// How a tokenizer changes and cuts text before its model makes tokens of the pieces, as data.
///
/// It is what a `tokenizer.json` says, with its shorthands written out: `Digits` is a `split`, and so on.
/// Properties and cases are the keys of `docs/format.md`, section 4.
public struct TokenizerPipeline: Sendable, Equatable, Codable {
  /// What a step looks for.
  public enum Pattern: Sendable, Equatable, Codable {
    case text(String)
    /// A regular expression in Oniguruma's syntax and meaning.
    case regex(String)
  }

  /// What becomes of the matches of a split.
  public enum Behavior: String, Sendable, Equatable, Codable {
    case isolated, removed, mergedWithPrevious, mergedWithNext, contiguous
  }

  /// Before which texts a metaspace is put.
  public enum Prepending: String, Sendable, Equatable, Codable {
    case always, first, never
  }

  /// Unicode's normalisation forms.
  public enum Form: String, Sendable, Equatable, Codable {
    case nfc, nfd, nfkc, nfkd
  }

  /// A change of a text between added tokens.
  public enum Normalizer: Sendable, Equatable, Codable {
    case unicode(form: Form)
    case lowercase
    case stripAccents
    case strip(left: Bool, right: Bool)
    case prepend(text: String)
    case replace(pattern: Pattern, text: String)
  }

  /// A cut of the pieces so far, or a change of each.
  public enum PreTokenizer: Sendable, Equatable, Codable {
    case split(pattern: Pattern, behavior: Behavior, inverted: Bool)
    /// A space before every piece that does not begin with one.
    case spacePrefix
    /// Bytes become the characters of GPT-2's alphabet, in which the vocabulary is spelt.
    case byteLevel
    /// Spaces become `replacement`, one more of which is put before a piece without it.
    case metaspace(replacement: String, prepending: Prepending)
    /// Groups of three digits from the right of a run of digits.
    case digitGroups
    /// Cuts before every ASCII digit from which a multiple of three is left in its run.
    case thousands
  }

  public var normalizers: [Normalizer] = []
  public var preTokenizers: [PreTokenizer] = []
  /// BPE: a piece that is a token stays whole, whatever merges say.
  public var ignoresMerges = false
  /// A character without a token becomes the tokens `<0xXX>` of its bytes.
  public var byteFallback = false
  /// Neighbouring characters without a token are one unknown token.
  public var fusesUnknown = false
  /// Tokens before and after a prompt.
  public var prefix: [Int] = []
  public var suffix: [Int] = []

  public init() {}

  /// Whether the vocabulary is spelt in GPT-2's byte alphabet.
  public var isByteLevel: Bool { preTokenizers.contains(.byteLevel) }
}

/// How an added token is looked for in a text; the bits of `TokenizerDefinition.addedFlags`.
public struct AddedTokenFlags: OptionSet, Sendable {
  public let rawValue: UInt8

  public init(rawValue: UInt8) { self.rawValue = rawValue }

  /// It is looked for at all; tokens without this one have no other.
  public static let added = AddedTokenFlags(rawValue: 1)
  /// White space before it belongs to it.
  public static let stripsLeft = AddedTokenFlags(rawValue: 2)
  /// White space after it belongs to it.
  public static let stripsRight = AddedTokenFlags(rawValue: 4)
  /// It is looked for in normalised text, and normalised itself.
  public static let normalized = AddedTokenFlags(rawValue: 8)
  /// It is not looked for beside a letter, digit or the like.
  public static let singleWord = AddedTokenFlags(rawValue: 16)
  /// The model's own vocabulary does not have it.
  public static let outsideModel = AddedTokenFlags(rawValue: 32)

  /// All bits that have a meaning.
  static let known = AddedTokenFlags(rawValue: 63)
}
