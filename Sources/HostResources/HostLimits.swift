import Glibc
import TensorBasics

/// A limit on this process and the file that states it.
public struct StatedLimit: Sendable, Equatable {
  public let value: Int
  public let path: String

  package init(value: Int, path: String) {
    self.value = value
    self.path = path
  }
}

/// A memory budget that a container cannot grant: its kernel would end the process before it is reached.
public struct BudgetError: Error, Sendable, Equatable, CustomStringConvertible {
  /// Bytes that were asked for.
  public let budget: Int
  public let limit: StatedLimit
  /// Bytes that fit now.
  public let roomByteCount: Int

  public var description: String {
    "a memory budget of \(ByteCount(budget)) cannot be kept: \(limit.path) ends a process that takes more "
      + "than \(ByteCount(limit.value)); \(ByteCount(roomByteCount)) fit now"
  }
}

/// What this process may use of the machine.
///
/// Each value is the tightest of what the machine has, the process's own limit and the limits of its control groups.
public struct HostLimits: Sendable {
  /// Processors that the process may run on.
  public let allowedProcessorCount: Int
  /// Processors' worth of time that a control group grants, e.g. 0.5; nil if none limits it.
  public let processorQuota: Double?
  /// The file that states ``processorQuota``.
  public let processorQuotaPath: String?
  /// The tightest limit on memory in bytes; nil if no control group states one.
  public let memory: StatedLimit?
  /// The tightest limit on memory beyond which the kernel ends the process, in bytes; nil where there is none.
  public let hardMemory: StatedLimit?
  /// Bytes of memory that the machine has; nil where the system does not say.
  public let machineByteCount: Int?
  /// Bytes that can be had now: file pages count as free, since the kernel gives them up.
  public let availableByteCount: Int
  /// Threads and processes in the tightest control group, and how many more fit in.
  public let threads: StatedLimit?
  public let threadRoom: Int?
  /// The most threads that this process can compute with, its first included; nil = no limit.
  ///
  /// What the tightest group has room for, and no more than its user may have.
  public let mostThreads: StatedLimit?
  /// The process's own limits; nil = no limit.
  ///
  /// Threads and processes of this user (RLIMIT_NPROC), open files (RLIMIT_NOFILE), bytes of locked memory
  /// (RLIMIT_MEMLOCK) and of address space (RLIMIT_AS).
  public let userThreads: StatedLimit?
  public let descriptors: StatedLimit?
  public let lockedByteCount: StatedLimit?
  public let addressSpaceByteCount: StatedLimit?
  /// Every value that was read for this, and from where.
  public let findings: [Finding]

  /// Processors that the process can keep busy: with less than one, one.
  public var processorCount: Int {
    guard let quota = processorQuota, quota < Double(allowedProcessorCount) else {
      return allowedProcessorCount
    }
    return max(1, Int(quota.rounded(.up)))
  }

  /// Threads to compute with where nobody says how many: one a processor, as far as they can be had.
  public var defaultThreadCount: Int { min(processorCount, mostThreads?.value ?? .max) }

  /// Bytes that this process holds and that no reclaim would free.
  public let ownByteCount: Int

  /// The bound on the process's resident memory if the user names none: what it holds, and 80 % of what is free.
  ///
  /// What it holds already is little, except in a host program.
  public var defaultBudget: Int { ownByteCount + availableByteCount / 10 * 8 }

  /// What is wrong with asking for more than there is, in a line each.
  ///
  /// - Parameters: what a person asked for, in threads and bytes; nil if nothing.
  public func warnings(threadCount: Int?, budget: Int?) -> [String] {
    var warnings: [String] = []
    if let threadCount, let quota = processorQuota, let path = processorQuotaPath,
      Double(threadCount) > max(1, quota.rounded(.up))
    {
      warnings.append(
        "\(threadCount) threads share the time of \((quota * 100).rounded() / 100) processors "
          + "(\(path)): they will be stopped again and again; \(processorCount) would be faster")
    }
    guard let budget else { return warnings }
    if let machineByteCount, budget > machineByteCount, memory == nil {
      warnings.append(
        "a memory budget of \(ByteCount(budget)) is more than this machine's memory of "
          + "\(ByteCount(machineByteCount)): what does not fit is swapped out, or the process is ended"
      )
      return warnings
    }
    do throws(BudgetError) { try check(budget: budget) } catch {
      warnings.append(error.description)
      return warnings
    }
    if let memory, budget > memory.value {
      warnings.append(
        "a memory budget of \(ByteCount(budget)) is more than the \(ByteCount(memory.value)) that "
          + "\(memory.path) allows: beyond that the process is slowed until it is of no use")
    }
    return warnings
  }

  /// Refuses a budget that the process would be ended for keeping to.
  public func check(budget: Int) throws(BudgetError) {
    guard let hardMemory, budget > hardMemory.value else { return }
    throw BudgetError(
      budget: budget, limit: hardMemory,
      roomByteCount: min(hardMemory.value, ownByteCount + availableByteCount))
  }

  /// Reads what holds now.
  ///
  /// - Parameter root: the folder that holds `proc` and the mount points; empty for the machine itself.
  public init(root: String = "") {
    let files = SystemFiles(root: root)
    let groups = ControlGroups(files)
    allowedProcessorCount = Self.allowedProcessorCount(files)
    let quota = Self.processorQuota(groups, files)
    (processorQuota, processorQuotaPath) = (quota?.value, quota?.path)
    let pids = Self.threads(groups, files)
    threads = pids.min { $0.limit.value < $1.limit.value }?.limit
    let tightest = pids.min { $0.room < $1.room }
    threadRoom = tightest?.room
    userThreads = Self.own("Max processes", files)
    mostThreads = [
      tightest.map { StatedLimit(value: 1 + $0.room, path: $0.limit.path) },
      Self.isBoundAsUser(files) ? userThreads : nil,
    ].compactMap(\.self).min { $0.value < $1.value }
    descriptors = Self.own("Max open files", files)
    lockedByteCount = Self.own("Max locked memory", files)
    addressSpaceByteCount = Self.own("Max address space", files)
    let levels = Self.memory(groups, files)
    memory = levels.min { $0.limit < $1.limit }.map { StatedLimit(value: $0.limit, path: $0.path) }
    hardMemory = levels.compactMap(\.hard).min { $0.value < $1.value }
    ownByteCount = ["RssAnon", "RssShmem"].reduce(0) {
      $0 + (files.kibibytes($1, in: "/proc/self/status") ?? 0)
    }
    machineByteCount = files.kibibytes("MemTotal", in: "/proc/meminfo")
    var available = levels.map(\.available)
    if let bytes = files.kibibytes("MemAvailable", in: "/proc/meminfo") {
      available.append(bytes)
    }
    if let limit = addressSpaceByteCount?.value {
      let used = files.kibibytes("VmSize", in: "/proc/self/status") ?? 0
      available.append(max(0, limit - used))
    }
    availableByteCount = available.min() ?? Self.assumedByteCount
    findings = files.findings
  }

  /// Where the system says nothing of memory.
  private static let assumedByteCount = 1 << 30

  // MARK: Processors

  private static func allowedProcessorCount(_ files: SystemFiles) -> Int {
    let mask =
      files.field("Cpus_allowed", in: "/proc/thread-self/status")
      ?? files.field("Cpus_allowed", in: "/proc/self/status")
    let count = mask.map { mask in
      mask.split(separator: ",").reduce(0) { $0 + (UInt64($1, radix: 16)?.nonzeroBitCount ?? 0) }
    }
    // Where /proc does not say, whatever is switched on.
    return max(1, count.flatMap { $0 > 0 ? $0 : nil } ?? sysconf(Int32(_SC_NPROCESSORS_ONLN)))
  }

  /// The tightest of quota ÷ period over all groups.
  private static func processorQuota(
    _ groups: ControlGroups, _ files: SystemFiles
  ) -> (value: Double, path: String)? {
    var tightest: (value: Double, path: String)?
    func consider(_ quota: Double?, _ period: Double?, _ path: String) {
      guard let quota, let period, quota > 0, period > 0 else { return }
      if quota / period < tightest?.value ?? .infinity { tightest = (quota / period, path) }
    }
    for folder in groups.folders("cpu", .two) {
      let words = files.value("\(folder)/cpu.max")?.split(separator: " ") ?? []
      // The period may be left out when it is written, never when it is read.
      guard words.count == 2 else { continue }
      consider(number(words[0]), number(words[1]), "\(folder)/cpu.max")
    }
    for folder in groups.folders("cpu", .one) {
      consider(
        files.value("\(folder)/cpu.cfs_quota_us").flatMap { number($0[...]) },
        files.value("\(folder)/cpu.cfs_period_us").flatMap { number($0[...]) },
        "\(folder)/cpu.cfs_quota_us")
    }
    return tightest
  }

  /// A whole number; `max`, -1 and what is none are nil or not positive.
  private static func number(_ text: Substring) -> Double? { Int(text).map(Double.init) }

  // MARK: Memory

  private static func memory(_ groups: ControlGroups, _ files: SystemFiles) -> [MemoryLevel] {
    var levels = groups.folders("memory", .two).compactMap { MemoryLevel(unified: $0, files) }
    for (distance, folder) in groups.folders("memory", .one).enumerated() {
      if distance > 0, !MemoryLevel.limitsGroupsWithin(folder, files) { break }
      if let level = MemoryLevel(version1: folder, files) { levels.append(level) }
    }
    return levels
  }

  // MARK: Threads and the process's own limits

  private static func threads(
    _ groups: ControlGroups, _ files: SystemFiles
  ) -> [(limit: StatedLimit, room: Int)] {
    (groups.folders("pids", .two) + groups.folders("pids", .one)).compactMap { folder in
      guard let limit = files.value("\(folder)/pids.max").flatMap({ Int($0) }), limit >= 0 else {
        return nil
      }
      let used = files.value("\(folder)/pids.current").flatMap { Int($0) } ?? 0
      return (StatedLimit(value: limit, path: "\(folder)/pids.max"), max(0, limit - max(0, used)))
    }
  }

  /// Whether the limit on a user's threads holds for this process: not for root, nor with CAP_SYS_ADMIN or
  /// CAP_SYS_RESOURCE.
  private static func isBoundAsUser(_ files: SystemFiles) -> Bool {
    let path = "/proc/self/status"
    if files.field("Uid", in: path)?.split(separator: " ").first == "0" { return false }
    let capabilities = files.field("CapEff", in: path).flatMap { UInt64($0, radix: 16) } ?? 0
    return capabilities & (1 << 21 | 1 << 24) == 0
  }

  /// The soft limit of that name; nil if it is `unlimited` or not stated.
  private static func own(_ name: String, _ files: SystemFiles) -> StatedLimit? {
    let path = "/proc/self/limits"
    guard let soft = files.field(name, in: path)?.split(separator: " ").first.flatMap({ Int($0) })
    else { return nil }
    return StatedLimit(value: soft, path: path)
  }
}
