import KVCache
import Kernels
import ModelFormat
import Runtime
import TensorBasics
import TestSupport
import Testing
import WeightLoader

/// How budgets are divided.
@Suite struct MemoryPlanTests {
  @Test(arguments: TinyFamilies.names + TinyFamilies.expertNames, [KeyValueType.f16, .q4])
  func `Every budget from the smallest on works, whatever is asked for keys and values`(
    family: String, type: KeyValueType
  ) throws {
    let file = TemporaryFile(TinyFamilies.model(family).gguf(seed: 1).bytes())
    defer { extendLifetime(file) }
    let source = try ModelSource.open(file.path)
    let configuration = try #require(source.description.configuration)
    var generator = SeededGenerator(seed: 5)
    for length in [100, 2000, 9000] {
      var request = MemoryPlan.Request(
        budgetByteCount: 1, contextLength: length + 20, promptLength: length, threadCount: 2)
      request.assumedProcessByteCount = 0
      request.keyValues.type = type
      func plan() throws(RuntimeError) -> MemoryPlan {
        try MemoryPlan.make(request, source: source, configuration: configuration)
      }
      let smallest = try #require(
        #expect(throws: RuntimeError.self) { try plan() }?.smallestBudget)
      for bound in [nil, 1 << 20, 8 << 20, 1 << 40] as [Int?] {
        request.keyValues.budgetByteCount = bound
        for spare in [0, 1, 4096]
          + (0..<6).map({ _ in Int.random(in: 0...(12 << 20), using: &generator) })
        {
          request.budgetByteCount = smallest + spare
          do throws(RuntimeError) {
            let plan = try plan()
            #expect(plan.keyValues.byteCount <= bound ?? .max)
          } catch {
            guard case .keyValueBudgetTooSmall(let bound, let needed) = error, bound < needed else {
              Issue.record("\(length) positions, \(spare) B more, \(bound ?? -1): \(error)")
              continue
            }
          }
        }
      }
    }
  }
}

extension RuntimeError {
  fileprivate var smallestBudget: Int? {
    if case .budgetTooSmall(_, let minimum) = self { minimum.bytes } else { nil }
  }
}
