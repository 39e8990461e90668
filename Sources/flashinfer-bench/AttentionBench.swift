import ArgumentParser
import CommandLineSupport
import KVCache
import Kernels
import Runtime
import TensorBasics

/// Speed of attention over keys and values in memory.
struct AttentionBench: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "attention",
    abstract: "Bytes per second of decode attention over a cache, against what DRAM gives.",
    discussion: """
      A cache of the given shape is filled with seeded keys and values and attended over layer by \
      layer, as one decoded token would; no model is needed. Layers beyond the caches' size change \
      nothing but the memory taken.
      """)

  @Option(help: "Positions of the cache.") var context = 65536
  @Option(help: "Query heads, a multiple of the KV heads.") var queryHeads = 32
  @Option(help: "KV heads.") var kvHeads = 8
  @Option(help: "Elements of a head, a multiple of 16.") var headSize = 128
  @Option(help: "Layers.") var layers = 32
  @Option(help: "How to store keys and values: f16, q8 or q4.") var kvType = KeyValueType.f16
  @Option(help: "Times to attend over all layers.") var repeats = 3
  @Option(help: "Worker threads (default: one per processor).") var threads: Int?
  @Flag(help: "Print one JSON object.") var json = false

  /// Positions that enter the cache at once.
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

  func run() throws {
    try reportingErrors {
      let pool = ThreadPool(threadCount: threads ?? ThreadPool.availableProcessorCount)
      let shape = KeyValueShape(
        layerCount: layers, keyValueHeadCount: kvHeads, headLength: headSize,
        contextLength: context, type: kvType)
      let cache = try makeStore(shape)
      try fill(cache, pool)
      let step = try AttentionStep(
        AttentionShape(
          queryHeadCount: queryHeads, keyValueHeadCount: kvHeads, headLength: headSize),
        cache: cache, chunkLength: 1, pool: pool)
      var generator = SeededGenerator(seed: 1)
      var queries = (0..<queryHeads * headSize).map { _ in
        Float(generator.nextUnit() * 2 - 1) * 0.2
      }
      func attend() throws {
        for layer in 0..<layers {
          try queries.withUnsafeMutableBufferPointer {
            try step.run(
              layer: layer, queries: $0.baseAddress!, tokenCount: 1, position: context - 1,
              window: nil)
          }
        }
      }
      try attend()
      let before = try MemoryLimit.bytesPerSecond(pool)
      let start = monotonicNanoseconds()
      for _ in 0..<repeats { try attend() }
      let seconds = Double(monotonicNanoseconds() - start) / 1e9
      let memory = (before + (try MemoryLimit.bytesPerSecond(pool))) / 2
      let bytes = Double(shape.rowCount * shape.rowByteCount)
      let speed = bytes * Double(repeats) / seconds
      let operations = 4.0 * Double(context * queryHeads * headSize * layers * repeats)
      try FigureReport([
        Figure("keyValueBytesPerSecond", speed, "B/s", limit: memory),
        Figure("shareOfMemoryBandwidth", speed / memory, ""),
        Figure("gigaflops", operations / seconds / 1e9, "GFLOP/s"),
        Figure("layerSeconds", seconds / Double(layers * repeats), "s"),
        Figure("keyValueBytes", bytes, "B"),
      ]).print(asJSON: json)
    }
  }

  /// A store whose rows all stay in memory.
  private func makeStore(_ shape: KeyValueShape) throws -> KeyValueStore {
    let byteCount = KeyValuePlan.residentByteCount(shape, chunkLength: Self.chunkLength)
    guard
      let plan = KeyValuePlan(shape, budgetByteCount: byteCount, chunkLength: Self.chunkLength)
    else { preconditionFailure("every row has room") }
    return try KeyValueStore(plan, queryHeadCount: queryHeads)
  }

  /// Stores seeded keys and values at every position of every layer.
  private func fill(_ cache: KeyValueStore, _ pool: ThreadPool) throws {
    let tableLength = kvHeads * headSize + 4096
    var generator = SeededGenerator(seed: 2)
    let table = (0..<2 * tableLength).map { _ in Float(generator.nextUnit() * 2 - 1) }
    for start in stride(from: 0, to: context, by: Self.chunkLength) {
      let end = min(start + Self.chunkLength, context)
      try cache.begin(start..<end)
      for layer in 0..<layers {
        try cache.prepare(layer: layer)
        table.withUnsafeBufferPointer { table in
          // Safety: read by all workers, written by none.
          nonisolated(unsafe) let rows = table.baseAddress!
          pool.run(count: KeyValueShape.slabCount(positionCount: end - start)) { block, _ in
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
