import TensorBasics

/// Tokens, kinds, flags and merges of a `tokenizer.json`, by id.
struct HuggingFaceVocabulary {
  private var tokens: [String] = []
  private(set) var kinds: [UInt8] = []
  /// Scores of a unigram vocabulary; otherwise empty.
  private(set) var scores: [Float] = []
  /// ``AddedTokenFlags`` by id.
  private(set) var flags: [UInt8] = []
  private var ids: [ExactString: Int] = [:]
  private let reader: HuggingFaceTokenizerReader

  /// Ids may have gaps, which become unused tokens, but not so many.
  private static let gapLimit = 65536

  private typealias Kind = TokenizerDefinition.TokenKind

  init(_ reader: HuggingFaceTokenizerReader, _ model: JSONValue) throws(FormatError) {
    self.reader = reader
    let added = reader.root["added_tokens"]?.array ?? []
    if let vocabulary = model["vocab"]?.members {
      let limit = vocabulary.count + added.count + Self.gapLimit
      for member in vocabulary {
        try set(member.key, member.value, member.value.integer, .normal, limit)
      }
    } else if let vocabulary = model["vocab"]?.array {
      try readPieces(vocabulary, limit: vocabulary.count + added.count + Self.gapLimit)
    } else {
      throw reader.error(.malformed, model, "\"vocab\" is missing")
    }
    if model["byte_fallback"]?.bool == true { markBytes() }
    let unknown = model["unk_token"]?.string.flatMap { ids[ExactString($0)] }
    if let unknown = unknown ?? model["unk_id"]?.integer {
      guard kinds.indices.contains(unknown) else {
        throw reader.error(.malformed, model, "the unknown token is \(unknown), which is none")
      }
      kinds[unknown] = Kind.unknown.rawValue
    }
    for token in added { try add(token, limit: kinds.count + added.count + Self.gapLimit) }
    for id in tokens.indices where kinds[id] == 0 {
      tokens[id] = "[PAD\(id)]"
      kinds[id] = Kind.unused.rawValue
    }
  }

  /// The tokens of a unigram model, ["token", score] in the order of ids.
  private mutating func readPieces(_ pieces: [JSONValue], limit: Int) throws(FormatError) {
    for (id, piece) in pieces.enumerated() {
      guard let pair = piece.array, pair.count == 2, let token = pair[0].string,
        let score = pair[1].double
      else { throw reader.error(.malformed, piece, "token \(id) is no token with a score") }
      try set(token, piece, id, .normal, limit)
      scores.append(Float(score))
    }
  }

  private mutating func add(_ token: JSONValue, limit: Int) throws(FormatError) {
    let fields = ["id", "content", "single_word", "lstrip", "rstrip", "normalized", "special"]
    try HuggingFaceFields.check(token, "an added token", fields, path: reader.path)
    guard let content = token["content"]?.string, !content.isEmpty else {
      throw reader.error(.malformed, token, "an added token has no content")
    }
    let isSpecial = token["special"]?.bool == true
    let isKnown = ids[ExactString(content)] != nil
    try set(content, token, token["id"]?.integer, isSpecial ? .control : .userDefined, limit)
    var flag = AddedTokenFlags(token)
    if !isKnown { flag.insert(.outsideModel) }
    if let id = ids[ExactString(content)] {
      // A second entry of a token says nothing about the model.
      let before = AddedTokenFlags(rawValue: flags[id])
      if before.contains(.outsideModel) { flag.insert(.outsideModel) }
      flags[id] = flag.rawValue
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
      flags.append(0)
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

  /// Scores of all tokens, of which added ones have none.
  func packedScores() -> [Float] {
    scores + [Float](repeating: 0, count: tokens.count - scores.count)
  }

  /// Reads the merges, "left right" or ["left", "right"], best first.
  func merges(of model: JSONValue) throws(FormatError) -> PackedStrings {
    var packed = PackedStrings()
    guard let merges = model["merges"]?.array else {
      throw reader.error(.malformed, model, "\"merges\" is missing")
    }
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
      for token in sides + [sides[0] + sides[1]] where !isInModel(token) {
        throw reader.error(
          .malformed, merge,
          "merge \"\(sides[0]) \(sides[1])\": \"\(token)\" is no token of the model")
      }
      packed.append("\(sides[0]) \(sides[1])".utf8)
    }
    return packed
  }

  private func isInModel(_ token: String) -> Bool {
    guard let id = ids[ExactString(token)] else { return false }
    return !AddedTokenFlags(rawValue: flags[id]).contains(.outsideModel)
  }
}
