import Kernels
import ModelFormat
import TensorBasics
import TestSupport
import Testing
import WeightLoader

/// The reference's experts against what follows from their definition.
@Suite struct NaiveExpertTests {
  /// A one-layer decoder over plain numbers, its tensors drawn from a seed.
  private func decoder(
    _ experts: ExpertConfiguration?, feedForwardLength: Int = 6,
    _ change: (inout [String: [Double]]) -> Void = { _ in }
  ) -> NaiveDecoder {
    let configuration = DecoderConfiguration(
      architecture: "llama", layerCount: 1, hiddenSize: 8,
      feedForwardLength: feedForwardLength, queryHeadCount: 2, keyValueHeadCount: 1, headDim: 4,
      vocabularyCount: 5, contextLength: 8, normEpsilon: 1e-5, ropePairing: .halves,
      ropeDimensionCount: 4, ropeBase: 10000, tiesOutput: true, experts: experts)
    var generator = SeededGenerator(seed: 5)
    var weights: [String: [Double]] = [:]
    for expected in configuration.expectedTensors where !expected.isOptional {
      weights[expected.name] = (0..<expected.rowCount * expected.columnCount).map { _ in
        2 * generator.nextUnit() - 1
      }
    }
    change(&weights)
    return NaiveDecoder(configuration: configuration) { [weights] in weights[$0] }
  }

  private func experts(
    used: Int = 2, shared: Int? = nil, gated: Bool = false, normalised: Bool = true
  ) -> ExpertConfiguration {
    ExpertConfiguration(
      expertCount: 4, expertsPerToken: used, feedForwardLength: 6,
      sharedFeedForwardLength: shared, gatesSharedExpert: gated, normalisesWeights: normalised)
  }

  private func difference(_ first: NaiveDecoder, _ second: NaiveDecoder) -> Double {
    let tokens: [Int32] = [1, 4, 0, 2]
    return zip(first.logits(tokens).joined(), second.logits(tokens).joined())
      .map { ($0 - $1).magnitude }.max()!
  }

  /// All experts, or all and the shared one, with the matrices of a dense FFN.
  private func copy(_ dense: NaiveDecoder, suffix: String, count: Int) -> [String: [Double]] {
    var weights: [String: [Double]] = [:]
    for name in ["gate", "up", "down"] {
      let matrix = dense.tensor("blk.0.ffn_\(name).weight")!
      weights["blk.0.ffn_\(name)\(suffix).weight"] = (0..<count).flatMap { _ in matrix }
    }
    return weights
  }

  private func keepAttention(_ dense: NaiveDecoder, _ weights: inout [String: [Double]]) {
    for name in weights.keys { if let values = dense.tensor(name) { weights[name] = values } }
  }

  @Test func `Equal experts whose weights sum to one are a dense FFN`() {
    let dense = decoder(nil)
    let mixture = decoder(experts()) {
      keepAttention(dense, &$0)
      $0.merge(copy(dense, suffix: "_exps", count: 4)) { $1 }
    }
    #expect(difference(dense, mixture) < 1e-9)
    let all = decoder(experts(used: 4, normalised: false)) {
      keepAttention(dense, &$0)
      $0.merge(copy(dense, suffix: "_exps", count: 4)) { $1 }
    }
    #expect(difference(dense, all) < 1e-9)
    let some = decoder(experts(normalised: false)) {
      keepAttention(dense, &$0)
      $0.merge(copy(dense, suffix: "_exps", count: 4)) { $1 }
    }
    #expect(difference(dense, some) > 1e-3)
  }

  @Test func `Silent experts leave the shared one, half of it under a gate of zero`() {
    for gated in [false, true] {
      let dense = decoder(nil) {
        if gated { $0["blk.0.ffn_down.weight"] = $0["blk.0.ffn_down.weight"]!.map { $0 / 2 } }
      }
      let whole = decoder(nil)
      let mixture = decoder(experts(shared: 6, gated: gated)) {
        keepAttention(whole, &$0)
        $0.merge(copy(whole, suffix: "_shexp", count: 1)) { $1 }
        $0["blk.0.ffn_down_exps.weight"] = $0["blk.0.ffn_down_exps.weight"]!.map { _ in 0 }
        if gated { $0["blk.0.ffn_gate_inp_shexp.weight"] = [Double](repeating: 0, count: 8) }
      }
      #expect(difference(dense, mixture) < 1e-9, "gated \(gated)")
    }
  }

  @Test func `The best experts run, the lower number first among equals`() {
    let configuration = experts(used: 3)
    let router = [0.0, 2, 2, 1].flatMap { [$0] + [Double](repeating: 0, count: 7) }
    let decoder = decoder(configuration) { $0["blk.0.ffn_gate_inp.weight"] = router }
    let x = [1.0] + [Double](repeating: 0, count: 7)
    let chosen = decoder.route(configuration, "blk.0.", x)
    #expect(chosen.map(\.expert) == [1, 2, 3])
    #expect((chosen.reduce(0) { $0 + $1.weight } - 1).magnitude < 1e-12)
    #expect(decoder.route(configuration, "blk.0.", x.map { -$0 }).map(\.expert) == [0, 3, 1])
    let equal = decoder.route(configuration, "blk.0.", x.map { _ in 0 })
    #expect(equal.map(\.expert) == [0, 1, 2])
    var plain = configuration
    plain.normalisesWeights = false
    #expect(decoder.route(plain, "blk.0.", x.map { _ in 0 }).map(\.weight) == [0.25, 0.25, 0.25])
  }
}
