import CPCRE2

/// A vocabulary, text or chat template that this project cannot tokenise as its model expects.
public enum TokenizerError: Error, Sendable, Equatable, CustomStringConvertible {
  /// The file names a pre-tokenizer that is not in `PreTokenizerRule.known`.
  case unknownPreTokenizer(String)
  /// A byte-pair vocabulary without the name of its pre-tokenizer.
  case missingPreTokenizer
  /// The vocabulary contradicts itself.
  case invalidVocabulary(String)
  /// PCRE2 refused a pattern or gave up on a text; `code` is PCRE2's.
  case patternFailed(pattern: String, code: Int32)
  /// A regular expression of the file cannot be translated; `offset` counts its characters.
  case unsupportedPattern(pattern: String, offset: Int, reason: String)
  /// A step of a tokenizer that cannot be done as it stands.
  case unsupportedStep(String)
  /// More text than offsets of 32 bits reach.
  case textTooLong(byteCount: Int)
  /// The chat template is not Jinja, or not as far as it is supported.
  case badChatTemplate(String)
  /// The chat template fails on this conversation, or refuses it.
  case unsupportedConversation(String)
  /// A document of messages that is not JSON, or not a list of messages.
  case badMessages(String)

  public var description: String {
    switch self {
    case .unknownPreTokenizer(let name):
      let known = PreTokenizerRule.known.flatMap(\.names).sorted().joined(separator: ", ")
      return "unknown pre-tokenizer '\(name)'; known are \(known)"
    case .missingPreTokenizer:
      return "the file names no pre-tokenizer (tokenizer.ggml.pre) for its byte-pair vocabulary; "
        + "convert the model again, text cannot be split by guessing"
    case .invalidVocabulary(let reason):
      return "invalid vocabulary: \(reason)"
    case .patternFailed(let pattern, let code):
      let problem =
        [PCRE2_ERROR_MATCHLIMIT, PCRE2_ERROR_DEPTHLIMIT, PCRE2_ERROR_HEAPLIMIT].contains(code)
        ? "takes too long on this text" : "cannot be used"
      let shown = pattern.count > 200 ? pattern.prefix(200) + "…" : pattern[...]
      return
        "a regular expression of the tokenizer \(problem) (PCRE2 code \(code)): use the model's original "
        + "tokenizer files, or give the prompt as token ids; the expression is \(shown)"
    case .unsupportedPattern(let pattern, let offset, let reason):
      return
        "the regular expression \(pattern) is not supported: at character \(offset) is \(reason)"
    case .unsupportedStep(let step): return "the tokenizer has \(step), which is not supported"
    case .textTooLong(let byteCount):
      return "text of \(byteCount) bytes is too long; at most \(Tokenizer.maximumTextByteCount)"
    case .badChatTemplate(let reason):
      return
        "the chat template cannot be used: \(reason); use another with --chat-template, or none with --raw"
    case .unsupportedConversation(let reason):
      return "the chat template cannot express this conversation: \(reason)"
    case .badMessages(let reason): return reason
    }
  }
}
