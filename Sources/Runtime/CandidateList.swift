import Kernels
import TensorBasics

/// The tokens that top-k, top-p and min-p leave, ascending.
///
/// Each filter keeps the beginning of one order: logit descending, then id ascending. Where that beginning ends is
/// found by radix selection over histograms, without sorting, in time linear in the vocabulary. Allocates nothing
/// after its creation.
struct CandidateList {
  /// Ids beyond `count` mean nothing [vocabularyCount].
  private var tokens: [Int32]
  private(set) var count = 0
  /// Logits that there is room for.
  var capacity: Int { tokens.count }
  /// Highest logit of each group of 64 ids: top-k passes over these first.
  private var groupMaxima: [Float]
  private var histogram: [Double]

  private static let groupLength = 64
  private static let digitCount = 2048

  /// Memory of a list.
  static func byteCount(vocabularyCount: Int) -> Int {
    4 * (vocabularyCount + (vocabularyCount + groupLength - 1) / groupLength)
      + digitCount * MemoryLayout<Int>.stride
  }

  init(vocabularyCount: Int) {
    tokens = Array(repeating: 0, count: vocabularyCount)
    groupMaxima = Array(
      repeating: 0, count: (vocabularyCount + Self.groupLength - 1) / Self.groupLength)
    histogram = Array(repeating: 0, count: Self.digitCount)
  }

  func withTokens<Result>(_ body: (UnsafeBufferPointer<Int32>) -> Result) -> Result {
    tokens.withUnsafeBufferPointer { body(UnsafeBufferPointer(rebasing: $0[..<count])) }
  }

  /// Calls `body` with each token among `list` once, and how often it is there; what was filled in before is lost.
  ///
  /// - Parameter limit: ids from there on are passed over; at most ``capacity``.
  mutating func forEachToken(
    of list: some Sequence<Int32>, below limit: Int, _ body: (_ token: Int, _ count: Int) -> Void
  ) {
    count = 0
    tokens.withUnsafeMutableBufferPointer { counts in
      for token in list where token >= 0 && token < limit { counts[Int(token)] = 0 }
      for token in list where token >= 0 && token < limit { counts[Int(token)] += 1 }
      for token in list where token >= 0 && token < limit && counts[Int(token)] > 0 {
        body(Int(token), Int(counts[Int(token)]))
        counts[Int(token)] = 0
      }
    }
  }

  /// Takes all tokens whose logit is at least `floor`, but none of −∞.
  mutating func fill(_ logits: UnsafeBufferPointer<Float>, from floor: Float = -.infinity) {
    count = tokens.withUnsafeMutableBufferPointer { tokens in
      guard let values = logits.baseAddress, let indexes = tokens.baseAddress else { return 0 }
      return VectorOps.indexesAbove(
        floor.nextDown, in: values, count: logits.count, into: indexes)
    }
  }

  /// Takes the `best` tokens of the highest logits.
  mutating func fill(best: Int, of logits: UnsafeBufferPointer<Float>) {
    // As many groups have a logit of at least the lowest of the `best` highest maxima.
    var floor = -Float.infinity
    let groupCount = (logits.count + Self.groupLength - 1) / Self.groupLength
    if best < groupCount {
      findGroupMaxima(logits)
      floor = groupMaxima.withUnsafeBufferPointer { maxima in
        let maxima = UnsafeBufferPointer(rebasing: maxima[..<groupCount])
        fill(maxima)
        return count > best ? last(of: maxima, best: best).logit : -.infinity
      }
    }
    fill(logits, from: floor)
    if count > best { keep(logits, through: last(of: logits, best: best)) }
  }

  private mutating func findGroupMaxima(_ logits: UnsafeBufferPointer<Float>) {
    groupMaxima.withUnsafeMutableBufferPointer { maxima in
      for (group, first) in stride(from: 0, to: logits.count, by: Self.groupLength).enumerated() {
        var highest = -Float.infinity
        for token in first..<min(first + Self.groupLength, logits.count)
        where logits[token] > highest { highest = logits[token] }
        maxima[group] = highest
      }
    }
  }

  /// Keeps the fewest of the most probable tokens that have this share of all candidates' probability.
  mutating func keep(share: Double, of logits: UnsafeBufferPointer<Float>, highest: Float) {
    guard count > 0 else { return }
    keep(
      logits,
      through: last(
        of: logits, reaching: { share * $0 },
        weight: { CanonicalMath.exp(Double($0) - Double(highest)) }))
  }

  /// Keeps the tokens whose logit is at least `floor`.
  mutating func keep(from floor: Float, of logits: UnsafeBufferPointer<Float>) {
    keep(logits, through: (floor, .max))
  }

  private mutating func keep(
    _ logits: UnsafeBufferPointer<Float>, through last: (logit: Float, token: Int32)
  ) {
    let all = count
    count = tokens.withUnsafeMutableBufferPointer { tokens in
      var count = 0
      for index in 0..<all {
        let token = tokens[index]
        let logit = logits[Int(token)]
        guard logit > last.logit || (logit == last.logit && token <= last.token) else { continue }
        tokens[count] = token
        count += 1
      }
      return count
    }
  }

  private mutating func last(
    of logits: UnsafeBufferPointer<Float>, best: Int
  ) -> (logit: Float, token: Int32) {
    last(of: logits, reaching: { _ in Double(best) }, weight: { _ in 1 })
  }

  /// The last token of the shortest beginning of the order that weighs the target or more.
  ///
  /// Three passes over the candidates, each of which fixes 11 bits of that token's logit, and one that finds it among
  /// those of equal logit. Weights are added in a fixed order.
  ///
  /// - Parameter target: of the weight of all.
  @inline(__always)
  private mutating func last(
    of logits: UnsafeBufferPointer<Float>, reaching target: (_ total: Double) -> Double,
    weight: (_ logit: Float) -> Double
  ) -> (logit: Float, token: Int32) {
    var (found, known): (UInt32, UInt32) = (0, 0)
    var (before, wanted) = (0.0, 0.0)
    let mask = UInt32(Self.digitCount - 1)
    return withScratch { tokens, histogram in
      var shift: UInt32 = 32
      while shift > 0 {
        let isFirst = shift == 32
        shift = shift > 11 ? shift - 11 : 0
        histogram.update(repeating: 0)
        for token in tokens {
          let logit = logits[Int(token)]
          let key = Self.key(logit)
          if key & known == found { histogram[Int(key >> shift & mask)] += weight(logit) }
        }
        if isFirst { wanted = target(histogram.reversed().reduce(0, +)) }
        var (digit, sum) = (0, before)
        for candidate in stride(from: Self.digitCount - 1, through: 0, by: -1)
        where histogram[candidate] > 0 {
          // Sums that rounding keeps below the target end with what weighs least.
          (digit, before) = (candidate, sum)
          sum += histogram[candidate]
          if sum >= wanted { break }
        }
        found |= UInt32(digit) << shift
        known |= mask << shift
      }
      let logit = Self.logit(found)
      var last = (logit: logit, token: Int32(0))
      for token in tokens where logits[Int(token)] == logit {
        last.token = token
        before += weight(logit)
        if before >= wanted { break }
      }
      return last
    }
  }

  private mutating func withScratch<Result>(
    _ body: (UnsafeBufferPointer<Int32>, UnsafeMutableBufferPointer<Double>) -> Result
  ) -> Result {
    let count = count
    return tokens.withUnsafeBufferPointer { tokens in
      histogram.withUnsafeMutableBufferPointer { histogram in
        body(UnsafeBufferPointer(rebasing: tokens[..<count]), histogram)
      }
    }
  }

  /// Integers ordered as logits are; both zeros have one.
  @inline(__always)
  private static func key(_ logit: Float) -> UInt32 {
    let bits = (logit + 0).bitPattern
    return bits >> 31 == 0 ? bits | 1 << 31 : ~bits
  }

  private static func logit(_ key: UInt32) -> Float {
    Float(bitPattern: key >> 31 == 1 ? key ^ 1 << 31 : ~key)
  }
}
