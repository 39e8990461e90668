import Glibc
import TestSupport
import Testing

/// Programs in a container: its processors, memory, threads and descriptors.
@Suite(
  .serialized,
  .enabled(if: Program.isBuilt, "the executables are not built beside the tests: swift build first")
)
final class ContainerTests {
  private let folder = TemporaryFolder()
  private var model: String { folder.path + "/model" }
  private static let mebibyte = 1 << 20
  private static let prompt = ["--tokens", "5,6,7", "--max-tokens", "4", "--temperature", "0"]

  init() { folder.write("model", TinyModel().gguf(seed: 1).bytes()) }

  /// A group with a limit, or a group without one in a group with it; the process goes into the first.
  private func groups(
    _ controller: String, onParent: Bool, _ limit: (ControlGroup) -> Void
  ) throws -> (inner: ControlGroup, outer: ControlGroup) {
    let outer = try #require(ControlGroup(controller))
    limit(outer)
    return (onParent ? try #require(ControlGroup(controller, in: outer)) : outer, outer)
  }

  /// The whole number after a key in JSON.
  private func number(_ key: String, in json: String) -> Int? {
    guard let start = json.ranges(of: "\"\(key)\":").last?.upperBound else { return nil }
    return Int(json[start...].prefix { $0.isNumber })
  }

  @Test(
    "The default of --threads is the quota of processors, rounded up",
    .enabled(if: ControlGroup.canBeMade("cpu"), "no control group of processors can be made here"),
    arguments: [false, true])
  func processors(onParent: Bool) throws {
    let (inner, outer) = try groups("cpu", onParent: onParent) { $0.limitProcessors(to: 0.5) }
    let result = try Program.run(
      "flashinfer-inspect", ["--machine", "--json"], launcher: inner.launcher)
    #expect(number("threads", in: result.output) == 1)
    #expect(result.output.contains("\"quota\":0.5"))
    #expect(result.output.contains(outer.path))
    let answer = try Program.run(
      "flashinfer-run", [model, "--threads", "3"] + Self.prompt, launcher: inner.launcher)
    #expect(answer.status == 0)
    #expect(answer.errors.components(of: "3 threads share the time of 0.5 processors") == 1)
  }

  @Test(
    "Files that were read leave the budget as it is, and a run within the limit ends well",
    .enabled(if: ControlGroup.canBeMade("memory"), "no control group of memory can be made here"),
    arguments: [false, true])
  func memory(onParent: Bool) throws {
    let limit = 256 * Self.mebibyte
    let (inner, outer) = try groups("memory", onParent: onParent) { $0.limitMemory(limit) }
    folder.write("read", [])
    #expect(truncate(folder.path + "/read", 220 * Self.mebibyte) == 0)
    // Read twice, its pages are among the active ones.
    let enter = inner.launcher
    let reading =
      enter + ["/bin/sh", "-c", #"cat "$0" "$0" >/dev/null && exec "$@""#, folder.path + "/read"]
    let result = try Program.run("flashinfer-inspect", ["--machine", "--json"], launcher: reading)
    let budget = try #require(number("budgetBytes", in: result.output), "\(result.errors)")
    #expect((limit / 10 * 6...limit / 10 * 9).contains(budget))
    #expect(result.output.contains(outer.path))
    for ram in ["\(budget)", "230MiB"] {
      let answer = try Program.run(
        "flashinfer-run", [model, "--ram", ram] + Self.prompt, launcher: reading)
      #expect(answer.status == 0, "\(answer.errors)")
    }
    for program in [["flashinfer-run"], ["flashinfer-bench", "decode"]] {
      let refused = try Program.run(
        program[0],
        program[1...] + [model, "--ram", "300MiB"] + (program.count > 1 ? [] : Self.prompt),
        launcher: enter)
      #expect(refused.status == 69, "\(refused.errors)")
      for words in ["300 MiB cannot be kept: \(outer.path)/", "256 MiB;", "MiB fit now"] {
        #expect(refused.errors.contains(words), "\(refused.errors)")
      }
    }
    let planned = try Program.run(
      "flashinfer-inspect", [model, "--plan", "--ram", "300MiB"], launcher: enter)
    #expect(planned.status == 0 && planned.errors.contains("300 MiB cannot be kept"))
  }

  @Test(
    "Where threads are refused, fewer compute, with the same answer and one warning",
    .enabled(if: ControlGroup.canBeMade("pids"), "no control group of processes can be made here"),
    arguments: [1, 2, 3])
  func threads(count: Int) throws {
    let (inner, _) = try groups("pids", onParent: count == 2) { $0.limitThreads(count) }
    let arguments = [model, "--threads", "4", "--io", "mmap"] + Self.prompt
    let expected = try Program.run("flashinfer-run", arguments)
    let result = try Program.run("flashinfer-run", arguments, launcher: inner.launcher)
    #expect(result.status == 0, "\(result.errors)")
    #expect(result.output == expected.output)
    #expect(result.errors.components(of: "the system refuses threads: \(count) of 4") == 1)
    #expect(result.errors.contains("pids.max allows \(count) threads"))
    let machine = try Program.run(
      "flashinfer-inspect", ["--machine", "--threads", "4"], launcher: inner.launcher)
    #expect(machine.output.contains("--threads: \(count) (of 4: "), "\(machine.output)")
    #expect(machine.output.contains("pids.max grants no more)"))
  }

  @Test(
    "Where a thread is needed and refused, the program ends with 69 and names the limit",
    .enabled(if: ControlGroup.canBeMade("pids"), "no control group of processes can be made here"))
  func neededThread() throws {
    let (inner, _) = try groups("pids", onParent: false) { $0.limitThreads(1) }
    for option in [
      ["--io", "pread"], ["--kv-store", folder.path], ["--attention", "in-storage"],
    ] {
      let result = try Program.run(
        "flashinfer-run", [model] + option + Self.prompt, launcher: inner.launcher)
      #expect(result.status == 69, "\(option): \(result.errors)")
      #expect(result.errors.contains("pids.max allows 1 threads and 0 more"), "\(result.errors)")
    }
  }

  @Test(
    "io_uring reads where it may start no worker for pages in the cache",
    .enabled(
      if: ControlGroup.canBeMade("pids") && access("/dev/shm", W_OK) == 0,
      "no control group of processes can be made here, or there is no /dev/shm"))
  func ringWorkers() throws {
    let copy = TemporaryFile(folder.read("model"), folder: "/dev/shm")
    let arguments = ["--io", "uring", "--threads", "1"] + Self.prompt
    let expected = try Program.run("flashinfer-run", [copy.path] + arguments)
    let (inner, _) = try groups("pids", onParent: false) { $0.limitThreads(1) }
    let result = try Program.run(
      "flashinfer-run", [copy.path] + arguments, launcher: inner.launcher)
    #expect(expected.status == 0 || expected.errors.contains("io_uring"))
    #expect(result.status == expected.status, "\(result.errors)")
    #expect(result.output == expected.output)
  }

  @Test(
    "A user's limit on processes is met as a group's is",
    .enabled(if: ContainerTests.canLimitUser, "no user without rights can be limited here"))
  func userThreads() throws {
    chmod(folder.path, 0o755)
    chmod(model, 0o644)
    let arguments = [model, "--threads", "3", "--io", "mmap"] + Self.prompt
    let result = try Program.run("flashinfer-run", arguments, launcher: Self.asLimitedUser)
    #expect(result.status == 0, "\(result.errors)")
    #expect(result.output == (try Program.run("flashinfer-run", arguments).output))
    #expect(result.errors.contains("the system refuses threads: 1 of 3"))
    #expect(result.errors.contains("this user may have 1 threads"))
    let machine = try Program.run(
      "flashinfer-inspect", ["--machine", "--json", "--threads", "3"],
      launcher: Self.asLimitedUser)
    #expect(number("threads", in: machine.output) == 1, "\(machine.output)")
  }

  /// A user that nobody else is, with room for one thread.
  private static let asLimitedUser = [
    "/usr/bin/setpriv", "--reuid=64999", "--regid=64999", "--clear-groups", "--",
    "/usr/bin/prlimit", "--nproc=1:1",
  ]

  private static let canLimitUser =
    getuid() == 0 && asLimitedUser.filter { $0.hasPrefix("/") }.allSatisfy { access($0, X_OK) == 0 }
    && (try? Program.run("flashinfer-run", ["--help"], launcher: asLimitedUser).status) == 0

  @Test(
    "Where descriptors run out, the program ends with 69 and says how to have more",
    .enabled(if: access("/usr/bin/prlimit", X_OK) == 0, "prlimit is missing"))
  func descriptors() throws {
    let copies = (0..<12).map { folder.write("copy\($0)", folder.read("model")) }
    let mirrors = copies.flatMap { ["--mirror", $0] }
    var isEnough = false
    for count in [5, 8, 12, 14, 16, 64] {
      let result = try Program.run(
        "flashinfer-run", [model] + mirrors + Self.prompt,
        launcher: ["/usr/bin/prlimit", "--nofile=\(count)"])
      isEnough = result.status == 0
      guard !isEnough else { continue }
      #expect(result.status == 69, "\(count): \(result.errors)")
      #expect(result.errors.contains("\(count) files open: `ulimit -n NUMBER`"), "\(result.errors)")
    }
    #expect(isEnough)
  }
}

extension String {
  /// How often `part` is in the text.
  fileprivate func components(of part: String) -> Int { ranges(of: part).count }
}
