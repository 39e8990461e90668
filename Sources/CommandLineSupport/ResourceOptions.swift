public import ArgumentParser
public import BlockIO
import HostResources
import Kernels
import Runtime
public import TensorBasics

/// Options on memory, processors and the drive that all commands share.
public struct ResourceOptions: ParsableArguments {
  @Option(
    help: ArgumentHelp(
      "Bound on the process's peak resident memory, e.g. 2GiB (default: 80 % of what is free, "
        + "in the machine and the container).",
      valueName: "size"))
  public var ram: ByteCount?

  @Option(
    parsing: .unconditional, help: "Worker threads (default: one per processor that may be used).")
  public var threads: Int?

  @Option(
    parsing: .unconditional,
    help: """
      Positions to reserve for keys and values of each answer (default: what prompt and answer need; of a server \
      8192, or what the model was trained for).
      """)
  public var context: Int?

  @Option(help: "How to read: auto, uring, pread or mmap.")
  public var io = StorageBackend.auto

  @Option(
    help: ArgumentHelp(
      "A whole copy of MODEL on another drive to read from as well; repeatable.",
      valueName: "path"))
  public var mirror: [String] = []

  public init() {}

  public func validate() throws {
    if let ram, ram.bytes < 1 << 20 {
      throw ValidationError(
        "--ram \(ram): no program runs in so little; a number without a unit is in bytes, so write 2GiB"
      )
    }
    try Self.check(threads: threads)
    if let context, !(1...Self.longestContext).contains(context) {
      throw ValidationError(
        "--context must be between 1 and \(Self.longestContext), not \(context)")
    }
  }

  /// Refuses a number of `--threads` that no machine serves.
  public static func check(threads: Int?) throws {
    if let threads, !(1...256).contains(threads) {
      throw ValidationError("--threads must be between 1 and 256, not \(threads)")
    }
  }

  /// More positions than any model has, few enough that no product of sizes overflows.
  public static let longestContext = 1 << 30
  /// The most sequences that can be asked for.
  public static let mostSequences = 1024

  /// The budget in bytes.
  public var budget: Int { ram?.bytes ?? HostLimits().defaultBudget }

  /// Warns where what was asked for is more than the container grants.
  public func warnBeyondLimits() {
    for warning in HostLimits().warnings(threadCount: threads, budget: ram?.bytes) {
      Terminal.warn(warning)
    }
  }

  /// Warns as ``warnBeyondLimits()``, before a model is run.
  ///
  /// - Throws: `HostResources.BudgetError` where the process would not survive it.
  func checkLimits() throws {
    if let ram { try HostLimits().check(budget: ram.bytes) }
    warnBeyondLimits()
  }

  public var threadCount: Int { threads ?? HostLimits().defaultThreadCount }
}
