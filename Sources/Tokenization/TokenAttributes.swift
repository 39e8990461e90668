import ModelFormat
import TensorBasics

/// What a token is besides its bytes.
struct TokenAttributes: OptionSet, Sendable {
  let rawValue: UInt8

  static let normal = TokenAttributes(rawValue: 1)
  static let unknown = TokenAttributes(rawValue: 2)
  static let control = TokenAttributes(rawValue: 4)
  /// Recognised in any text, before everything else.
  static let userDefined = TokenAttributes(rawValue: 8)
  static let unused = TokenAttributes(rawValue: 16)
  /// Stands for the byte its spelling `<0xXX>` names.
  static let byte = TokenAttributes(rawValue: 32)
  /// Recognised together with the white space after it.
  static let stripsRight = TokenAttributes(rawValue: 64)

  /// An added token that the model itself does not know: only looking for it makes it.
  static let outside = TokenAttributes(rawValue: 128)

  /// Never made of text by the model.
  static let unreachable: TokenAttributes = [.control, .unknown, .outside]
  /// Recognised only where control tokens are asked for; written out only on request.
  static let hidden: TokenAttributes = [.control, .unknown]
  /// Searched for in the text before it is split.
  static let special: TokenAttributes = [.control, .userDefined, .unknown]

  /// The attribute of a raw kind of the file; none if ggml knows no such kind.
  init(kind: UInt8) {
    switch TokenizerDefinition.TokenKind(rawValue: kind) {
    case .normal: self = .normal
    case .unknown: self = .unknown
    case .control: self = .control
    case .userDefined: self = .userDefined
    case .unused: self = .unused
    case .byte: self = .byte
    case nil: self = []
    }
  }

  init(rawValue: UInt8) { self.rawValue = rawValue }
}

/// Tokens whose meaning only their spelling tells, because GGUF files leave it out.
///
/// The lists are those llama.cpp applies to every vocabulary.
struct SpelledTokens {
  /// Tokens that end an answer.
  private static let ending: [StaticString] = [
    "<|eot_id|>", "<|im_end|>", "<|end|>", "<|return|>", "<|call|>", "<|flush|>", "<|calls|>",
    "<end_of_turn>", "<|endoftext|>", "</s>", "<|eom_id|>", "<EOT>", "_<EOT>", "[EOT]", "[EOS]",
    "<|end_of_text|>", "<end_of_utterance>", "<eos>", "<turn|>", "<|tool_response>",
    "<｜end▁of▁sentence｜>", "[e~[",
  ]
  /// Padding, repository and file marks of fill-in-the-middle prompts; they end an answer too, but
  /// only the first of each group counts.
  private static let fillEnding: [[StaticString]] = [
    ["<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"],
    ["<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"],
    ["<|file_sep|>"],
  ]
  /// Other marks of fill-in-the-middle prompts: control tokens whatever the file says.
  private static let fill: [[StaticString]] = [
    [
      "<|fim_prefix|>", "<fim-prefix>", "<fim_prefix>", "<｜fim▁begin｜>", "<PRE>", "▁<PRE>",
      "<|code_prefix|>", "<|prefix|>",
    ],
    [
      "<|fim_suffix|>", "<fim-suffix>", "<fim_suffix>", "<｜fim▁hole｜>", "<SUF>", "▁<SUF>",
      "<|code_suffix|>", "<|suffix|>",
    ],
    [
      "<|fim_middle|>", "<fim-middle>", "<fim_middle>", "<｜fim▁end｜>", "<MID>", "▁<MID>",
      "<|code_middle|>", "<|middle|>",
    ],
  ]
  /// Marks inside an answer that must be seen in its text (gpt-oss).
  private static let visible: [StaticString] = [
    "<|channel|>", "<|message|>", "<|start|>", "<|constrain|>",
  ]
  private static let others: [StaticString] = ["<|plamo:eos|>", "<unk>", "<s>"]

  /// Id of each listed spelling that the vocabulary has.
  private(set) var ids: [String: Int] = [:]

  /// Collects the listed spellings in one pass over the vocabulary.
  init(in definition: borrowing TokenizerDefinition) {
    let groups = [Self.ending, Self.visible, Self.others] + Self.fillEnding + Self.fill
    let names = Set(groups.joined().map { "\($0)" })
    let bytesOfName = Set(names.map { Array($0.utf8) })
    let firsts = Set(bytesOfName.map { $0[0] })
    let counts = Set(bytesOfName.map(\.count))
    for id in 0..<definition.tokens.count {
      let spelling = definition.tokens[id]
      guard let first = spelling.first, firsts.contains(first), counts.contains(spelling.count)
      else { continue }
      let bytes = Array(spelling)
      if bytesOfName.contains(bytes) { ids[String(decoding: bytes, as: UTF8.self)] = id }
    }
  }

  private func id(_ name: StaticString) -> Int? { ids["\(name)"] }

  /// Corrects `attributes` and returns the tokens that end an answer, in ascending order.
  ///
  /// - Parameter stated: the ends the file itself names (EOS, end of turn).
  func resolve(_ attributes: inout [TokenAttributes], stated: [Int]) -> [Int32] {
    var ends = Set<Int>()
    for group in Self.fillEnding {
      if let id = group.compactMap({ id($0) }).min() { ends.insert(id) }
    }
    for name in Self.ending {
      if let id = id(name) { ends.insert(id) }
    }
    for id in ends { attributes[id].insert(.control) }
    for group in Self.fill {
      if let id = group.compactMap({ id($0) }).min() { attributes[id].insert(.control) }
    }
    for name in Self.visible {
      if let id = id(name) { attributes[id] = .userDefined }
    }
    ends.formUnion(stated)
    // In formats that have these two, <|end|> closes a part of an answer, not the answer.
    let hasCall = id("<|call|>") != nil || id("<|calls|>") != nil
    if let end = id("<|end|>"), hasCall, id("<|return|>") != nil || id("<|flush|>") != nil {
      ends.remove(end)
      attributes[end] = .userDefined
    }
    // Gemma 4 and PLaMo have an ordinary token spelt like Llama's end of sentence.
    if let end = id("</s>"), id("<|tool_response>") != nil || id("<|plamo:eos|>") != nil {
      ends.remove(end)
      attributes[end] = .normal
    }
    return ends.map { Int32($0) }.sorted()
  }

  /// Gives Phi-3's special tokens their habit of swallowing the white space after them.
  func stripRightOfSpecial(_ attributes: inout [TokenAttributes]) {
    for id in attributes.indices where !attributes[id].isDisjoint(with: .special) {
      attributes[id].insert(.stripsRight)
    }
    if let end = id("</s>") { attributes[end].insert(.stripsRight) }
    for name: StaticString in ["<unk>", "<s>", "<|endoftext|>"] {
      if let id = id(name) { attributes[id].remove(.stripsRight) }
    }
  }
}
