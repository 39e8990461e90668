import BlockIO
import Glibc
import KVCache
import Kernels
import ModelFormat
import Runtime
import TensorBasics
import TestSupport
import Testing
import WeightLoader

/// Keys and values that cannot be read or written end their own sequence, and no other.
@Suite struct BatchFaultTests {
  private static let sequenceCount = 3
  private static let promptLength = 640
  private static let decoding: [Int32] = [5, 6, 7, 8]

  private static func prompt(_ sequence: Int) -> [Int32] {
    (0..<promptLength).map { Int32(($0 * (37 + 2 * sequence)) % 256 + 1) }
  }

  /// Three sequences whose keys and values lie in files for the most part; their weights are in memory.
  private struct Run {
    let core: EngineCore
    var caches: [KeyValueStore] = []
    var position = BatchFaultTests.promptLength
    private let folder = TemporaryFolder()

    init(_ backend: StorageBackend) throws {
      var tiny = TinyModel()
      tiny.contextLength = 2048
      let source = try ModelSource.open(
        folder.write("model", tiny.gguf(seed: 1).bytes()), backend: backend,
        records: WeightRecords(folder: nil))
      let configuration = try #require(source.description.configuration)
      var request = MemoryPlan.Request(
        budgetByteCount: 1 << 30, contextLength: 700, promptLength: BatchFaultTests.promptLength,
        threadCount: 2, maximumChunkLength: 128)
      request.assumedProcessByteCount = 0
      request.sequenceCount = BatchFaultTests.sequenceCount
      request.keyValues.backend = backend
      request.keyValues.folder = folder.path
      request.keyValues.budgetByteCount =
        KeyValuePlan.minimumByteCount(
          KeyValueShape(configuration, contextLength: 700),
          sequenceCount: BatchFaultTests.sequenceCount, chunkLength: 128)
      core = try EngineCore(source, configuration, request)
      try #require(core.plan.keyValues.hasTier)
      for sequence in 0..<BatchFaultTests.sequenceCount {
        let cache = try core.openSequence()
        caches.append(cache)
        let prompt = BatchFaultTests.prompt(sequence)
        for first in stride(from: 0, to: prompt.count, by: core.plan.chunkLength) {
          let slice = prompt[first..<min(first + core.plan.chunkLength, prompt.count)]
          core.batch.removeAll()
          slice.withUnsafeBufferPointer {
            core.batch.append(
              $0, at: first, .read, promptEnd: prompt.count, in: cache, logitCount: 0)
          }
          try core.step(continues: true) { _, _ in }
        }
      }
      for _ in 0..<4 { _ = try decode(1) }
    }

    /// Decodes a token of every sequence that is alive: the bits of its logits, nil where it failed.
    mutating func decode(_ token: Int32) throws -> [[UInt32]?] {
      core.batch.removeAll()
      for cache in caches {
        withUnsafePointer(to: token) {
          core.batch.append(
            UnsafeBufferPointer(start: $0, count: 1), at: position, .answer, in: cache,
            logitCount: 1)
        }
      }
      position += 1
      var rows: [[UInt32]] = []
      try core.step(continues: true) { _, logits in
        let width = logits.count / BatchFaultTests.sequenceCount
        for row in 0..<BatchFaultTests.sequenceCount {
          rows.append(logits[row * width..<(row + 1) * width].map(\.bitPattern))
        }
      }
      return zip(rows, core.batch.spans).map { $1.isAlive ? $0 : nil }
    }
  }

  @Test(arguments: ["uring", "pread"])
  func `A read that fails ends the sequence whose keys and values it was to bring`(
    backend: String
  ) async {
    await #expect(processExitsWith: .success) { [backend] in
      let backend = try #require(StorageBackend(rawValue: backend))
      var healthy = try Run(backend)
      let expected = try Self.decoding.map { try healthy.decode($0) }
      #expect(expected.allSatisfy { $0.allSatisfy { $0 != nil } })
      var failureCount = 0
      for index in 0..<12 {
        var run = try Run(backend)
        FaultPlan.begin(backend == .uring ? .completeRead : .read, index..<index + 1, errno: EIO)
        let found = try run.decode(Self.decoding[0])
        let wasMet = FaultPlan.end().refusalCount > 0
        let failed = found.indices.filter { found[$0] == nil }
        failureCount += failed.count
        #expect(failed.count <= 1 && (wasMet || failed.isEmpty), "read \(index)")
        for sequence in found.indices where found[sequence] != nil {
          #expect(found[sequence] == expected[0][sequence], "read \(index), sequence \(sequence)")
        }
        guard let failed = failed.first else { continue }
        guard case .keyValues(.io)? = run.core.batch.spans[failed].failure else {
          Issue.record("\(String(describing: run.core.batch.spans[failed].failure))")
          continue
        }
        // The others go on, and the one that failed leaves a place for another.
        run.core.close(run.caches.remove(at: failed))
        let next = try run.core.openSequence()
        #expect(next.prefixPositionCount == 0)
        run.core.close(next)
      }
      #expect(failureCount > 0, "no fault met a sequence")
    }
  }
}
