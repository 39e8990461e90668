import KVCache
import Kernels
import TensorBasics
import Testing

/// What stays in memory fits it, whatever the shape and the budget.
@Suite struct KeyValuePlanTests {
  private func shape(using generator: inout SeededGenerator) -> KeyValueShape {
    let layerCount = Int.random(in: 1...9, using: &generator)
    let window = Int.random(in: 1...900, using: &generator)
    return KeyValueShape(
      layerCount: layerCount, keyValueHeadCount: Int.random(in: 1...4, using: &generator),
      headDim: 16 * Int.random(in: 1...8, using: &generator),
      contextLength: Int.random(in: 1...9000, using: &generator),
      type: KeyValueType.allCases.randomElement(using: &generator) ?? .f16,
      windows: (0..<layerCount).map { _ in Bool.random(using: &generator) ? window : nil })
  }

  @Test func `Pages that stay and pages being filled fit the budget`() throws {
    for seed in UInt64(0)..<300 {
      var generator = SeededGenerator(seed: seed)
      let shape = shape(using: &generator)
      let chunkLength = Int.random(in: 1...600, using: &generator)
      let least = KeyValuePlan.minimumByteCount(shape, chunkLength: chunkLength)
      #expect(
        KeyValuePlan(shape, budgetByteCount: least - 1, chunkLength: chunkLength) == nil)
      let budget = least + Int.random(in: 0...(least * 4), using: &generator)
      let plan = try #require(
        KeyValuePlan(shape, budgetByteCount: budget, chunkLength: chunkLength), "seed \(seed)")
      #expect(plan.byteCount <= budget, "seed \(seed)")
      let longest = KeyValuePlan.longestChunk(2000, shape, budgetByteCount: budget)
      if budget >= KeyValuePlan.minimumByteCount(shape, chunkLength: 1) {
        #expect(
          KeyValuePlan(shape, budgetByteCount: budget, chunkLength: longest) != nil,
          "seed \(seed)")
      }
      // Complete pages that the next token sees, at any length of the context.
      let position = Int.random(in: 0..<shape.contextLength, using: &generator)
      var (kept, visible) = (0, 0)
      for layer in 0..<shape.layerCount {
        let first = shape.windows[layer].map { max(0, position - $0 + 1) / 128 } ?? 0
        for pageGroup in first..<max(first, position / 128) {
          visible += 1
          if plan.keeps(layer: layer, pageGroup: pageGroup) { kept += 1 }
        }
      }
      #expect(plan.hasTier || kept == visible, "seed \(seed)")
      #expect(
        kept + (plan.hasTier && !shape.quantises ? shape.layerCount : 0) < plan.slotCount + 1,
        "seed \(seed)")
    }
  }
}
