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
  @Test(arguments: ["llama", "qwen2moe"])
  func `A budget for fewer sequences says for how many it is enough`(family: String) throws {
    let file = TemporaryFile(TinyFamilies.model(family).gguf(seed: 1).bytes())
    defer { extendLifetime(file) }
    let source = try ModelSource.open(file.path)
    let configuration = try #require(source.description.configuration)
    var request = MemoryPlan.Request(
      budgetByteCount: 1, contextLength: 300, promptLength: 200, threadCount: 2)
    request.assumedProcessByteCount = 0
    func error(_ count: Int) -> RuntimeError? {
      request.sequenceCount = count
      do throws(RuntimeError) {
        _ = try MemoryPlan.make(request, source: source, configuration: configuration)
        return nil
      } catch { return error }
    }
    func fitting(_ count: Int) -> Int? {
      guard case .budgetTooSmall(_, _, let fitting)? = error(count) else { return nil }
      return fitting
    }
    #expect(error(1) != nil && fitting(1) == nil && fitting(64) == nil)
    for count in [1, 5, 17] {
      request.budgetByteCount = 1
      request.budgetByteCount = try #require(error(count)?.smallestBudget)
      let found = try #require(fitting(64))
      #expect(found >= count && error(found) == nil && fitting(found + 1) == found)
      #expect(error(64)?.description.contains("\(found) at a time would fit") == true)
    }
  }

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
    if case .budgetTooSmall(_, let minimum, _) = self { minimum.bytes } else { nil }
  }
}
