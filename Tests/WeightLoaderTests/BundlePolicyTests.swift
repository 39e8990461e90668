import TensorBasics
import Testing
import WeightLoader

@Suite struct BundlePolicyTests {
  /// Uses by 200 tokens of a few of 40 bundles, ascending within a token.
  private func uses(seed: UInt64) -> [[Int]] {
    var generator = SeededGenerator(seed: seed)
    return (0..<200).map { _ in
      (0..<40).filter { key in
        Int.random(in: 0...(key + 3), using: &generator) == 0
      }
    }
  }

  /// The keys in the order in which they leave.
  private func order(_ policy: BundlePolicy, at token: Int) -> [Int] {
    (0..<40).sorted { one, other in
      (policy.score(of: one, at: token), one) < (policy.score(of: other, at: token), other)
    }
  }

  @Test func lruIsTheOrderOfLastUses() {
    for seed in UInt64(1)...5 {
      var policy = BundlePolicy(.lru, bundleCount: 40)
      var list = Array(0..<40)
      for (token, keys) in uses(seed: seed).enumerated() {
        for key in keys {
          policy.recordUse(of: key, at: token)
          list.removeAll { $0 == key }
          list.append(key)
        }
        #expect(order(policy, at: token) == list, "seed \(seed), token \(token)")
      }
    }
  }

  @Test func lfuIsTheOrderOfCountsAndThenOfLastUses() {
    for seed in UInt64(1)...5 {
      var policy = BundlePolicy(.lfu, bundleCount: 40)
      var counts = [Int](repeating: 0, count: 40)
      var last = [Int](repeating: -1, count: 40)
      var number = 0
      for (token, keys) in uses(seed: seed).enumerated() {
        for key in keys {
          // A second use by the same token is the same use.
          policy.recordUse(of: key, at: token)
          policy.recordUse(of: key, at: token)
          counts[key] += 1
          last[key] = number
          number += 1
        }
        let expected = (0..<40).sorted { one, other in
          (counts[one], last[one], one) < (counts[other], last[other], other)
        }
        #expect(order(policy, at: token) == expected, "seed \(seed), token \(token)")
      }
    }
  }

  @Test func decayedIsTheOrderOfSumsThatHalve() {
    for seed in UInt64(1)...5 {
      var policy = BundlePolicy(.decayed, bundleCount: 40)
      var sums = [Double](repeating: 0, count: 40)
      // The 64th root of ½: what a token before counts.
      let decay = 0.989_228_013_193_975_5
      for (token, keys) in uses(seed: seed).enumerated() {
        for key in sums.indices { sums[key] *= decay }
        for key in keys {
          policy.recordUse(of: key, at: token)
          sums[key] += 1
        }
        let order = order(policy, at: token)
        for (one, other) in zip(order, order.dropFirst()) {
          #expect(sums[one] <= sums[other] * (1 + 1e-9), "seed \(seed), token \(token)")
        }
      }
    }
  }

  @Test func scoresFallWithTimeAndNothingTraps() {
    var policy = BundlePolicy(.nextUse, bundleCount: 4)
    policy.recordUse(of: 1, at: 1_000_000)
    var before = Double.infinity
    for token in [1_000_001, 1_000_002, 1_000_065, 1_000_900, 1_100_000] {
      let score = policy.score(of: 1, at: token)
      #expect(score < before && score >= 0)
      before = score
    }
    #expect(policy.score(of: 1, at: 1 << 40) == 0)
    // Numbers that begin again count on.
    policy.recordUse(of: 2, at: 0)
    #expect(policy.score(of: 2, at: 1_000_000) > policy.score(of: 3, at: 1_000_000))
  }

  /// A router of two layers of 8 that keeps its choice with `probability`, else draws one of 6.
  private func trained(
    repeatProbability probability: Double
  ) -> (policy: BundlePolicy, choice: Int) {
    var policy = BundlePolicy(.nextUse, bundleCount: 16)
    var generator = SeededGenerator(seed: 7)
    var choice = 0
    for token in 0..<600 {
      if generator.nextUnit() >= probability {
        choice = Int.random(in: 0..<6, using: &generator)
      }
      for layer in 0..<2 { policy.recordUse(of: layer * 8 + choice, at: token) }
    }
    return (policy, choice)
  }

  @Test(arguments: [(0.0, 0.5...1.7), (0.5, 2...8), (0.9, 4...100)])
  func repeatsAreLearnedAndFadeWhenTheirVisitPasses(
    probability: Double, ratio: ClosedRange<Double>
  ) {
    var (policy, choice) = trained(repeatProbability: probability)
    let others = (0..<6).filter { $0 != choice }.map { policy.score(of: $0, at: 599) }
    let typical = others.reduce(0, +) / 5
    #expect(ratio.contains(policy.score(of: choice, at: 599) / typical))
    // Layer 0 comes to the next token and chooses something else; layer 1 is still to come.
    policy.recordUse(of: 7, at: 600)
    guard probability > 0.8 else { return }
    #expect(policy.score(of: 8 + choice, at: 600) > 4 * policy.score(of: choice, at: 600))
  }

  @Test func whatComesSoonerStaysWhereAllElseIsEqual() {
    var policy = BundlePolicy(.nextUse, bundleCount: 40)
    for token in 0..<50 { for layer in 0..<4 { policy.recordUse(of: layer * 10 + 3, at: token) } }
    for layer in 0..<2 { policy.recordUse(of: layer * 10 + 3, at: 50) }
    let order = [3, 13, 23, 33].sorted {
      policy.score(of: $0, at: 50) > policy.score(of: $1, at: 50)
    }
    #expect(order == [23, 33, 3, 13])
  }

  @Test(arguments: BundlePolicyKind.allCases) func hotnessSeedsTheNextRun(kind: BundlePolicyKind) {
    var policy = BundlePolicy(kind, bundleCount: 40)
    for (token, keys) in uses(seed: 9).enumerated() {
      for key in keys { policy.recordUse(of: key, at: token) }
    }
    let hotness = policy.hotness
    #expect(hotness.allSatisfy { (0...1).contains($0) })
    #expect(hotness[0] > hotness[30])
    var next = BundlePolicy(kind, bundleCount: 40)
    next.seed(hotness)
    let byHotness = (0..<40).sorted { (hotness[$0], $0) < (hotness[$1], $1) }
    let order = self.order(next, at: 0)
    for (one, other) in zip(order, order.dropFirst()) {
      // Where a layer's next visit is far away, that counts too.
      let slack = kind == .nextUse ? 1 - hotness[other] : 1
      #expect(hotness[one] * slack <= hotness[other])
    }
    for (one, other) in zip(next.hotness, hotness) { #expect(abs(one - other) < 1e-6) }
    // What is used outlives what was: at once by recency, in time by frequency.
    let coldest = byHotness[0]
    for token in 0..<300 { next.recordUse(of: coldest, at: token) }
    #expect(self.order(next, at: 300).last == coldest)
  }

  @Test func `A sweep of many rows counts each use as its share of them`() {
    var policy = BundlePolicy(.nextUse, bundleCount: 4)
    policy.rowCount = 16
    for sweep in 0..<100 {
      for (key, users) in [(0, 16), (1, 8), (2, 1)] {
        policy.recordUse(of: key, at: sweep, by: users)
      }
    }
    for (found, share) in zip(policy.hotness, [1, 0.5, 0.0625, 0] as [Float]) {
      #expect(abs(found - share) < 1e-4)
    }
    #expect(abs(policy.shareOfRows(using: 1, at: 99, assuming: 0.1) - 0.5) < 0.01)
    // Sixteen rows use either, so only the way to the next visit counts, which is 2 and 3 keys of 4.
    #expect(abs(policy.score(of: 0, at: 99) - 2) < 0.01)
    #expect(abs(policy.score(of: 1, at: 99) - 4.0 / 3) < 0.01)
    policy.rowCount = 1
    let scores = (0..<4).map { policy.score(of: $0, at: 105) }
    #expect(scores[0] > 1.5 * scores[1] && scores[1] > 4 * scores[2] && scores[2] > scores[3])
    // Where nothing is known, what is assumed holds, for one row more than for many.
    let empty = BundlePolicy(.nextUse, bundleCount: 1)
    #expect(empty.shareOfRows(using: 0, at: 0, assuming: 0.3) == 0.3)
  }

  /// A cache below the union of a sweep hits nothing where it keeps what was used last.
  @Test func `Of sweeps that use everything the layers that come next stay`() {
    var policy = BundlePolicy(.nextUse, bundleCount: 40)
    policy.rowCount = 64
    for sweep in 0..<20 { for key in 0..<40 { policy.recordUse(of: key, at: sweep, by: 40) } }
    for key in 0..<20 { policy.recordUse(of: key, at: 20, by: 40) }
    let order = order(policy, at: 20)
    #expect(order == Array((0..<20).reversed()) + Array((20..<40).reversed()))
  }

  @Test func hotnessFromElsewhereDoesNotSpoilScores() {
    var policy = BundlePolicy(.nextUse, bundleCount: 4)
    policy.seed([.nan, .infinity, -3, 1e30])
    for key in 0..<4 { #expect((0...1).contains(policy.score(of: key, at: 0))) }
  }
}
