import Glibc

/// A control group of its own within that of the tests, for one controller; it goes away with its last
/// reference.
final class ControlGroup {
  let path: String

  /// nil where no such group can be made, e.g. without root's rights.
  init?(_ controller: String, in parent: ControlGroup? = nil) {
    guard let base = parent?.path ?? Self.base(controller) else { return nil }
    path = "\(base)/flashinfer-test-\(getpid())-\(UInt32.random(in: 0 ... .max))"
    guard mkdir(path, 0o755) == 0 else { return nil }
  }

  deinit {
    // A process that ended leaves its group a moment later.
    for _ in 0..<100 where rmdir(path) != 0 && errno == EBUSY { usleep(10_000) }
  }

  /// Whether groups with limits of that kind can be made here.
  static func canBeMade(_ controller: String) -> Bool {
    guard let group = ControlGroup(controller) else { return false }
    let file = ["memory": "memory.stat", "cpu": "cpu.stat", "pids": "pids.max"][controller]
    return access("\(group.path)/\(file ?? "")", F_OK) == 0
  }

  var isVersion1: Bool { access("\(path)/cgroup.controllers", F_OK) != 0 }

  /// Sets a limit by the name of its file in version 2 or in version 1.
  func set(_ file: String, _ version1: [(file: String, value: String)], _ value: String) {
    for (name, value) in isVersion1 ? version1 : [(file, value)] {
      guard let file = fopen("\(path)/\(name)", "w") else { continue }
      fputs(value, file)
      fclose(file)
    }
  }

  func limitMemory(_ bytes: Int) {
    set("memory.max", [("memory.limit_in_bytes", "\(bytes)")], "\(bytes)")
  }

  func limitProcessors(to share: Double) {
    let quota = Int(share * 100_000)
    set(
      "cpu.max", [("cpu.cfs_period_us", "100000"), ("cpu.cfs_quota_us", "\(quota)")],
      "\(quota) 100000")
  }

  func limitThreads(_ count: Int) { set("pids.max", [("pids.max", "\(count)")], "\(count)") }

  /// Moves what it starts into the group.
  var launcher: [String] {
    ["/bin/sh", "-c", #"echo $$ >"$0/cgroup.procs" && exec "$@""#, path]
  }

  private static func base(_ controller: String) -> String? {
    ["/sys/fs/cgroup/\(controller)", "/sys/fs/cgroup"].first {
      access("\($0)/cgroup.procs", W_OK) == 0
    }
  }
}
