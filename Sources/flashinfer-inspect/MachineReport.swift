import CommandLineSupport
import HostResources
import ModelFormat
import TensorBasics

/// What `--machine` prints: every limit that was read and from where, and what follows from them.
struct MachineReport {
  private let limits = HostLimits()
  /// As many as are wanted and can be had, and what holds them down.
  private let threadCount: Int
  private let threadNote: String
  private let budget: Int
  private let warnings: [String]

  /// - Parameter resources: what was asked for; its defaults are what follows from the limits.
  init(resources: ResourceOptions) {
    let wanted = resources.threads ?? limits.processorCount
    threadCount = min(wanted, limits.mostThreads?.value ?? wanted)
    threadNote =
      threadCount < wanted
      ? limits.mostThreads.map { " (of \(wanted): \($0.path) grants no more)" } ?? "" : ""
    budget = resources.ram?.bytes ?? limits.defaultBudget
    warnings = limits.warnings(threadCount: resources.threads, budget: resources.ram?.bytes)
  }

  /// Says what is wrong with what was asked for.
  func warn() { for warning in warnings { Terminal.warn(warning) } }

  func printLines() {
    Terminal.print("read:\n")
    for finding in limits.findings {
      Terminal.print("  \(finding.path): \(finding.name) = \(finding.value)\n")
    }
    Terminal.print(
      """
      processors: \(limits.allowedProcessorCount) allowed, \(quotaText)
      memory: \(ByteCount(limits.availableByteCount)) can be had, \
      \(Self.text(limits.memory) { "\(ByteCount($0))" })
      threads: \(Self.text(limits.threads) { "\($0) in the group" })\
      \(limits.threadRoom.map { ", \($0) more" } ?? ""); \
      \(Self.text(limits.userThreads) { "\($0) of this user" })
      descriptors: \(Self.text(limits.descriptors) { "\($0)" })
      locked memory: \(Self.text(limits.lockedByteCount) { "\(ByteCount($0))" })
      address space: \(Self.text(limits.addressSpaceByteCount) { "\(ByteCount($0))" })
      --threads: \(threadCount)\(threadNote)
      --ram: \(ByteCount(budget)) (\(budget) bytes)

      """)
  }

  private var quotaText: String {
    guard let quota = limits.processorQuota, let path = limits.processorQuotaPath else {
      return "no quota"
    }
    return "a quota of \((quota * 100).rounded() / 100) (\(path))"
  }

  private static func text(_ limit: StatedLimit?, _ value: (Int) -> String) -> String {
    guard let limit else { return "no limit" }
    return "at most \(value(limit.value)) (\(limit.path))"
  }

  /// Writes the members of the report.
  func write(to json: inout JSONWriter) {
    json.array("findings") { json in
      for finding in limits.findings {
        json.object { json in
          json.text("path", finding.path)
          json.text("name", finding.name)
          json.text("value", finding.value)
        }
      }
    }
    json.object("processors") { json in
      json.number("allowed", limits.allowedProcessorCount)
      if let quota = limits.processorQuota { json.number("quota", quota) }
    }
    json.object("memory") { json in
      json.number("availableBytes", limits.availableByteCount)
      if let memory = limits.memory { json.number("limitBytes", memory.value) }
      if let locked = limits.lockedByteCount { json.number("lockedLimitBytes", locked.value) }
      if let space = limits.addressSpaceByteCount {
        json.number("addressSpaceLimitBytes", space.value)
      }
    }
    json.object("limits") { json in
      if let threads = limits.threads { json.number("groupThreads", threads.value) }
      if let room = limits.threadRoom { json.number("groupThreadRoom", room) }
      if let user = limits.userThreads { json.number("userThreads", user.value) }
      if let descriptors = limits.descriptors { json.number("descriptors", descriptors.value) }
    }
    json.number("threads", threadCount)
    json.number("budgetBytes", budget)
  }
}
