import TensorBasics

/// A vocabulary of bytes with ranks (tiktoken, tekken), from which merges follow: any neighbours that spell a token are
/// merged, the lowest rank first.
struct RankedVocabulary {
  private var bytes: [[UInt8]] = []
  private var ranks: [[UInt8]: Int] = [:]

  var count: Int { bytes.count }

  /// Adds the token of the next rank; false if it is there already, or empty.
  mutating func append(_ token: [UInt8]) -> Bool {
    guard !token.isEmpty, ranks.updateValue(bytes.count, forKey: token) == nil else { return false }
    bytes.append(token)
    return true
  }

  /// The spelling of every token in GPT-2's alphabet.
  func spellings() -> [[UInt8]] { bytes.map(ByteAlphabet.encode) }

  /// "left right" for every token that two others are merged to.
  func merges() -> PackedStrings {
    var packed = PackedStrings()
    for (rank, token) in bytes.enumerated() where token.count > 1 {
      guard let cut = lastCut(of: token, below: rank) else { continue }
      packed.append(
        ByteAlphabet.encode(Array(token[..<cut])) + [0x20]
          + ByteAlphabet.encode(Array(token[cut...])))
    }
    return packed
  }

  /// Where the last two parts of a token meet when it is merged from its bytes; nil if it never is.
  private func lastCut(of token: [UInt8], below limit: Int) -> Int? {
    // Longer ones would take long, and are runs of one character that no text is merged to otherwise.
    guard token.count <= 1024 else { return nil }
    var ends = Array(1...token.count)
    while ends.count > 2 {
      var best = limit
      var place = -1
      var start = 0
      for index in 0..<ends.count - 1 {
        if let rank = ranks[Array(token[start..<ends[index + 1]])], rank < best {
          (best, place) = (rank, index)
        }
        start = ends[index]
      }
      guard place >= 0 else { return nil }
      ends.remove(at: place)
    }
    return ends[0]
  }
}
