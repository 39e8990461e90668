import HostResources
import Testing

private let mebibyte = 1 << 20

/// How much memory the process may take.
@Suite struct MemoryTests {
  private static let machineBytes = 8_000_000 * 1024

  private func available(_ root: RecordedRoot) -> Int {
    root.limits.availableByteCount
  }

  private static func stat(active: Int, inactive: Int, dirty: Int = 0, prefix: String = "")
    -> String
  {
    """
    anon 1
    shmem 999999999
    \(prefix)inactive_file \(inactive * mebibyte)
    \(prefix)active_file \(active * mebibyte)
    \(prefix)file_dirty \(dirty * mebibyte)
    \(prefix)dirty \(dirty * mebibyte)

    """
  }

  @Test func `Without a limit there is what the machine has free, and the budget is 80 % of it`() {
    for root in [RecordedRoot(plainMachine), version2(path: "/", ["memory.max": "max\n"])] {
      let limits = root.limits
      #expect(limits.availableByteCount == Self.machineBytes)
      #expect(limits.defaultBudget == Self.machineBytes / 10 * 8)
      #expect(limits.memory == nil)
    }
  }

  @Test func `What a host program holds already is added to its budget`() {
    let root = version2(
      path: "/", ["memory.max": "\(4096 * mebibyte)", "memory.current": "\(3000 * mebibyte)"])
    root.write("proc/self/status", "VmSize: 1 kB\nRssAnon:\t 2900000 kB\nRssShmem: 100 kB\n")
    let limits = root.limits
    #expect(limits.availableByteCount == 1096 * mebibyte)
    #expect(limits.defaultBudget == 2_900_100 * 1024 + 1096 * mebibyte / 10 * 8)
  }

  @Test func `Pages of files count as free, those in active use too, those to be written not`() {
    let root = version2(
      path: "/a",
      [
        "a/memory.max": "\(512 * mebibyte)\n", "a/memory.current": "\(500 * mebibyte)\n",
        "a/memory.stat": Self.stat(active: 400, inactive: 80, dirty: 30),
      ])
    #expect(available(root) == (512 - (500 - 480 + 30)) * mebibyte)
  }

  @Test func `Shared memory is not free`() {
    let root = version2(
      path: "/a",
      [
        "a/memory.max": "\(512 * mebibyte)", "a/memory.current": "\(500 * mebibyte)",
        "a/memory.stat": "file \(490 * mebibyte)\nshmem \(490 * mebibyte)\nactive_file 0\n",
      ])
    #expect(available(root) == 12 * mebibyte)
  }

  @Test(
    "The tightest of all groups around the process counts, and memory.high as much as memory.max",
    arguments: ["memory.max", "memory.high"], ["", "a/", "a/b/", "a/b/c/"])
  func ancestors(file: String, folder: String) {
    let root = version2(
      path: "/a/b/c", ["a/b/memory.max": "\(4096 * mebibyte)", "a/b/c/memory.max": "max"])
    root.write("sys/fs/cgroup/\(folder)\(file)", "\(512 * mebibyte)")
    let limits = root.limits
    #expect(limits.availableByteCount == 512 * mebibyte)
    #expect(limits.memory?.path == "/sys/fs/cgroup/\(folder)\(file)")
  }

  @Test func `What others use of a limit around the process is not there for it`() {
    let root = version2(
      path: "/a/b",
      [
        "a/memory.max": "\(1024 * mebibyte)", "a/memory.current": "\(900 * mebibyte)",
        "a/b/memory.max": "\(512 * mebibyte)", "a/b/memory.current": "\(10 * mebibyte)",
      ])
    #expect(available(root) == 124 * mebibyte)
  }

  @Test(
    "Version 1 counts in its own group and in those around it, with its hierarchical numbers",
    arguments: ["", "/a", "/a/b"])
  func version1(folder: String) {
    let root = hybrid(
      path: "/a/b",
      [
        "memory\(folder)/memory.limit_in_bytes": "\(512 * mebibyte)\n",
        "memory\(folder)/memory.usage_in_bytes": "\(300 * mebibyte)\n",
        "memory\(folder)/memory.stat": "active_file 1\n"
          + Self.stat(active: 200, inactive: 50, dirty: 10, prefix: "total_"),
      ])
    #expect(available(root) == (512 - 60) * mebibyte)
  }

  @Test func `The largest number of version 1 is no limit`() {
    let root = hybrid(path: "/", ["memory/memory.limit_in_bytes": "9223372036854771712\n"])
    #expect(root.limits.memory == nil)
  }

  @Test func `A limit around a container that sees only its own group is in memory.stat`() {
    let root = hybrid(
      path: "/docker/f00", root: "/docker/f00",
      [
        "memory/memory.limit_in_bytes": "9223372036854771712",
        "memory/memory.usage_in_bytes": "\(100 * mebibyte)",
        "memory/memory.stat": "hierarchical_memory_limit \(512 * mebibyte)\n",
      ])
    let limits = root.limits
    #expect(limits.availableByteCount == 412 * mebibyte)
    #expect(limits.memory?.path == "/sys/fs/cgroup/memory/memory.stat")
  }

  @Test func `A group of version 1 that says it does not limit those within it does not`() {
    let limit = "\(64 * mebibyte)"
    let root = hybrid(
      path: "/a/b",
      ["memory/a/memory.limit_in_bytes": limit, "memory/a/memory.use_hierarchy": "0\n"])
    #expect(available(root) == Self.machineBytes)
    root.write("sys/fs/cgroup/memory/a/memory.use_hierarchy", "1\n")
    #expect(available(root) == 64 * mebibyte)
  }

  @Test func `A limit on the address space counts, without what is in use`() {
    let root = RecordedRoot(plainMachine)
    root.write("proc/self/limits", "Max address space         1073741824   unlimited   bytes\n")
    #expect(available(root) == 1 << 30 - 200_000 * 1024)
  }

  @Test(
    "What makes no sense is no limit, and no number is too large to be read",
    arguments: [
      "", "max", "-1", "x", "12 34", "99999999999999999999999999", "0x10", "9223372036854775807",
    ])
  func garbage(text: String) {
    let root = version2(path: "/a", ["a/memory.max": text, "a/memory.high": text])
    #expect(available(root) == Self.machineBytes)
    let usage = version2(
      path: "/a",
      [
        "a/memory.max": "\(512 * mebibyte)", "a/memory.current": text,
        "a/memory.stat": "active_file \(text)\ninactive_file \(text)\nfile_dirty \(text)\n",
      ])
    #expect((0...512 * mebibyte).contains(available(usage)))
  }

  @Test func `A machine that says nothing has a gibibyte and a processor`() {
    let limits = HostLimits(root: "/nowhere")
    #expect(limits.availableByteCount == 1 << 30)
    #expect(limits.processorCount >= 1)
    #expect(limits.findings.isEmpty)
  }

  @Test func `A budget beyond what slows the process down is warned of`() throws {
    let limits = version2(path: "/a", ["a/memory.high": "\(mebibyte)"]).limits
    #expect(limits.warnings(threadCount: nil, budget: mebibyte).isEmpty)
    let warning = limits.warnings(threadCount: nil, budget: 2 * mebibyte).first
    #expect(warning?.contains("memory.high") == true && warning?.contains("2 MiB") == true)
    try limits.check(budget: 1 << 40)
  }

  @Test(
    "A budget beyond what ends the process is refused, with the limit and what fits",
    arguments: [
      version2(
        path: "/a/b", ["a/memory.max": "\(60 * mebibyte)", "a/memory.current": "\(20 * mebibyte)"]),
      version2(
        path: "/a",
        [
          "a/memory.max": "\(60 * mebibyte)", "a/memory.high": "\(50 * mebibyte)",
          "a/memory.current": "\(10 * mebibyte)",
        ]),
      hybrid(
        path: "/a",
        [
          "memory/a/memory.limit_in_bytes": "\(60 * mebibyte)",
          "memory/a/memory.usage_in_bytes": "\(20 * mebibyte)",
        ]),
    ])
  func refusedBudgets(root: RecordedRoot) throws {
    let limits = root.limits
    try limits.check(budget: 60 * mebibyte)
    let error = #expect(throws: BudgetError.self) {
      try limits.check(budget: 60 * mebibyte + 1)
    }
    #expect(error?.roomByteCount == limits.ownByteCount + 40 * mebibyte)
    let text = error?.description ?? ""
    #expect(text.contains("/a/memory.") && text.contains("60 MiB"), "\(text)")
    #expect(limits.warnings(threadCount: nil, budget: 200 * mebibyte).count == 1)
  }
}
