/// Which neighbours may become one symbol, and which of them first.
///
/// A symbol is a number of the vocabulary's string index, or `StringIndex.none`.
protocol MergeRule {
  /// Priority (the lowest is merged first) of joining two neighbours, nil if they do not join.
  ///
  /// - Parameter span: the bytes of both.
  func priority(
    joining left: UInt32, _ right: UInt32, span: UnsafeBufferPointer<UInt8>
  ) -> UInt32?
  /// The symbol with these bytes, or `StringIndex.none`.
  func symbol(of span: UnsafeBufferPointer<UInt8>) -> UInt32
}

/// Byte-pair merging: pairs of symbols in the order the vocabulary learned them.
struct RankedMerges: MergeRule, Sendable {
  let strings: StringIndex
  /// Rank in the table of slots, by open addressing on the pair.
  private var slots: [UInt32]
  /// Left and right symbol by rank.
  private var pairs: [UInt64]
  private let key: UInt64
  /// Symbol of each single byte, the beginning of every byte-level text.
  private let byteSymbols: [UInt32]

  /// - Parameters:
  ///   - rankedPairs: left symbol in the high half, right in the low, best pair first;
  ///     `UInt64.max` for a pair that no text can contain.
  ///   - takesLast: whether of equal pairs the last counts; otherwise the first.
  init(strings: StringIndex, rankedPairs: [UInt64], takesLast: Bool) {
    var generator = SystemRandomNumberGenerator()
    key = generator.next()
    self.strings = strings
    byteSymbols = (0...255).map { byte in
      withUnsafeBytes(of: UInt8(byte)) { strings.find($0.assumingMemoryBound(to: UInt8.self)) }
    }
    pairs = rankedPairs
    slots = [UInt32](
      repeating: StringIndex.none, count: max(16, pairs.count + pairs.count / 3 + 1))
    for rank in pairs.indices where pairs[rank] != UInt64.max {
      let slot = slot(of: pairs[rank])
      if takesLast || slots[slot] == StringIndex.none { slots[slot] = UInt32(rank) }
    }
  }

  private func slot(of pair: UInt64) -> Int {
    let hash = KeyedHash.mix(pair, key: key)
    var slot = Int(hash.multipliedFullWidth(by: UInt64(slots.count)).high)
    while slots[slot] != StringIndex.none, pairs[Int(slots[slot])] != pair {
      slot += 1
      if slot == slots.count { slot = 0 }
    }
    return slot
  }

  func priority(
    joining left: UInt32, _ right: UInt32, span: UnsafeBufferPointer<UInt8>
  ) -> UInt32? {
    if left == StringIndex.none || right == StringIndex.none { return nil }
    let rank = slots[slot(of: UInt64(left) << 32 | UInt64(right))]
    return rank == StringIndex.none ? nil : rank
  }

  func symbol(of span: UnsafeBufferPointer<UInt8>) -> UInt32 {
    span.count == 1 ? byteSymbols[Int(span[0])] : strings.find(span)
  }
}

/// SentencePiece's merging: any two neighbours that spell a token, the best score first; never a control
/// token, which text cannot become.
struct ScoredMerges: MergeRule, Sendable {
  let strings: StringIndex
  let scores: [Float]
  let attributes: [TokenAttributes]

  func priority(
    joining left: UInt32, _ right: UInt32, span: UnsafeBufferPointer<UInt8>
  ) -> UInt32? {
    let symbol = strings.find(span)
    guard symbol != StringIndex.none, attributes[Int(symbol)].isDisjoint(with: .hidden) else {
      return nil
    }
    return Self.priority(ofScore: scores[Int(symbol)])
  }

  func symbol(of span: UnsafeBufferPointer<UInt8>) -> UInt32 { strings.find(span) }

  /// Integers in descending order of their scores; both zeros are one.
  private static func priority(ofScore score: Float) -> UInt32 {
    let bits = (score + 0).bitPattern
    return bits & 0x8000_0000 == 0 ? ~(bits | 0x8000_0000) : bits
  }
}
