/// Replays traces through a cache of equal slots that fetches as the runtime does.
///
/// Every bundle is fetched on demand into a slot; those of the current layer stay until it is done.
public enum CacheSimulation {
  /// The result of a replay, without the tokens of the warm-up.
  public struct Result: Sendable, Equatable {
    /// Uses of bundles that were in a slot.
    public var hitCount = 0
    /// Uses of bundles that had to be read.
    public var missCount = 0

    public init(hitCount: Int = 0, missCount: Int = 0) {
      self.hitCount = hitCount
      self.missCount = missCount
    }

    /// Hits ÷ uses; 0 if nothing was used.
    public var hitRate: Double {
      hitCount == 0 ? 0 : Double(hitCount) / Double(hitCount + missCount)
    }
  }

  /// Replays `trace` with `policy`, which may have been seeded; O(misses × slots).
  ///
  /// - Parameters:
  ///   - slotCount: bundles that the cache holds, at least those of one layer and token.
  ///   - warmupTokenCount: first tokens that are replayed but not counted.
  public static func replay(
    _ trace: ExpertTrace, slotCount: Int, warmupTokenCount: Int = 0, policy: BundlePolicy
  ) -> Result {
    var policy = policy
    return replay(trace, slotCount, warmupTokenCount, into: &policy) { policy, step in
      for index in step.uses { policy.recordUse(of: trace.key(ofUse: index), at: step.token) }
    } score: { policy, key, token in
      policy.score(of: key, at: token)
    }
  }

  /// Replays `trace` with a new policy.
  public static func replay(
    _ trace: ExpertTrace, slotCount: Int, warmupTokenCount: Int = 0, kind: BundlePolicyKind
  ) -> Result {
    replay(
      trace, slotCount: slotCount, warmupTokenCount: warmupTokenCount,
      policy: BundlePolicy(kind, bundleCount: trace.bundleCount))
  }

  /// The most hits that any policy reaches on the whole trace: what is needed furthest in the future
  /// is evicted (Belady, IBM Systems Journal 5(2), 1966).
  ///
  /// The parameters are those of ``replay(_:slotCount:warmupTokenCount:policy:)``. It is the optimum of
  /// warm-up and counted tokens together.
  public static func clairvoyant(
    _ trace: ExpertTrace, slotCount: Int, warmupTokenCount: Int = 0
  ) -> Result {
    let nextUses = nextUses(trace)
    // Per key, the use after the present one, negated: the furthest is the lowest.
    var scores = [Double](repeating: 0, count: trace.bundleCount)
    return replay(trace, slotCount, warmupTokenCount, into: &scores) { scores, step in
      for index in step.uses { scores[trace.key(ofUse: index)] = -Double(nextUses[index]) }
    } score: { scores, key, _ in
      scores[key]
    }
  }

  /// Per use of the trace, the visit (token × layers + layer) that uses the same bundle next.
  private static func nextUses(_ trace: ExpertTrace) -> [Int] {
    var visitOfKey = [Int](repeating: .max, count: trace.bundleCount)
    var nextUses = [Int](repeating: .max, count: trace.useCount)
    for index in stride(from: trace.useCount - 1, through: 0, by: -1) {
      let key = trace.key(ofUse: index)
      nextUses[index] = visitOfKey[key]
      visitOfKey[key] = index / trace.usedCount
    }
    return nextUses
  }

  /// One layer's choice for one token: a range of uses of the trace.
  private struct Step {
    let token: Int
    let uses: Range<Int>
  }

  private static func replay<State>(
    _ trace: ExpertTrace, _ slotCount: Int, _ warmupTokenCount: Int, into state: inout State,
    record: (inout State, Step) -> Void, score: (State, Int, Int) -> Double
  ) -> Result {
    precondition(
      slotCount >= trace.usedCount, "\(slotCount) slots for \(trace.usedCount) bundles at a time")
    var result = Result()
    var slots = Slots(count: min(slotCount, trace.bundleCount), bundleCount: trace.bundleCount)
    for visit in 0..<trace.tokenCount * trace.layerCount {
      let first = visit * trace.usedCount
      let step = Step(
        token: visit / trace.layerCount, uses: first..<first + trace.usedCount)
      record(&state, step)
      for index in step.uses { slots.pinnedBy[trace.key(ofUse: index)] = visit }
      for index in step.uses {
        let key = trace.key(ofUse: index)
        let isHit = slots.slotOfKey[key] >= 0
        if !isHit {
          slots.place(key, slots.free() ?? slots.victim(of: visit) { score(state, $0, step.token) })
        }
        guard step.token >= warmupTokenCount else { continue }
        if isHit { result.hitCount += 1 } else { result.missCount += 1 }
      }
    }
    return result
  }

  /// Which bundle is where.
  private struct Slots {
    /// Keys in slots, as many as were ever filled.
    private var keys: [Int] = []
    private let count: Int
    /// Per key, its slot; −1 without.
    private(set) var slotOfKey: [Int]
    /// Per key, the last visit that used it.
    var pinnedBy: [Int]

    init(count: Int, bundleCount: Int) {
      self.count = count
      keys.reserveCapacity(count)
      slotOfKey = Array(repeating: -1, count: bundleCount)
      pinnedBy = Array(repeating: -1, count: bundleCount)
    }

    /// A slot that was never filled.
    func free() -> Int? { keys.count < count ? keys.count : nil }

    /// The slot whose bundle has the lowest score, of equals the lowest key, and is not in use.
    func victim(of visit: Int, score: (Int) -> Double) -> Int {
      var best: (score: Double, key: Int)?
      for key in keys where pinnedBy[key] != visit {
        let value = score(key)
        if let best, (best.score, best.key) < (value, key) { continue }
        best = (value, key)
      }
      guard let best else { preconditionFailure("every slot is in use") }
      return slotOfKey[best.key]
    }

    mutating func place(_ key: Int, _ slot: Int) {
      if slot == keys.count {
        keys.append(key)
      } else {
        slotOfKey[keys[slot]] = -1
        keys[slot] = key
      }
      slotOfKey[key] = slot
    }
  }
}
