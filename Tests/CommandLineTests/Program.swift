import Glibc
import TestSupport

/// One of the package's executables, as built beside the tests.
enum Program {
  struct Result {
    /// The exit code, or 128 + the signal's number.
    var status: Int32
    var output: String
    var errors: String
  }

  struct NotStarted: Error {}

  /// The folder the test bundle lies in.
  static let directory: String = {
    var path = [CChar](repeating: 0, count: 4096)
    let count = readlink("/proc/self/exe", &path, path.count - 1)
    let own = path.prefix(max(0, count)).map { UInt8(bitPattern: $0) }
    let executable = String(decoding: own, as: UTF8.self)
    // The bundle is the executable itself, or is loaded by a runner that names it as an argument.
    for candidate in [executable] + CommandLine.arguments where candidate.contains("/.build/") {
      guard let end = candidate.lastIndex(of: "/") else { continue }
      let folder = String(candidate[..<end])
      if access(folder + "/flashinfer-run", X_OK) == 0 { return folder }
    }
    let root = #filePath.split(separator: "/").dropLast(3).joined(separator: "/")
    return "/\(root)/.build/release"
  }()

  static let isBuilt = ["flashinfer-run", "flashinfer-inspect"].allSatisfy {
    access("\(directory)/\($0)", X_OK) == 0
  }

  /// Runs a shell command to its end; `$BIN` is the folder of the executables.
  static func shell(_ command: String, environment: [String] = []) throws -> Result {
    try run(
      "", [], environment: environment + ["BIN=\(directory)"],
      launcher: ["/bin/sh", "-c", command])
  }

  /// Runs a program to its end, or sends it `signal` after `seconds`.
  ///
  /// - Parameters:
  ///   - environment: `NAME=value` strings in place of this process's own of that name.
  ///   - launcher: a program by its path, with arguments, that is given the command and becomes it.
  static func run(
    _ name: String, _ arguments: [String], input: [UInt8] = [], keepsInputOpen: Bool = false,
    environment: [String] = [], launcher: [String] = [],
    signal: (number: Int32, afterMilliseconds: UInt32)? = nil
  ) throws -> Result {
    let folder = TemporaryFolder()
    folder.write("in", input)
    let (inPath, outPath, errorPath) = (
      folder.path + "/in", folder.path + "/out", folder.path + "/err"
    )
    var actions = posix_spawn_file_actions_t()
    posix_spawn_file_actions_init(&actions)
    defer { posix_spawn_file_actions_destroy(&actions) }
    var ends: [Int32] = [-1, -1]
    if keepsInputOpen {
      guard pipe(&ends) == 0 else { throw NotStarted() }
      for end in ends { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
      posix_spawn_file_actions_adddup2(&actions, ends[0], 0)
    } else {
      posix_spawn_file_actions_addopen(&actions, 0, inPath, O_RDONLY, 0)
    }
    defer { for end in ends where end >= 0 { close(end) } }
    posix_spawn_file_actions_addopen(&actions, 1, outPath, O_WRONLY | O_CREAT, 0o600)
    posix_spawn_file_actions_addopen(&actions, 2, errorPath, O_WRONLY | O_CREAT, 0o600)
    let process = try start(
      launcher + ["\(directory)/\(name)"] + arguments, environment, &actions)
    if let signal {
      usleep(signal.afterMilliseconds * 1000)
      kill(process, signal.number)
    }
    let status = waitForEnd(of: process)
    let ending = status & 0x7F
    return Result(
      status: ending == 0 ? (status >> 8) & 0xFF : 128 + ending,
      output: String(decoding: folder.read("out"), as: UTF8.self),
      errors: String(decoding: folder.read("err"), as: UTF8.self))
  }
}

extension Program {
  /// Starts a command with `actions`, in a session of its own where asked for.
  static func start(
    _ command: [String], _ environment: [String], _ actions: inout posix_spawn_file_actions_t,
    inSession: Bool = false
  ) throws -> pid_t {
    var argv: [UnsafeMutablePointer<CChar>?] = command.map { strdup($0) }
    defer { for argument in argv { free(argument) } }
    argv.append(nil)
    let added = environment.map { strdup($0) }
    defer { for variable in added { free(variable) } }
    var envp: [UnsafeMutablePointer<CChar>?] = added
    var own = environ
    while let variable = own.pointee {
      let name = String(cString: variable).prefix { $0 != "=" } + "="
      if !environment.contains(where: { $0.hasPrefix(name) }) { envp.append(variable) }
      own += 1
    }
    envp.append(nil)
    var process: pid_t = 0
    var attributes = unblockedSignals(inSession: inSession)
    defer { posix_spawnattr_destroy(&attributes) }
    guard posix_spawn(&process, command[0], &actions, &attributes, &argv, &envp) == 0
    else { throw NotStarted() }
    return process
  }

  /// The threads that tests run on block signals, which a program they start would inherit.
  private static func unblockedSignals(inSession: Bool) -> posix_spawnattr_t {
    var attributes = posix_spawnattr_t()
    posix_spawnattr_init(&attributes)
    var none = sigset_t()
    sigemptyset(&none)
    var all = sigset_t()
    sigfillset(&all)
    posix_spawnattr_setsigmask(&attributes, &none)
    posix_spawnattr_setsigdefault(&attributes, &all)
    // POSIX_SPAWN_SETSID, which the Glibc module does not have.
    let session: Int32 = inSession ? 0x80 : 0
    posix_spawnattr_setflags(
      &attributes, Int16(POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | session))
    return attributes
  }

  /// The wait status of a process, which is killed where it does not end within a minute.
  static func waitForEnd(of process: pid_t) -> Int32 {
    var status: Int32 = 0
    for _ in 0..<60_000 {
      let ended = waitpid(process, &status, WNOHANG)
      if ended == process || (ended < 0 && errno != EINTR) { return status }
      usleep(1000)
    }
    kill(process, SIGKILL)
    waitpid(process, &status, 0)
    return status
  }
}
