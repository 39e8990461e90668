/// Which of this project's tokenizers cuts and normalises text as a `tokenizer.json` says.
///
/// Steps are recognised exactly; anything else is refused, because a tokenizer that is nearly right
/// yields models that are nearly right. One deviation: Unicode normalisation (NFC, in Qwen's files)
/// is left out, as in GGUF files; it changes only text that is not composed.
struct HuggingFaceTokenizerScheme {
  /// GPT-2's byte alphabet, or SentencePiece's `▁`.
  let isByteLevel: Bool
  /// llama.cpp's name; byte-level vocabularies only.
  private(set) var preTokenizer: String?
  private(set) var addsSpacePrefix: Bool?

  private let reader: HuggingFaceTokenizerReader

  /// - Parameter model: The document's "model".
  init(_ reader: HuggingFaceTokenizerReader, _ model: JSONValue) throws(FormatError) {
    self.reader = reader
    let steps = Self.steps(reader.root["pre_tokenizer"], list: "pretokenizers")
    let normalisers = Self.steps(reader.root["normalizer"], list: "normalizers")
    isByteLevel = steps.contains { $0["type"]?.string == "ByteLevel" }
    let ignoresMerges = model["ignore_merges"]?.bool ?? false
    if isByteLevel {
      for step in normalisers where step["type"]?.string != "NFC" {
        throw reader.error(.unsupported, step, "this normaliser is not supported")
      }
      preTokenizer = try name(of: steps, ignoresMerges: ignoresMerges)
      addsSpacePrefix = false
    } else {
      guard model["byte_fallback"]?.bool == true, !ignoresMerges else {
        throw reader.error(
          .unsupported, model, "BPE is supported at byte level, or with byte_fallback and merges")
      }
      addsSpacePrefix = try spacePrefix(steps, normalisers)
    }
  }

  /// A step, or the steps of a sequence.
  private static func steps(_ value: JSONValue?, list: StaticString) -> [JSONValue] {
    guard let value else { return [] }
    return value["type"]?.string == "Sequence" ? value[list]?.array ?? [] : [value]
  }

  /// The name of the pre-tokenizer that cuts as `steps` do.
  private func name(
    of steps: [JSONValue], ignoresMerges: Bool
  ) throws(FormatError) -> String {
    let signature = steps.map(Self.signature)
    let match = Self.known.first { $0.steps == signature && $0.ignoresMerges == ignoresMerges }
    guard let match else {
      let merges = ignoresMerges ? " with ignore_merges" : ""
      throw reader.error(
        .unsupported, reader.root["pre_tokenizer"],
        "this pre-tokenizer is not known: \(signature.joined(separator: ", then "))\(merges)")
    }
    return match.name
  }

  /// A step in one line; equal lines cut equally.
  private static func signature(_ step: JSONValue) -> String {
    switch step["type"]?.string ?? "?" {
    case "Split":
      let pattern = step["pattern"]
      let text = pattern?["Regex"]?.string.map { "regex \($0)" } ?? "text"
      let inverts = step["invert"]?.bool == true ? " inverted" : ""
      let behaviour = step["behavior"]?.string ?? "?"
      // Every pattern known here covers all text, so that both are the same.
      let isPlain =
        (behaviour == "Isolated" && inverts.isEmpty)
        || (behaviour == "Removed" && !inverts.isEmpty)
      return isPlain ? text : "\(behaviour)\(inverts) \(text)"
    case "Digits":
      return step["individual_digits"]?.bool == true ? "digits" : "runs of digits"
    case "ByteLevel":
      let prefix = step["add_prefix_space"]?.bool == true ? " with a space before" : ""
      return (step["use_regex"]?.bool == false ? "bytes" : "gpt-2 bytes") + prefix
    case let other: return other
    }
  }

  private struct Known {
    let name: String
    let steps: [String]
    var ignoresMerges = false
  }

  private static let gpt2 =
    #"regex 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"#
  private static let tail = #"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"#
  private static let head = #"regex (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"#
  /// Llama 3's, and Qwen's, which takes digits one by one.
  private static let llama3 = head + "{1,3}" + tail
  private static let qwen2 = head + tail

  private static let known = [
    Known(name: "gpt-2", steps: ["gpt-2 bytes"]),
    Known(name: "gpt-2", steps: [gpt2, "bytes"]),
    Known(name: "smollm", steps: ["digits", "gpt-2 bytes"]),
    Known(name: "llama-bpe", steps: [llama3, "bytes"], ignoresMerges: true),
    Known(name: "smaug-bpe", steps: [llama3, "bytes"]),
    Known(name: "qwen2", steps: [qwen2, "bytes"]),
  ]

  /// Whether SentencePiece-style steps put a space before the text.
  private func spacePrefix(
    _ steps: [JSONValue], _ normalisers: [JSONValue]
  ) throws(FormatError) -> Bool {
    var addsPrefix = false
    var escapes = false
    for step in normalisers {
      switch step["type"]?.string {
      case "Prepend" where step["prepend"]?.string == "▁": addsPrefix = true
      case "Replace"
      where step["pattern"]?["String"]?.string == " " && step["content"]?.string == "▁":
        escapes = true
      case let other:
        throw reader.error(
          .unsupported, step, "normaliser \"\(other ?? "?")\" is not supported in this form")
      }
    }
    for step in steps {
      switch step["type"]?.string {
      case "Metaspace"
      where step["replacement"]?.string == "▁" && step["split"]?.bool == false:
        escapes = true
        let scheme = step["prepend_scheme"]?.string ?? "always"
        if scheme != "never" { addsPrefix = true }
      // Gemma's: after the normaliser no space is left to split at.
      case "Split" where step["pattern"]?["String"]?.string == " " && escapes: break
      case let other:
        throw reader.error(
          .unsupported, step, "pre-tokenizer \"\(other ?? "?")\" is not supported in this form")
      }
    }
    guard escapes else {
      throw reader.error(.unsupported, reader.root, "spaces are not replaced by ▁")
    }
    return addsPrefix
  }
}
