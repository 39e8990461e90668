import ArgumentParser
import BlockIO
import CommandLineSupport
import Glibc
import KVCache
import Kernels
import ModelFormat
import Runtime
import TensorBasics
import Tokenization
import WeightLoader

/// Decoding speed.
struct DecodeBench: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "decode", abstract: "Tokens per second of decoding, and bytes read per token.")

  @Argument(help: "Flash image or GGUF file.") var model: String
  @OptionGroup var resources: ResourceOptions
  @OptionGroup var keyValues: KeyValueArguments
  @OptionGroup var neurons: NeuronArguments
  @Option(help: "Seeded random tokens to read before timing begins.") var depth = 0
  @Option(help: "Tokens to time.") var tokens = 32
  @Option(help: "Tokens to decode before timing begins.") var warmup = 4
  @Option(help: "Feed seeded random ids instead of the model's own greedy text.")
  var randomTokens: UInt64?
  @Flag(help: "Also measure what DRAM gives just before and behind the timed tokens.")
  var dram = false
  @Flag(help: "Print one JSON object.") var json = false

  private static let mostSettlingTokens = 16

  func validate() throws {
    guard tokens >= 1, warmup >= 1, depth >= 0 else {
      throw ValidationError("--tokens and --warmup must be at least 1, --depth at least 0")
    }
  }

  func run() throws {
    Interruption.install()
    try reportingErrors {
      let model = try resources.open(model)
      Terminal.warn(notesOf: model.source.device)
      var request = MemoryPlan.Request(
        budgetByteCount: resources.budget,
        contextLength: max(
          resources.context ?? 0, depth + warmup + Self.mostSettlingTokens + tokens),
        promptLength: max(1, depth),
        threadCount: resources.threadCount,
        preferredReadByteCount: resources.preferredReadByteCount(forFileAt: self.model))
      request.keyValues = keyValues.options(resources.io)
      request.neurons = neurons.options
      let session = try Session(
        model.source, model.configuration, request, cancellation: Interruption.flag)
      var generator = SeededGenerator(seed: randomTokens ?? 0)
      var token = model.tokenizer.bosToken ?? 0
      func step(continues: Bool) throws {
        let logits = try session.decode(token, continues: continues)
        token =
          randomTokens == nil
          ? Sampler.argmax(UnsafeBufferPointer(logits))
          : Int32(generator.next() % UInt64(model.configuration.vocabularyCount))
      }
      if depth > 0 {
        let vocabularyCount = UInt64(model.configuration.vocabularyCount)
        _ = try session.prefill(
          (0..<depth).map { _ in Int32(generator.next() % vocabularyCount) })
      }
      for _ in 0..<warmup { try step(continues: true) }
      // Pinned weights come in as their memory is committed, at the latest with the second token.
      var more = Self.mostSettlingTokens
      while !session.stream.isSettled, more > 0 {
        try step(continues: true)
        more -= 1
      }
      let device = session.stream.source.device
      let dramBefore = dram ? try dramBytesPerSecond() : nil
      let (before, timesBefore) = (device.statistics, session.times)
      let kernelBefore = ProcessMemory.storageReadByteCount
      let bundlesBefore = session.stream.bundleStatistics
      let neuronsBefore = session.stream.neuronStatistics
      let keyValuesBefore = session.keyValues.statistics
      let keyValueReadsBefore = session.keyValues.readStatistics
      let start = monotonicNanoseconds()
      for index in 0..<tokens { try step(continues: index + 1 < tokens) }
      let seconds = Double(monotonicNanoseconds() - start) / 1e9
      let after = device.statistics
      let keyValueReads = session.keyValues.readStatistics.since(keyValueReadsBefore)
      let keyValuesAfter = session.keyValues.statistics
      let kernelBytes = Double(ProcessMemory.storageReadByteCount - kernelBefore)
      let bytes = Double(after.bytesRead - before.bytesRead)
      let memory = try dramBefore.map { ($0 + (try dramBytesPerSecond())) / 2 }
      let active = Double(session.plan.residency.sweepByteCount)
      try FigureReport(
        [
          Figure("decodeTokensPerSecond", Double(tokens) / seconds, "tokens/s"),
          Figure(
            "activeBytesPerSecond", active * Double(tokens) / seconds, "B/s", limit: memory),
          Figure("bytesPerToken", bytes / Double(tokens), "B"),
          Figure("driveBytesPerSecond", bytes / seconds, "B/s"),
          Figure("kernelReadBytesPerSecond", kernelBytes / seconds, "B/s"),
          Figure("requestsPerToken", Double(after.requests - before.requests) / Double(tokens), ""),
          Figure("pinnedBytes", Double(session.plan.residency.pinnedByteCount), "B"),
          Figure("streamedBytes", Double(session.plan.residency.streamedByteCount), "B"),
          Figure(
            "kvBytesPerToken",
            Double(keyValuesAfter.bytesRead - keyValuesBefore.bytesRead) / Double(tokens), "B"),
          Figure(
            "kvBytesWrittenPerToken",
            Double(keyValuesAfter.bytesWritten) / Double(session.position), "B"),
          Figure("kvDriveBytesPerSecond", keyValueReads.bytesPerSecond, "B/s"),
          Figure("kvQueueDepth", keyValueReads.meanQueueDepth, ""),
          Figure("kvResidentFraction", keyValuesAfter.residentFraction, ""),
          Figure("peakResidentBytes", Double(ProcessMemory.peakResidentByteCount), "B"),
        ] + (memory.map { [Figure("dramBytesPerSecond", $0, "B/s")] } ?? [])
          + Figure.bundles(session.stream.bundleStatistics, since: bundlesBefore, tokens: tokens)
          + Figure.neurons(
            session.stream.neuronStatistics - neuronsBefore, session.plan, tokens: tokens)
          + Figure.shares(of: seconds, session.times - timesBefore)
      ).print(asJSON: json)
    }
  }

  /// What all threads read of memory together.
  private func dramBytesPerSecond() throws -> Double {
    let buffer = try AlignedBuffer(byteCount: 256 << 20, prefersHugePages: true)
    // Pages that were never written are one page of zeros.
    memset(buffer.address, 1, buffer.byteCount)
    return MemoryBandwidth.bytesPerSecond(
      reading: UnsafeRawBufferPointer(start: buffer.address, count: buffer.byteCount),
      passCount: 8, pool: ThreadPool(threadCount: resources.threadCount))
  }
}
