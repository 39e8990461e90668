import TensorBasics
import Testing
import WeightLoader

@Suite struct CacheSimulationTests {
  private func trace(
    seed: UInt64, layers: Int = 4, experts: Int = 16, used: Int = 3, tokens: Int = 80,
    shiftInterval: Int? = nil
  ) -> ExpertTrace {
    ExpertTrace.synthetic(
      seed % 3 == 0 ? .uniform : .zipf(exponent: 1), repeatProbability: seed % 2 == 0 ? 0.3 : 0,
      layerCount: layers, expertCount: experts, usedCount: used, tokenCount: tokens,
      shiftInterval: shiftInterval, seed: seed)
  }

  @Test func withRoomForAllEachBundleIsMissedOnce() {
    for seed in UInt64(1)...6 {
      let trace = trace(seed: seed)
      var bundles: Set<Int> = []
      for token in 0..<trace.tokenCount {
        for layer in 0..<4 {
          for expert in trace[token, layer] { bundles.insert(layer * 16 + Int(expert)) }
        }
      }
      let best = CacheSimulation.clairvoyant(trace, slotCount: 64)
      #expect(best.missCount == bundles.count)
      #expect(best.hitCount + best.missCount == trace.useCount)
      for kind in BundlePolicyKind.allCases {
        for slotCount in [64, 1000] {
          #expect(CacheSimulation.replay(trace, slotCount: slotCount, kind: kind) == best)
        }
      }
    }
  }

  @Test func moreSlotsNeverHurtLRUNorTheOptimumWhichIsAboveAll() {
    for seed in UInt64(1)...12 {
      let trace = trace(seed: seed, shiftInterval: seed > 6 ? 30 : nil)
      var (lruBefore, bestBefore) = (0, 0)
      for slotCount in 3...64 {
        let best = CacheSimulation.clairvoyant(trace, slotCount: slotCount).hitCount
        for kind in BundlePolicyKind.allCases {
          let hits = CacheSimulation.replay(trace, slotCount: slotCount, kind: kind).hitCount
          #expect(hits <= best, "\(kind), \(slotCount) slots (seed \(seed))")
          guard kind == .lru else { continue }
          #expect(hits >= lruBefore, "\(slotCount) slots (seed \(seed))")
          lruBefore = hits
        }
        #expect(best >= bestBefore, "\(slotCount) slots (seed \(seed))")
        bestBefore = best
      }
    }
  }

  /// The fewest misses, by trying every content of the cache.
  private func fewestMisses(_ trace: ExpertTrace, slotCount: Int) -> Int {
    var missesOfContent: [Set<Int>: Int] = [[]: 0]
    for token in 0..<trace.tokenCount {
      for layer in 0..<trace.layerCount {
        let wanted = Set(trace[token, layer].map { layer * trace.expertCount + Int($0) })
        var next: [Set<Int>: Int] = [:]
        for (content, misses) in missesOfContent {
          let total = misses + wanted.subtracting(content).count
          // Every way to leave out as many of the others as must go.
          let others = content.subtracting(wanted).sorted()
          let excess = max(0, others.count + wanted.count - slotCount)
          for pattern in 0..<1 << others.count where pattern.nonzeroBitCount == excess {
            let kept = others.indices.filter { pattern >> $0 & 1 == 0 }.map { others[$0] }
            let after = wanted.union(kept)
            next[after] = min(next[after] ?? .max, total)
          }
        }
        missesOfContent = next
      }
    }
    return missesOfContent.values.min() ?? 0
  }

  @Test func theClairvoyantIsAsGoodAsTryingEverything() {
    for seed in UInt64(1)...30 {
      let trace = trace(seed: seed, layers: 2, experts: 4, used: 2, tokens: 10)
      for slotCount in 2...6 {
        #expect(
          CacheSimulation.clairvoyant(trace, slotCount: slotCount).missCount
            == fewestMisses(trace, slotCount: slotCount), "\(slotCount) slots (seed \(seed))")
      }
    }
  }

  @Test func warmUpIsReplayedAndNotCounted() {
    let trace = trace(seed: 4)
    let all = CacheSimulation.replay(trace, slotCount: 64, kind: .lru)
    let later = CacheSimulation.replay(trace, slotCount: 64, warmupTokenCount: 60, kind: .lru)
    #expect(later.hitCount + later.missCount == 20 * 4 * 3)
    #expect(later.missCount < all.missCount)
  }

  @Test func belowOneSweepLRUHitsNothingAndTheStandardPolicyDoes() {
    // Every token uses the same experts: a sweep of 12 bundles, over and over.
    var trace = ExpertTrace(layerCount: 4, expertCount: 16, usedCount: 3)
    for _ in 0..<50 * 4 { trace.append([1, 5, 9]) }
    #expect(CacheSimulation.replay(trace, slotCount: 9, kind: .lru).hitCount == 0)
    #expect(CacheSimulation.replay(trace, slotCount: 12, kind: .lru).missCount == 12)
    let best = CacheSimulation.clairvoyant(trace, slotCount: 9)
    #expect(best.hitRate > 0.6)
    #expect(
      CacheSimulation.replay(trace, slotCount: 9, kind: .nextUse).hitRate > 0.9 * best.hitRate)
  }

  /// What `docs/decisions/0009-expert-cache-policy.md` reports, on fewer tokens.
  @Test(arguments: [UInt64(11), 12, 13]) func thePolicyIsNearTheOptimum(seed: UInt64) {
    let trace = ExpertTrace.synthetic(
      .zipf(exponent: 1), repeatProbability: 0.3, layerCount: 24, expertCount: 128, usedCount: 8,
      tokenCount: 250, seed: seed)
    func rate(_ kind: BundlePolicyKind) -> Double {
      CacheSimulation.replay(trace, slotCount: 1000, warmupTokenCount: 100, kind: kind).hitRate
    }
    let best = CacheSimulation.clairvoyant(trace, slotCount: 1000, warmupTokenCount: 100).hitRate
    let ours = rate(.standard)
    #expect(ours / best >= 0.87)
    #expect(ours > rate(.lru) + 0.03)
    #expect(ours > rate(.lfu) + 0.03)
  }

  @Test func whatWasRememberedHelpsFromTheFirstToken() {
    let trace = ExpertTrace.synthetic(
      .zipf(exponent: 1), repeatProbability: 0.3, layerCount: 8, expertCount: 64, usedCount: 4,
      tokenCount: 500, seed: 5)
    var first = BundlePolicy(.nextUse, bundleCount: trace.bundleCount)
    var rest = ExpertTrace(layerCount: 8, expertCount: 64, usedCount: 4)
    for token in 0..<trace.tokenCount {
      for layer in 0..<8 {
        let choice = trace[token, layer].map { Int($0) }
        if token < 400 {
          for expert in choice { first.recordUse(of: layer * 64 + expert, at: token) }
        } else {
          rest.append(choice)
        }
      }
    }
    var seeded = BundlePolicy(.nextUse, bundleCount: trace.bundleCount)
    seeded.seed(first.hotness)
    let warm = CacheSimulation.replay(rest, slotCount: 120, policy: seeded)
    let cold = CacheSimulation.replay(rest, slotCount: 120, kind: .nextUse)
    #expect(warm.hitCount > cold.hitCount)
  }
}
