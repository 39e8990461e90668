import Glibc
import HostResources

/// A folder with the files of a machine, which goes away with its last reference.
final class RecordedRoot: Sendable {
  let path: String

  /// - Parameter files: contents by path below the root, without a slash before it.
  init(_ files: [String: String]) {
    var template = Array("/tmp/flashinfer-root-XXXXXX".utf8CString)
    precondition(mkdtemp(&template) != nil, "/tmp cannot be written to")
    path = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
    for (name, text) in files { write(name, text) }
  }

  deinit { Self.remove(path) }

  /// What a process on that machine may use.
  var limits: HostLimits { withExtendedLifetime(self) { HostLimits(root: path) } }

  func write(_ name: String, _ text: String) {
    let parts = name.split(separator: "/")
    var folder = path
    for part in parts.dropLast() {
      folder += "/\(part)"
      mkdir(folder, 0o700)
    }
    guard let file = fopen("\(path)/\(name)", "w") else { preconditionFailure("\(name)") }
    fputs(text, file)
    fclose(file)
  }

  private static func remove(_ path: String) {
    guard let folder = opendir(path) else {
      unlink(path)
      return
    }
    while let entry = readdir(folder) {
      let name = withUnsafeBytes(of: &entry.pointee.d_name) { bytes in
        String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
      }
      if name == "." || name == ".." { continue }
      if entry.pointee.d_type == DT_DIR {
        remove("\(path)/\(name)")
      } else {
        unlink("\(path)/\(name)")
      }
    }
    closedir(folder)
    rmdir(path)
  }
}

/// Files of a machine of eight processors and 8 GB of free memory, without control groups.
let plainMachine = [
  "proc/thread-self/status": "Name:\tx\nCpus_allowed:\tff\nCpus_allowed_list:\t0-7\n",
  "proc/self/status": "VmSize:\t  200000 kB\n",
  "proc/meminfo": "MemTotal:       16000000 kB\nMemFree:  1 kB\nMemAvailable:    8000000 kB\n",
  "proc/self/limits": """
  Limit                     Soft Limit           Hard Limit           Units
  Max processes             96365                96365                processes
  Max open files            1024                 20000                files
  Max locked memory         8388608              8388608              bytes
  Max address space         unlimited            unlimited            bytes

  """,
]

/// A machine with version 2 alone: the process is in `path`, and `root` of the hierarchy is mounted.
func version2(path: String, root: String = "/", _ files: [String: String]) -> RecordedRoot {
  var all = plainMachine
  all["proc/self/cgroup"] = "0::\(path)\n"
  all["proc/self/mountinfo"] = """
    22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
    30 23 0:26 \(root) /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate

    """
  for (name, text) in files { all["sys/fs/cgroup/\(name)"] = text }
  return RecordedRoot(all)
}

/// A machine with version 1 and, beside it, an empty version 2, as systemd's hybrid mode has it.
func hybrid(path: String, root: String = "/", _ files: [String: String]) -> RecordedRoot {
  var all = plainMachine
  all["proc/self/cgroup"] = """
    9:name=systemd:\(path)
    8:pids:\(path)
    4:memory:\(path)
    2:cpu,cpuacct:\(path)
    0::/

    """
  let controllers = ["memory", "cpu,cpuacct", "pids", "name=systemd"]
  var mounts = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n"
  for (number, name) in controllers.enumerated() {
    mounts +=
      "\(40 + number) 31 0:\(30 + number) \(root) /sys/fs/cgroup/\(name) rw - cgroup cgroup rw,\(name)\n"
  }
  mounts += "60 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n"
  all["proc/self/mountinfo"] = mounts
  for (name, text) in files { all["sys/fs/cgroup/\(name)"] = text }
  return RecordedRoot(all)
}
