import HostResources
import Testing

/// What a process in a container sees of the control groups that it is in.
@Suite struct ViewTests {
  /// Where a limit of 512 MB on `folder` is found by a process in `path`, with `root` mounted.
  private func found(path: String, root: String, _ folder: String) -> Bool {
    let both = [
      version2(path: path, root: root, ["\(folder)/memory.max": "512000000"]),
      hybrid(path: path, root: root, ["memory/\(folder)/memory.limit_in_bytes": "512000000"]),
    ].map { $0.limits.memory?.value == 512_000_000 }
    #expect(both[0] == both[1])
    return both[0]
  }

  @Test func `A container of docker without a namespace sees its own group as the root`() {
    #expect(found(path: "/docker/f00", root: "/docker/f00", "."))
    #expect(found(path: "/docker/f00/child", root: "/docker/f00", "child"))
    #expect(found(path: "/docker/f00/child", root: "/docker/f00", "."))
  }

  @Test func `In a namespace the process's own group is the root`() {
    #expect(found(path: "/", root: "/", "."))
    #expect(found(path: "/child", root: "/", "child"))
  }

  @Test func `A mount that begins above the namespace shows what is around it`() {
    // Which of the mounted groups is ours is not said.
    #expect(found(path: "/", root: "/..", "."))
    #expect(found(path: "/", root: "/../..", "."))
    // A process that was moved out of the namespace.
    #expect(found(path: "/../other", root: "/..", "other"))
    #expect(found(path: "/../other", root: "/", "."))
  }

  @Test func `A group of another name that begins alike is not ours`() {
    #expect(!found(path: "/ab", root: "/", "a"))
    #expect(!found(path: "/docker/f00", root: "/docker/f", "0"))
  }

  @Test func `A group that is gone leaves those around it`() {
    #expect(found(path: "/a/b (deleted)", root: "/", "a"))
  }

  @Test func `Of several mounts the one that shows most groups is read`() {
    let root = version2(path: "/a/b", ["memory.max": "512000000"])
    root.write(
      "proc/self/mountinfo",
      """
      40 1 0:26 /a/b /mnt/own rw - cgroup2 cgroup2 rw
      30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 master:1 - cgroup2 cgroup2 rw
      41 1 0:26 /other /mnt/other rw - cgroup2 cgroup2 rw

      """)
    root.write("mnt/other/memory.max", "1")
    // The one at /sys/fs/cgroup does not show our group's folder: another file system hides it.
    root.write("mnt/own/memory.max", "300000000")
    #expect(root.limits.memory?.value == 300_000_000)
    root.write("sys/fs/cgroup/a/b/cgroup.procs", "")
    #expect(root.limits.memory?.value == 512_000_000)
  }

  @Test func `A mount point may have spaces in its name, and a group a colon`() {
    let root = version2(path: "/x:y", [:])
    root.write(
      "proc/self/mountinfo", "30 23 0:26 / /my\\040groups rw - cgroup2 cgroup2 rw\n")
    root.write("my groups/x:y/memory.max", "512000000")
    #expect(root.limits.memory?.value == 512_000_000)
  }

  @Test func `In hybrid mode controllers of version 1 count beside an empty version 2`() {
    let root = hybrid(
      path: "/a",
      [
        "memory/a/memory.limit_in_bytes": "512000000", "pids/a/pids.max": "10",
        "pids/a/pids.current": "4", "cpu,cpuacct/a/cpu.cfs_quota_us": "300000",
        "cpu,cpuacct/a/cpu.cfs_period_us": "100000", "unified/cgroup.procs": "1",
      ])
    let limits = root.limits
    #expect(limits.memory?.value == 512_000_000)
    #expect(limits.processorCount == 3)
    #expect(limits.threads?.value == 10 && limits.threadRoom == 6)
  }

  @Test func `Threads are limited by every group, descriptors and locked memory by the process`() {
    let limits = version2(
      path: "/a/b",
      [
        "a/pids.max": "100", "a/pids.current": "99", "a/b/pids.max": "20",
        "a/b/pids.current": "5",
      ]
    ).limits
    #expect(limits.threads == StatedLimit(value: 20, path: "/sys/fs/cgroup/a/b/pids.max"))
    #expect(limits.threadRoom == 1)
    #expect(limits.mostThreads == StatedLimit(value: 2, path: "/sys/fs/cgroup/a/pids.max"))
    #expect(limits.descriptors?.value == 1024)
    #expect(limits.userThreads?.value == 96365)
    #expect(limits.lockedByteCount?.value == 8 << 20)
    #expect(limits.addressSpaceByteCount == nil)
  }

  @Test func `Garbage in place of the lists of groups is no group`() {
    let root = version2(path: "/a", ["a/memory.max": "512000000"])
    for text in [
      "", "\n\n", ":::::", "0", "0::", "0::a", "-", "x y z - cgroup2", "30 23 0:26 / - cgroup2 a b",
    ] {
      root.write("proc/self/cgroup", text)
      _ = root.limits
      root.write("proc/self/mountinfo", text)
      #expect(root.limits.memory == nil)
      root.write("proc/self/cgroup", "0::/a\n")
      #expect(root.limits.memory == nil)
      root.write("proc/self/mountinfo", "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n")
    }
    #expect(root.limits.memory?.value == 512_000_000)
  }

  @Test func `Every value is told with its file, once`() {
    let limits = version2(path: "/a", ["a/cpu.max": "50000 100000\n", "a/memory.max": "max\n"])
      .limits
    for finding in [
      ("cpu.max", "50000 100000", "/sys/fs/cgroup/a/cpu.max"),
      ("memory.max", "max", "/sys/fs/cgroup/a/memory.max"),
      ("Cpus_allowed", "ff", "/proc/thread-self/status"),
    ] {
      #expect(
        limits.findings.filter { ($0.name, $0.value, $0.path) == finding }.count == 1, "\(finding)")
    }
  }
}
