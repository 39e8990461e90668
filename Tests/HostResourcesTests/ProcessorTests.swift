import HostResources
import Testing

/// How many threads are worth having.
@Suite struct ProcessorTests {
  private func processors(_ root: RecordedRoot) -> Int {
    root.limits.processorCount
  }

  @Test(
    "A mask of processors counts however many words it has",
    arguments: [
      ("1", 1), ("ff", 8), ("f0f0", 8), ("ffffffff,ffffffff,00000000,00000003", 66),
      ("00000000,00008000", 1),
    ])
  func masks(mask: String, count: Int) {
    let root = RecordedRoot(["proc/thread-self/status": "Cpus_allowed:\t\(mask)\n"])
    #expect(processors(root) == count)
  }

  @Test(
    "A quota of version 2 is rounded up, and never below one",
    arguments: [
      ("max 100000", 8), ("50000 100000", 1), ("100000 100000", 1), ("150000 100000", 2),
      ("200000 100000", 2), ("200001 100000", 3), ("10000000 100000", 8), ("1000 1000000", 1),
    ])
  func quotas(text: String, count: Int) {
    #expect(processors(version2(path: "/a", ["a/cpu.max": text + "\n"])) == count)
  }

  @Test func `A quota of any group around the process counts`() {
    let limits = version2(
      path: "/a/b/c",
      [
        "a/cpu.max": "150000 100000", "a/b/cpu.max": "max 100000",
        "a/b/c/cpu.max": "700000 100000",
      ]
    ).limits
    #expect(limits.processorCount == 2)
    #expect(limits.processorQuota == 1.5)
    #expect(limits.processorQuotaPath == "/sys/fs/cgroup/a/cpu.max")
  }

  @Test(
    "A quota of version 1 counts, in its own group and in those around it",
    arguments: [("a/b", "50000", 1), ("a", "250000", 3), ("a", "-1", 8)])
  func quotasOfVersion1(folder: String, quota: String, count: Int) {
    let base = "cpu,cpuacct/\(folder)"
    let root = hybrid(
      path: "/a/b",
      ["\(base)/cpu.cfs_quota_us": "\(quota)\n", "\(base)/cpu.cfs_period_us": "100000\n"])
    #expect(processors(root) == count)
  }

  @Test func `A mask is tighter than a quota where it is`() {
    let root = version2(path: "/", ["cpu.max": "400000 100000"])
    root.write("proc/thread-self/status", "Cpus_allowed:\t3\n")
    #expect(processors(root) == 2)
  }

  @Test(
    "What makes no sense is no quota",
    arguments: [
      "", "\n", "max", "max max", "100000", "x 100000", "0 100000", "-5 100000", "100000 0",
      "99999999999999999999999 100000", "1 2 3",
    ])
  func garbage(text: String) {
    #expect(processors(version2(path: "/a", ["a/cpu.max": text])) == 8)
  }

  @Test(
    "Nobody computes with more threads than a group or a user may have",
    arguments: [
      // Limits on the group and the user, threads in the group, the user's number and capabilities.
      ("max", "5000", 3, "1000", "0", 8), ("6", "5000", 3, "1000", "0", 4),
      ("3", "5000", 3, "1000", "0", 1), ("max", "2", 3, "1000", "0", 2),
      ("6", "2", 3, "1000", "0", 2), ("6", "2", 3, "0", "0", 4),
      ("6", "2", 3, "1000", "1000000", 4),
    ])
  func limitsOnThreads(
    group: String, user: String, used: Int, number: String, capabilities: String, count: Int
  ) {
    let root = version2(path: "/a", ["a/pids.max": group, "a/pids.current": "\(used)"])
    root.write(
      "proc/self/limits",
      "Limit  Soft Limit  Hard Limit  Units\nMax processes  \(user)  \(user)  processes\n")
    root.write("proc/self/status", "Uid:\t\(number)\t0\t0\t0\nCapEff:\t\(capabilities)\n")
    #expect(root.limits.defaultThreadCount == count)
    #expect(root.limits.processorCount == 8)
  }

  @Test
  func `Asking for more threads than a quota is worth is warned of once, and for fewer is not`() {
    let limits = version2(path: "/a", ["a/cpu.max": "150000 100000"]).limits
    #expect(limits.warnings(threadCount: 2, budget: nil).isEmpty)
    let warnings = limits.warnings(threadCount: 3, budget: nil)
    #expect(warnings.count == 1)
    #expect(warnings.first?.contains("/sys/fs/cgroup/a/cpu.max") == true)
    #expect(
      RecordedRoot(plainMachine).limits.warnings(threadCount: 64, budget: 15_000_000 << 10)
        .isEmpty)
  }

  @Test func `A budget beyond the machine's memory is warned of`() {
    let warnings = RecordedRoot(plainMachine).limits.warnings(
      threadCount: nil, budget: 16_000_001 << 10)
    #expect(warnings.count == 1 && warnings[0].contains("this machine's memory"))
  }
}
