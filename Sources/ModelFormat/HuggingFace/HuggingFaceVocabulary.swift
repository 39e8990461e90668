import TensorBasics

/// Tokens, kinds and merges of a `tokenizer.json`, by id.
struct HuggingFaceVocabulary {
  private var tokens: [String] = []
  private(set) var kinds: [UInt8] = []
  /// SentencePiece scores; empty before ``scoreMerges()``.
  private(set) var scores: [Float] = []
  private var ids: [ExactString: Int] = [:]
  private var pairs: [(left: String, right: String)] = []
  private let reader: HuggingFaceTokenizerReader

  /// Ids may have gaps, which become unused tokens, but not so many.
  private static let gapLimit = 65536

  private typealias Kind = TokenizerDefinition.TokenKind

  init(
    _ reader: HuggingFaceTokenizerReader, _ model: JSONValue, isByteLevel: Bool
  ) throws(FormatError) {
    self.reader = reader
    guard let vocabulary = model["vocab"]?.members else {
      throw reader.error(.malformed, model, "\"vocab\" is missing")
    }
    let added = reader.root["added_tokens"]?.array ?? []
    let limit = vocabulary.count + added.count + Self.gapLimit
    for member in vocabulary {
      try set(member.key, member.value, member.value.integer, .normal, limit)
    }
    if !isByteLevel { markBytes() }
    if let unknown = model["unk_token"]?.string, let id = ids[ExactString(unknown)] {
      kinds[id] = Kind.unknown.rawValue
    }
    for token in added {
      guard let content = token["content"]?.string, !content.isEmpty else {
        throw reader.error(.malformed, token, "an added token has no content")
      }
      let isSpecial = token["special"]?.bool == true
      try set(content, token, token["id"]?.integer, isSpecial ? .control : .userDefined, limit)
      let reaches = ["lstrip", "rstrip", "single_word"] as [StaticString]
      if !isSpecial, reaches.contains(where: { token[$0]?.bool == true }) {
        throw reader.error(
          .unsupported, token,
          "added token \"\(content)\" absorbs the spaces around it, which is not supported")
      }
    }
    for id in tokens.indices where kinds[id] == 0 {
      tokens[id] = "[PAD\(id)]"
      kinds[id] = Kind.unused.rawValue
    }
  }

  /// Gives `id` to a token. An added token may repeat one of the vocabulary.
  private mutating func set(
    _ token: String, _ value: JSONValue, _ id: Int?, _ kind: Kind, _ limit: Int
  ) throws(FormatError) {
    guard let id, (0..<limit).contains(id) else {
      let found = id.map { "\($0)" } ?? (value["id"] ?? value).found
      throw reader.error(
        .malformed, value,
        "token \"\(token)\" has the impossible id \(found); ids are below \(limit)")
    }
    while tokens.count <= id {
      tokens.append("")
      kinds.append(0)
    }
    let isFree = kinds[id] == 0
    let known = ids.updateValue(id, forKey: ExactString(token))
    guard known == nil ? isFree : known == id && kind != .normal else {
      throw reader.error(.malformed, value, "token \"\(token)\" or its id \(id) appears twice")
    }
    tokens[id] = token
    // The unknown token is listed among the added ones too, and stays what it is.
    if kinds[id] != Kind.unknown.rawValue { kinds[id] = kind.rawValue }
  }

  /// Finds the tokens `<0x00>` to `<0xFF>`.
  private mutating func markBytes() {
    let digits = Array("0123456789ABCDEF")
    for byte in 0..<256 {
      if let id = ids[ExactString("<0x\(digits[byte >> 4])\(digits[byte & 15])>")] {
        kinds[id] = Kind.byte.rawValue
      }
    }
  }

  func id(of token: String) -> Int? { ids[ExactString(token)] }

  /// All spellings, by id.
  func packed() -> PackedStrings {
    var packed = PackedStrings()
    packed.reserveCapacity(
      strings: tokens.count, bytes: tokens.reduce(0) { $0 + $1.utf8.count })
    for token in tokens { packed.append(token.utf8) }
    return packed
  }

  /// Reads the merges, "left right" or ["left", "right"], best first.
  mutating func merges(of model: JSONValue) throws(FormatError) -> PackedStrings {
    var packed = PackedStrings()
    guard let merges = model["merges"]?.array else {
      throw reader.error(.malformed, model, "\"merges\" is missing")
    }
    pairs.reserveCapacity(merges.count)
    for merge in merges {
      var sides: [String]
      if let text = merge.string {
        sides = text.split(separator: " ", omittingEmptySubsequences: false).map(String.init)
      } else {
        sides = merge.array?.compactMap(\.string) ?? []
      }
      guard sides.count == 2, sides.allSatisfy({ !$0.isEmpty }) else {
        throw reader.error(.malformed, merge, "a merge does not join two tokens")
      }
      guard !sides.contains(where: { $0.utf8.contains(0x20) }) else {
        throw reader.error(.unsupported, merge, "a merge of tokens with spaces")
      }
      pairs.append((sides[0], sides[1]))
      packed.append("\(sides[0]) \(sides[1])".utf8)
    }
    return packed
  }

  /// Derives SentencePiece's scores from the order of merges: the best token is made first.
  ///
  /// Files converted from SentencePiece list, for each token, all pairs that spell it. Only then
  /// does merging by score, which asks no pair's permission, give the same tokens; anything else is
  /// refused.
  mutating func scoreMerges() throws(FormatError) {
    let unreachable = -Float(pairs.count + 1)
    scores = [Float](repeating: unreachable, count: tokens.count)
    var pairCounts = [Int32](repeating: 0, count: tokens.count)
    var group: Float = 0
    var last = -1
    for (left, right) in pairs {
      guard let id = ids[ExactString(left + right)], ids[ExactString(left)] != nil,
        ids[ExactString(right)] != nil
      else {
        throw reader.error(
          .unsupported, reader.root["model"], "merge \"\(left) \(right)\" makes no token")
      }
      if id != last {
        let isNew = pairCounts[id] == 0
        // Added tokens of equal score (runs of spaces in Gemma) come mixed; the first pair counts.
        guard isNew || kinds[id] != Kind.normal.rawValue else { throw inconsistent(id) }
        if isNew {
          group -= 1
          scores[id] = group
        }
        last = id
      }
      pairCounts[id] += 1
    }
    for id in tokens.indices where kinds[id] == Kind.normal.rawValue {
      guard splitCount(of: tokens[id]) == Int(pairCounts[id]) else { throw inconsistent(id) }
    }
  }

  private func inconsistent(_ id: Int) -> FormatError {
    reader.error(
      .unsupported, reader.root["model"],
      "the merges that make token \"\(tokens[id])\" are not those of a SentencePiece vocabulary")
  }

  /// In how many ways a token is two others.
  private func splitCount(of token: String) -> Int {
    let scalars = token.unicodeScalars
    var count = 0
    var index = scalars.startIndex
    while index < scalars.endIndex {
      index = scalars.index(after: index)
      guard index < scalars.endIndex else { break }
      if ids[ExactString(String(token[..<index]))] != nil,
        ids[ExactString(String(token[index...]))] != nil
      {
        count += 1
      }
    }
    return count
  }
}
