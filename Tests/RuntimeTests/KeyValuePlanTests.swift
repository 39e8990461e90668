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
      let count = Int.random(in: 1...9, using: &generator)
      let least = KeyValuePlan.minimumByteCount(
        shape, sequenceCount: count, chunkLength: chunkLength)
      #expect(
        KeyValuePlan(
          shape, sequenceCount: count, budgetByteCount: least - 1, chunkLength: chunkLength) == nil)
      let budget = least + Int.random(in: 0...(least * 4), using: &generator)
      let plan = try #require(
        KeyValuePlan(
          shape, sequenceCount: count, budgetByteCount: budget, chunkLength: chunkLength),
        "seed \(seed)")
      #expect(plan.byteCount <= budget, "seed \(seed)")
      let longest = KeyValuePlan.longestChunk(
        2000, shape, sequenceCount: count, budgetByteCount: budget)
      if budget >= KeyValuePlan.minimumByteCount(shape, sequenceCount: count, chunkLength: 1) {
        #expect(
          KeyValuePlan(
            shape, sequenceCount: count, budgetByteCount: budget, chunkLength: longest) != nil,
          "seed \(seed)")
      }
      #expect(
        plan.hasTier
          == (budget
            < KeyValuePlan.residentByteCount(
              shape, sequenceCount: count, chunkLength: chunkLength)),
        "seed \(seed)")
    }
  }
}
