import Glibc

/// What the system says about this process: its memory, the machine's, the control group's, its reads.
public enum ProcessMemory {
  /// The largest resident set so far (VmHWM), or 0 where /proc is missing.
  public static var peakResidentByteCount: Int { statusField("VmHWM:") }

  /// The resident set now (VmRSS).
  public static var residentByteCount: Int { statusField("VmRSS:") }

  /// Bytes that the kernel fetched from storage for this process (read_bytes), or 0 where it does not
  /// say.
  public static var storageReadByteCount: Int {
    field("read_bytes:", in: "/proc/self/io", unit: 1) ?? 0
  }

  /// A budget for when the user names none: 80 % of what the control group or the machine has free,
  /// whichever is less.
  public static func safeBudget() -> Int {
    var available = Int.max
    if let machine = field("MemAvailable:", in: "/proc/meminfo") { available = machine }
    for (limitPath, usagePath, reclaimable) in controlGroupFiles() {
      guard let limit = integer(in: limitPath), limit < Int.max / 2 else { continue }
      let usage = max(0, (integer(in: usagePath) ?? 0) - reclaimable)
      available = min(available, max(0, limit - usage))
    }
    if available == Int.max { available = 1 << 30 }
    return available / 10 * 8
  }

  /// Limit and usage files of this process's control group (v2, v1) with the bytes of page cache in
  /// that usage.
  private static func controlGroupFiles() -> [(limit: String, usage: String, reclaimable: Int)] {
    var files: [(String, String, Int)] = []
    for line in contents("/proc/self/cgroup").split(separator: "\n") {
      let parts = line.split(separator: ":", maxSplits: 2, omittingEmptySubsequences: false)
      guard parts.count == 3 else { continue }
      let group = parts[2] == "/" ? "" : String(parts[2])
      if parts[0] == "0" {
        for root in ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"] {
          let cache = field("inactive_file", in: root + group + "/memory.stat", unit: 1) ?? 0
          files.append((root + group + "/memory.max", root + group + "/memory.current", cache))
        }
      } else if parts[1].split(separator: ",").contains("memory") {
        let base = "/sys/fs/cgroup/memory" + group
        let cache = field("total_inactive_file", in: base + "/memory.stat", unit: 1) ?? 0
        files.append((base + "/memory.limit_in_bytes", base + "/memory.usage_in_bytes", cache))
      }
    }
    return files
  }

  private static func statusField(_ name: String) -> Int {
    field(name, in: "/proc/self/status") ?? 0
  }

  /// The number behind `name` in a file of "name number" lines, times `unit`.
  private static func field(_ name: String, in path: String, unit: Int = 1024) -> Int? {
    for line in contents(path).split(separator: "\n") {
      let words = line.split(whereSeparator: { $0 == " " || $0 == "\t" })
      if words.count >= 2, words[0] == name { return Int(words[1]).map { $0 * unit } }
    }
    return nil
  }

  private static func integer(in path: String) -> Int? {
    Int(contents(path).filter { $0 != "\n" })
  }

  private static func contents(_ path: String) -> String {
    guard let file = fopen(path, "re") else { return "" }
    defer { fclose(file) }
    var bytes: [UInt8] = []
    var block = [UInt8](repeating: 0, count: 4096)
    while case let count = fread(&block, 1, block.count, file), count > 0 {
      bytes.append(contentsOf: block[..<count])
    }
    return String(decoding: bytes, as: UTF8.self)
  }
}
