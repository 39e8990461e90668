import ArgumentParser
import BlockIO
import CommandLineSupport
import HostResources
import KVCache
import Kernels
import Runtime
import TensorBasics

/// Speed of attention over keys and values in memory.
struct AttentionBench: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "attention",
    abstract: "Bytes per second of decode attention over a cache, against what holds it.",
    discussion: """
      A cache of the given shape is filled with seeded keys and values and attended over layer by \
      layer, as decoded tokens would; no model is needed. All of it is in memory unless --kv-ram says \
      otherwise. Too little is refused with the least that works.

      Examples:
        flashinfer-bench attention --context 16384
        flashinfer-bench attention --kv-ram 64MiB --kv-dir /fast
      """)

  @Option(help: "Positions of the cache.") var context = 65536
  @Option(help: "Query heads, a multiple of the KV heads.") var queryHeads = 32
  @Option(help: "KV heads.") var kvHeads = 8
  @Option(help: "Elements of a head, a multiple of 16.") var headSize = 128
  @Option(help: "Layers.") var layers = 32
  @OptionGroup(title: "Keys and values") var keyValues: KeyValueArguments
  @Option(
    name: [.customLong("repeat"), .customLong("repeats")],
    help: "Tokens to time, each of which attends over all layers.")
  var repeats = 3
  @Option(help: "Worker threads (default: one per processor).") var threads: Int?
  @Flag(help: "Print one JSON object.") var json = false
  @OptionGroup(title: "Output") var messages: OutputOptions

  /// Positions that enter the cache at once, where there is memory for them.
  private static let chunkLength = 4096

  func validate() throws {
    guard
      [context, queryHeads, kvHeads, headSize, layers, repeats, threads ?? 1].allSatisfy({ $0 > 0 })
    else { throw ValidationError("counts must be at least 1") }
    guard queryHeads % kvHeads == 0, headSize % 16 == 0 else {
      throw ValidationError(
        "--query-heads must be a multiple of --kv-heads, --head-size a multiple of 16")
    }
  }

  private var heads: AttentionShape {
    AttentionShape(queryHeadCount: queryHeads, keyValueHeadCount: kvHeads, headDim: headSize)
  }

  func run() throws {
    Interruption.install()
    Interruption.endProcessAtOnce(true)
    try reportingErrors {
      let pool = ThreadPool(threadCount: threads ?? HostLimits().defaultThreadCount)
      let shape = KeyValueShape(
        layerCount: layers, keyValueHeadCount: kvHeads, headDim: headSize,
        contextLength: context + repeats + 1, type: keyValues.kvType)
      let plan = try plan(shape)
      let cache = try KeyValuePool(plan, keyValues.options(.auto), queryHeadCount: queryHeads)
        .openSequence()
      try fill(cache, pool)
      let step = try AttentionStep(
        Array(repeating: heads, count: layers), cache: plan, chunkLength: 1,
        observedTokenCount: cache.observedTokenCount, pool: pool)
      let batch = try Batch(rowCapacity: 1, spanCapacity: 1)
      var generator = SeededGenerator(seed: 1)
      var queries = (0..<queryHeads * headSize).map { _ in
        Float(generator.nextUnit() * 2 - 1) * 0.2
      }
      func attend(_ position: Int) throws {
        cache.pool.beginSweep()
        try cache.begin(position..<position + 1, .answer)
        batch.removeAll()
        withUnsafePointer(to: Int32(0)) { token in
          batch.append(
            UnsafeBufferPointer(start: token, count: 1), at: position, .answer, in: cache,
            logitCount: 0)
        }
        for layer in 0..<layers {
          try cache.prepare(layer: layer)
          queries.withUnsafeMutableBufferPointer { queries in
            cache.store(
              layer: layer, position: position, keys: queries.baseAddress!,
              values: queries.baseAddress!)
            cache.seal(layer: layer, on: pool)
            step.run(layer: layer, queries: queries.baseAddress!, batch, window: nil)
          }
          if let failure = batch.spans[0].failure { throw failure }
          try cache.finish(layer: layer)
        }
      }
      try attend(context)
      let memoryBefore = try memoryBytesPerSecond(cache, pool)
      let (before, readsBefore) = (cache.statistics, cache.pool.readStatistics)
      let times = try Progress.showing("attending", total: repeats, unit: .count("tokens")) {
        progress in
        try (1...repeats).map { token in
          let start = monotonicNanoseconds()
          try attend(context + token)
          progress.update(token)
          return Double(monotonicNanoseconds() - start) / 1e9
        }
      }
      let (moved, reads) = (
        cache.statistics - before, cache.pool.readStatistics.since(readsBefore)
      )
      let memory = (memoryBefore + (try memoryBytesPerSecond(cache, pool))) / 2
      let seconds = times.reduce(0, +)
      let bytes = Double(moved.attendedBlockCount) / Double(repeats) * Double(shape.blockByteCount)
      // Every byte attended over that memory cannot hold crosses the bus once for each token.
      let bound = max(0, bytes - Double(plan.byteCount))
      report(
        speedFigures(times, bytes: bytes, memory: memory)
          + (plan.hasTier
            ? tierFigures(moved, reads, seconds: seconds, bound: bound, shape) : []),
        asJSON: json)
    }
  }

  /// Pages differ in how fast they are read: where all of the cache is in memory it is its own limit.
  private func memoryBytesPerSecond(_ cache: KeyValueStore, _ pool: ThreadPool) throws -> Double {
    cache.plan.hasTier
      ? try MemoryLimit.bytesPerSecond(pool)
      : MemoryBandwidth.bytesPerSecond(reading: cache.pool.residentMemory, passCount: 2, pool: pool)
  }

  /// - Parameters:
  ///   - times: seconds of each token.
  ///   - bytes: of keys and values that a token attends over.
  ///   - memory: bytes per second that what holds them gives.
  private func speedFigures(_ times: [Double], bytes: Double, memory: Double) -> [Figure] {
    let seconds = times.reduce(0, +)
    let operations = 4.0 * Double(context * queryHeads * headSize * layers * repeats)
    return [
      Figure(
        "keyValueBytesPerSecond", samples: times.map { bytes / $0 }, .bytesPerSecond,
        limit: memory),
      Figure(
        "shareOfMemoryBandwidth", bytes * Double(repeats) / seconds / memory, .fraction),
      Figure("gigaflops", operations / seconds / 1e9, .gigaflops),
      Figure("layerSeconds", samples: times.map { $0 / Double(layers) }, .seconds),
      Figure("keyValueBytes", bytes, .bytes),
    ]
  }

  /// Figures of keys and values that are read from a drive.
  private func tierFigures(
    _ moved: KeyValueStore.Statistics, _ reads: IOStatistics, seconds: Double, bound: Double,
    _ shape: KeyValueShape
  ) -> [Figure] {
    let read = Double(moved.bytesRead) / Double(repeats)
    return [
      Figure("readBytes", read, .bytes, limit: bound),
      Figure("readBytesOverBound", read, dividedBy: bound, "the least that must be read", .number),
      Figure("driveBytesPerSecond", read * Double(repeats) / seconds, .bytesPerSecond),
      Figure("queueDepth", reads.meanQueueDepth, .number),
      Figure("rowBytes", Double(shape.pageStride), .bytes),
      Figure("residentFraction", moved.residentFraction, .fraction, "of the rows"),
      Figure(
        "waitFraction", Double(moved.stallNanoseconds) / 1e9 / seconds, .fraction, "of the time"),
    ]
  }

  /// All rows in memory, or as many as `--kv-ram` holds.
  private func plan(_ shape: KeyValueShape) throws -> KeyValuePlan {
    let least = KeyValuePlan.minimumByteCount(
      shape, chunkLength: KeyValueBlock.positionCount)
    let budget =
      keyValues.kvRam?.bytes
      ?? max(least, KeyValuePlan.residentByteCount(shape, chunkLength: Self.chunkLength))
    guard budget >= least else {
      throw RuntimeError.keyValueBudgetTooSmall(
        budget: ByteCount(budget), needed: ByteCount(least))
    }
    let chunkLength = KeyValuePlan.longestChunk(
      Self.chunkLength, shape, budgetByteCount: budget)
    guard let plan = KeyValuePlan(shape, budgetByteCount: budget, chunkLength: chunkLength) else {
      preconditionFailure("the least that works has room")
    }
    return plan
  }

  /// Stores seeded keys and values at every position of every layer.
  private func fill(_ cache: KeyValueStore, _ pool: ThreadPool) throws {
    let tableLength = kvHeads * headSize + 4096
    var generator = SeededGenerator(seed: 2)
    let table = (0..<2 * tableLength).map { _ in Float(generator.nextUnit() * 2 - 1) }
    let chunkLength = KeyValuePlan.longestChunk(
      Self.chunkLength, cache.shape, budgetByteCount: cache.plan.byteCount)
    let progress = Progress.begin("filling the cache", total: context, unit: .count("positions"))
    defer { progress.finish() }
    for start in stride(from: 0, to: context, by: chunkLength) {
      progress.update(start)
      let end = min(start + chunkLength, context)
      cache.pool.beginSweep()
      try cache.beginStoring(start..<end)
      for layer in 0..<layers {
        try cache.prepare(layer: layer)
        table.withUnsafeBufferPointer { table in
          // Safety: read by all workers, written by none.
          nonisolated(unsafe) let rows = table.baseAddress!
          pool.run(count: KeyValueShape.pageGroupCount(positionCount: end - start)) { block, _ in
            let first = start + block * KeyValueBlock.positionCount
            for position in first..<min(first + KeyValueBlock.positionCount, end) {
              let offset = (layer + position * 7) % 4096
              cache.store(
                layer: layer, position: position, keys: rows + offset,
                values: rows + tableLength + offset)
            }
          }
        }
        cache.seal(layer: layer, on: pool)
        try cache.finish(layer: layer)
      }
    }
  }
}
