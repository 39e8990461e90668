import BlockIO
import CommandLineSupport
import HostResources
import KVCache
import Kernels
import Runtime
import TensorBasics
import WeightLoader

/// What `--json` prints, and the summary (`RunReport+Summary.swift`); names and units are the command-line contract.
struct RunReport {
  struct Timing {
    var loadSeconds: Double
    var timeToFirstTokenSeconds: Double?
    var prefillTokensPerSecond: Double?
    var decodeTokensPerSecond: Double?
  }
  struct IO {
    var bytesRead: Int
    var requests: Int
    var bytesPerToken: Double
    var dutyCycle: Double
    var driveBytesPerSecond: Double
    /// How keys and values are stored.
    var kvType: KeyValueType
    /// What tokens after the prompt attend over, and how many of the blocks that they see that was.
    var kvPolicy: KeyValuePolicyChoice
    var kvBlocksAttended: Int
    var kvBlocksSkipped: Int
    var kvAttendedFraction: Double
    var kvBytesRead: Int
    var kvBytesWritten: Int
    /// Read for each decoded token.
    var kvBytesPerToken: Double
    /// Rows of keys and values in memory, of those that queries see.
    var kvResidentFraction: Double
  }
  struct Memory {
    var budgetBytes: Int
    var peakResidentBytes: Int
  }
  struct Plan {
    var pinnedBytes: Int
    var streamedBytes: Int
  }
  let result: GenerationResult
  let promptTokens: [Int32]
  /// Whether distributions were asked for.
  let reportsDistributions: Bool
  let kvPositionCount: Int
  /// Tokens that the context has room for, and that the model was trained for.
  let contextLength: (reserved: Int, trained: Int)
  var timing: Timing
  var io: IO
  var memory: Memory
  var plan: Plan
  /// What drives did; nil = there are none.
  var inStorage: InStorageReport?

  /// - Parameters:
  ///   - processStart: when the process started, in seconds of the monotonic clock, negated.
  ///   - before: what the drive had done when the run began, which is not of it.
  init(
    result: GenerationResult, promptTokens: [Int32], session: Session,
    policy: KeyValuePolicyChoice, trainedContextLength: Int, loadSeconds: Double,
    processStart: Double, since before: IOStatistics = IOStatistics(),
    reportsDistributions: Bool
  ) {
    self.result = result
    self.promptTokens = promptTokens
    self.reportsDistributions = reportsDistributions
    timing = Timing(
      loadSeconds: loadSeconds,
      timeToFirstTokenSeconds: result.firstTokenNanoseconds.map {
        Double($0) / 1e9 + processStart
      },
      prefillTokensPerSecond: result.prefillTokensPerSecond,
      decodeTokensPerSecond: result.decodeTokensPerSecond)
    let statistics = session.stream.source.device.statistics.since(before)
    let busySeconds = Double(statistics.busyNanoseconds) / 1e9
    let wallSeconds =
      Double(result.lastTokenNanoseconds &- result.startNanoseconds) / 1e9
    let keyValues = session.keyValues.statistics
    kvPositionCount = session.position
    contextLength = (session.plan.contextLength, trainedContextLength)
    io = IO(
      bytesRead: statistics.bytesRead, requests: statistics.requests,
      bytesPerToken: result.bytesPerToken,
      dutyCycle: wallSeconds > 0 ? min(1, busySeconds / wallSeconds) : 0,
      driveBytesPerSecond: busySeconds > 0 ? Double(statistics.bytesRead) / busySeconds : 0,
      kvType: session.keyValues.shape.type, kvPolicy: policy,
      kvBlocksAttended: keyValues.attendedBlockCount,
      kvBlocksSkipped: keyValues.skippedBlockCount,
      kvAttendedFraction: keyValues.attendedBlockFraction, kvBytesRead: keyValues.bytesRead,
      kvBytesWritten: keyValues.bytesWritten,
      kvBytesPerToken: result.keyValueBytesPerToken,
      kvResidentFraction: keyValues.residentFraction)
    memory = Memory(
      budgetBytes: session.plan.budgetByteCount,
      peakResidentBytes: ProcessMemory.peakResidentByteCount)
    plan = Plan(
      pinnedBytes: session.plan.residency.pinnedByteCount,
      streamedBytes: session.plan.residency.streamedByteCount)
  }

  /// Memory that reporting takes: the answer and its distributions, and finding the most probable of
  /// many.
  static func byteCount(
    tokenCount: Int, distributionCount: Int, pairCount: Int, vocabularyCount: Int
  ) -> Int {
    let pairs = min(pairCount, vocabularyCount)
    return 16 * tokenCount + 16 * distributionCount * pairs
      + (distributionCount == 0 ? 0 : 24 * min(64 * pairs, vocabularyCount))
  }
}
