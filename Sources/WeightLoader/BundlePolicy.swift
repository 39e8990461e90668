import Glibc
import TensorBasics

/// Rules by which a cache of bundles decides what to evict.
public enum BundlePolicyKind: String, Sendable, CaseIterable {
  /// Evicts the least recently used bundle.
  case lru
  /// Evicts the bundle that was used for the fewest tokens; of equals the older one.
  case lfu
  /// Evicts the bundle with the lowest decayed frequency (LRFU).
  case decayed
  /// Evicts the bundle whose next use is expected last: by decayed frequency, by the measured chance
  /// that a router repeats the last token's choice, and by how far away its layer's next visit is.
  case nextUse = "next-use"

  /// What measurements chose (`docs/decisions/0009-expert-cache-policy.md`).
  public static let standard = BundlePolicyKind.nextUse
}

/// What is known of the use of every bundle, in a cache or not, and how much each is worth keeping.
///
/// A bundle's key is layer × experts per layer + expert; a token visits the layers in ascending order. A sweep
/// that serves several tokens at once has one number, as a token has, and ``rowCount``; each bundle's use is then the
/// share of them that use it (`docs/decisions/0046`).
/// Nothing is allocated after `init`. Recording and scoring take constant time.
public struct BundlePolicy: Sendable {
  public let kind: BundlePolicyKind
  /// Tokens of the current sweep, and of the next one as far as is known.
  public var rowCount = 1 {
    didSet { precondition(rowCount > 0, "a sweep of \(rowCount) rows") }
  }

  /// Per key, the uses so far, each weighted by ``decay`` per token up to the key's last use.
  private var weightedUses: [Double]
  /// Per key, the tokens that used it, those of a sweep as its share.
  private var useCounts: [Double]
  /// Per key, the running number of its last use; below 1 if there was none.
  private var useOrder: [Double]
  /// Per key, the token that used it last; ``never`` where none did.
  private var lastToken: [Int]
  /// 2^(−n ÷ half-life) for n below the half-life.
  private let fractions: [Double]
  /// Weight of the tokens before the first one, which ``seed(_:)`` tells of.
  private var seedWeight = 0.0
  private var useNumber = 0.0
  /// The first and the latest token recorded, and the rows of that; nil before.
  private var tokens: (first: Int, latest: Int, rowCount: Int)?
  /// The highest key that the latest token used: the layers after it are still to come.
  private var position = -1
  private var repeats = RepeatRate()

  /// Tokens after which a use counts half.
  static let halfLife = 64
  /// Tokens without use that a bundle's frequency begins with, so that one use is not taken for a rule.
  private static let priorWeight = 4.0
  private static let never = Int.min / 4
  /// Weight of one token a token later.
  private static let decay = exp2(-1 / Double(halfLife))
  /// Weight of all tokens of an endless history.
  private static let fullWeight = 1 / (1 - decay)

  /// - Parameter bundleCount: layers × experts of a layer.
  public init(_ kind: BundlePolicyKind, bundleCount: Int) {
    precondition(bundleCount >= 0, "\(bundleCount) bundles")
    self.kind = kind
    weightedUses = Array(repeating: 0, count: bundleCount)
    useCounts = Array(repeating: 0, count: bundleCount)
    useOrder = Array(repeating: 0, count: bundleCount)
    lastToken = Array(repeating: Self.never, count: bundleCount)
    fractions = (0..<Self.halfLife).map { exp2(-Double($0) / Double(Self.halfLife)) }
  }

  /// Notes that a token's router chose bundle `key`; further uses by the same token count once.
  ///
  /// - Parameters:
  ///   - token: running number of the token, not below that of an earlier call. All tokens of a sweep have one
  ///     number.
  ///   - users: those of them that chose the bundle, at most ``rowCount``.
  public mutating func recordUse(of key: Int, at token: Int, by users: Int = 1) {
    let token = begin(token)
    useNumber += 1
    useOrder[key] = useNumber
    position = max(position, key)
    let last = lastToken[key]
    guard last != token else { return }
    repeats.recordUse(chance: chance(of: key, at: token), isRepeat: last == token - 1)
    let share = Double(users) / Double(rowCount)
    weightedUses[key] = weightedUses[key] * weight(since: last, at: token) + share
    useCounts[key] += share
    lastToken[key] = token
  }

  /// How much bundle `key` is worth keeping; the lowest is evicted, of equals that with the lowest key.
  ///
  /// - Parameter token: the token that needs room, not below the latest one recorded.
  public func score(of key: Int, at token: Int) -> Double {
    switch kind {
    case .lru: return useOrder[key]
    // The order of uses stays below one count for 2^40 uses.
    case .lfu: return useCounts[key] + useOrder[key] * 0x1p-40
    case .decayed: return share(of: key, at: token)
    case .nextUse:
      var chance = chance(of: key, at: token)
      if isOfLastVisit(key, at: token) { chance += repeats.rate * (1 - chance) }
      return chance / (1 - chance + chance * tokensUntilVisit(of: key, at: token))
    }
  }

  /// Seeds the policy with an earlier run's ``hotness``, before the first use is recorded.
  ///
  /// What was hot counts as half of a long history.
  public mutating func seed(_ hotness: [Float]) {
    precondition(hotness.count == weightedUses.count, "the hotness of another model")
    precondition(tokens == nil, "a policy is seeded before it is used")
    seedWeight = Self.fullWeight / 2
    for key in hotness.indices {
      let value = Double(hotness[key].isFinite ? min(max(hotness[key], 0), 1) : 0)
      weightedUses[key] = value * seedWeight
      useCounts[key] = value * seedWeight
      useOrder[key] = value * 0.5
    }
  }

  /// Per key, the share of the last tokens that used it, 0...1: what is remembered between runs.
  public var hotness: [Float] {
    let token = tokens?.latest ?? 0
    return weightedUses.indices.map { Float(min(1, share(of: $0, at: token, prior: 0))) }
  }

  /// The share of a sweep's rows that will probably use a bundle, recent sweeps weighing more.
  ///
  /// - Parameter assumed: the share where nothing is known.
  public func shareOfRows(using key: Int, at token: Int, assuming assumed: Double) -> Double {
    share(of: key, at: token, assuming: assumed)
  }

  // MARK: Details

  /// Makes `token` the latest one; returns its number, or the latest one's where that is higher.
  private mutating func begin(_ token: Int) -> Int {
    guard let known = tokens else {
      tokens = (token, token, rowCount)
      return token
    }
    guard token > known.latest else { return known.latest }
    // Of more rows or fewer, others are chosen again.
    repeats.beginToken(isNeighbour: token == known.latest + 1 && rowCount == known.rowCount)
    tokens = (known.first, token, rowCount)
    position = -1
    return token
  }

  /// The highest key that `token` has used; −1 before.
  private func position(at token: Int) -> Int { tokens?.latest == token ? position : -1 }

  /// Whether the last visit of the bundle's layer used it.
  private func isOfLastVisit(_ key: Int, at token: Int) -> Bool {
    let last = lastToken[key]
    guard last != token else { return true }
    // In the token before, and this token has not come to the layer.
    return last == token - 1 && key > position(at: token)
  }

  /// The part of a token's way that lies before the next visit of the bundle's layer, above 0 and at
  /// most 1.
  private func tokensUntilVisit(of key: Int, at token: Int) -> Double {
    let distance = key - position(at: token)
    let count = weightedUses.count
    return Double(distance > 0 ? distance : distance + count) / Double(count)
  }

  /// The chance that a sweep of ``rowCount`` tokens uses the bundle.
  private func chance(of key: Int, at token: Int) -> Double {
    let share = share(of: key, at: token)
    return rowCount == 1 ? share : 1 - CanonicalMath.power(1 - share, rowCount)
  }

  /// The share of tokens that use the bundle, recent ones weighing more.
  ///
  /// - Parameters:
  ///   - prior: tokens, as sweeps, whose share is `assumed`; nil = the usual ones.
  private func share(
    of key: Int, at token: Int, prior: Double? = nil, assuming assumed: Double = 0
  ) -> Double {
    let prior = prior ?? Self.priorWeight / Double(rowCount)
    let past = weight(since: Self.never, at: token)
    let history = (1 - past) * Self.fullWeight + seedWeight * past + prior
    guard history > 0 else { return 0 }
    let used = weightedUses[key] * weight(since: lastToken[key], at: token)
    return (used + prior * assumed) / history
  }

  /// What ``weightedUses`` as of token `last` (or of the time before the first) is worth at `token`.
  private func weight(since last: Int, at token: Int) -> Double {
    guard last == Self.never else { return power(token - last) }
    guard let first = tokens?.first else { return 1 }
    return power(token - first + 1)
  }

  /// ``decay`` to the power of `count`.
  private func power(_ count: Int) -> Double {
    guard count > 0 else { return 1 }
    let halvings = count / Self.halfLife
    guard halvings < 1000 else { return 0 }
    return Double(sign: .plus, exponent: -halvings, significand: fractions[count % Self.halfLife])
  }
}

/// How often a bundle that one token used is used by the next one, beyond what its chance explains.
private struct RepeatRate {
  /// The rate, 0...1.
  private(set) var rate = 0.0
  /// Pairs of neighbouring tokens that the rate was measured on, up to ``memory``.
  private var pairCount = 0.0
  private var uses = 0.0
  private var expected = 0.0
  private var repeated = 0.0
  /// ``uses`` and ``expected`` of the token before; nil if that is not the neighbour.
  private var before: (uses: Double, expected: Double)?

  /// Pairs that the rate is a running mean of.
  private static let memory = 32.0

  mutating func recordUse(chance: Double, isRepeat: Bool) {
    uses += 1
    expected += chance
    if isRepeat { repeated += 1 }
  }

  /// Counts what the latest token repeated of the one before.
  mutating func beginToken(isNeighbour: Bool) {
    if let before, before.uses - before.expected > 0 {
      let excess = (repeated - before.expected) / (before.uses - before.expected)
      pairCount = min(pairCount + 1, Self.memory)
      rate = min(max(rate + (excess - rate) / pairCount, 0), 1)
    }
    before = isNeighbour ? (uses, expected) : nil
    (uses, expected, repeated) = (0, 0, 0)
  }
}
