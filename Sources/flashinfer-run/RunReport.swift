import BlockIO
import FoundationEssentials
import Runtime
import TensorBasics
import WeightLoader

/// What `--json` prints, and the summary line; names and units are the command-line contract.
struct RunReport: Encodable {
  struct Timing: Encodable {
    var loadSeconds: Double
    var timeToFirstTokenSeconds: Double?
    var prefillTokensPerSecond: Double?
    var decodeTokensPerSecond: Double?
  }
  struct IO: Encodable {
    var bytesRead: Int
    var requests: Int
    var bytesPerToken: Double
    var dutyCycle: Double
    var driveBytesPerSecond: Double
  }
  struct Memory: Encodable {
    var budgetBytes: Int
    var peakResidentBytes: Int
  }
  struct Plan: Encodable {
    var pinnedBytes: Int
    var streamedBytes: Int
  }
  /// [id, natural-log probability]
  struct LogProbability: Encodable {
    var token: Int32
    var value: Double

    func encode(to encoder: any Encoder) throws {
      var pair = encoder.unkeyedContainer()
      try pair.encode(token)
      try pair.encode(value)
    }
  }

  var text: String
  var promptTokens: [Int32]
  var tokens: [Int32]
  var topLogprobs: [[LogProbability]]?
  var timing: Timing
  var io: IO
  var memory: Memory
  var plan: Plan

  /// - Parameter processStart: when the process started, in seconds of the monotonic clock, negated.
  init(
    result: GenerationResult, promptTokens: [Int32], session: Session, loadSeconds: Double,
    processStart: Double
  ) {
    text = String(decoding: result.text, as: UTF8.self)
    self.promptTokens = promptTokens
    tokens = result.tokens
    if !result.topLogProbabilities.isEmpty {
      topLogprobs = result.topLogProbabilities.map { position in
        position.map { LogProbability(token: $0.token, value: $0.logProbability) }
      }
    }
    timing = Timing(
      loadSeconds: loadSeconds,
      timeToFirstTokenSeconds: result.firstTokenNanoseconds.map {
        Double($0) / 1e9 + processStart
      },
      prefillTokensPerSecond: result.prefillTokensPerSecond,
      decodeTokensPerSecond: result.decodeTokensPerSecond)
    let statistics = session.stream.source.device.statistics
    let busySeconds = Double(statistics.busyNanoseconds) / 1e9
    let wallSeconds =
      Double(result.lastTokenNanoseconds &- result.startNanoseconds) / 1e9
    io = IO(
      bytesRead: statistics.bytesRead, requests: statistics.requests,
      bytesPerToken: result.bytesPerToken,
      dutyCycle: wallSeconds > 0 ? min(1, busySeconds / wallSeconds) : 0,
      driveBytesPerSecond: busySeconds > 0 ? Double(statistics.bytesRead) / busySeconds : 0)
    memory = Memory(
      budgetBytes: session.plan.budgetByteCount,
      peakResidentBytes: ProcessMemory.peakResidentByteCount)
    plan = Plan(
      pinnedBytes: session.plan.residency.pinnedByteCount,
      streamedBytes: session.plan.residency.streamedByteCount)
  }

  func json() throws -> String {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
    return String(decoding: try encoder.encode(self), as: UTF8.self)
  }

  /// One line for people.
  func summary(seed: UInt64?) -> String {
    var parts = ["\(promptTokens.count) + \(tokens.count) tokens"]
    if let rate = timing.prefillTokensPerSecond { parts.append("prompt \(Self.rate(rate))") }
    if let rate = timing.decodeTokensPerSecond { parts.append("decode \(Self.rate(rate))") }
    parts.append(
      "read \(ByteCount(io.bytesRead)), \(ByteCount(Int(io.bytesPerToken))) a token at "
        + "\(ByteCount(Int(io.driveBytesPerSecond)))/s")
    parts.append(
      "peak \(ByteCount(memory.peakResidentBytes)) of \(ByteCount(memory.budgetBytes))")
    if let seed { parts.append("seed \(seed)") }
    return "[" + parts.joined(separator: " · ") + "]"
  }

  private static func rate(_ value: Double) -> String {
    "\((value * 100).rounded() / 100) tokens/s"
  }
}
