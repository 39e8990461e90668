import HostResources
import ModelFormat
import Runtime
import TensorBasics

/// The part of the options of generators and engines that decides about memory; 0 where the caller leaves it to us.
struct PlanOptions {
  private let budgetByteCount: Int
  private let contextLength: Int
  private let threadCount: Int

  /// Positions of a context where the caller does not say.
  private static let usualContextLength = 2048
  /// The longest prompt that is planned for; longer ones are read in parts.
  private static let promptLength = 512

  /// - Parameter sequenceCount: nil where there is only one.
  /// - Throws: `CallError`; `RuntimeError` where the budget is more than there is.
  init(
    ram: UInt64, contextLength: UInt64, threadCount: UInt32, sequenceCount: UInt32? = nil
  ) throws {
    guard threadCount <= 256, sequenceCount ?? 0 <= 1024, contextLength <= 1 << 30 else {
      throw CallError(
        .invalid,
        "at most 256 threads\(sequenceCount == nil ? "" : ", 1024 sequences") and a context of 2^30 "
          + "are possible")
    }
    budgetByteCount = try integer(ram, "options->ram")
    self.contextLength = Int(contextLength)
    self.threadCount = Int(threadCount)
    try HostLimits().check(budget: budgetByteCount)
  }

  /// What memory is planned from.
  ///
  /// - Parameter callerByteCount: what the caller needs beside the model.
  func request(for model: LanguageModel, callerByteCount: Int) -> MemoryPlan.Request {
    let wanted = contextLength == 0 ? Self.usualContextLength : contextLength
    let context = max(2, min(wanted, model.configuration.contextLength))
    return MemoryPlan.Request(
      budgetByteCount: budgetByteCount == 0 ? HostLimits().defaultBudget : budgetByteCount,
      contextLength: context, promptLength: min(context, Self.promptLength),
      threadCount: threadCount == 0 ? HostLimits().defaultThreadCount : threadCount,
      callerByteCount: callerByteCount)
  }
}
