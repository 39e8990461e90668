import Foundation
import ModelFormat
import Runtime
import TestSupport
import Testing

/// The program: where it listens, what it refuses and how it stops.
@Suite(
  .enabled(if: ServerProgram.isBuilt, "flashinfer-serve is not built beside the tests"))
struct ServerProgramTests {
  private static func request(tokenCount: Int) -> String {
    HTTPClient.request(
      "/v1/completions",
      "{\"prompt\":\"the\",\"max_tokens\":\(tokenCount),\"ignore_eos\":true,\"stream\":true}")
  }

  @Test func `A signal lets answers under way be finished`() async throws {
    let program = try ServerProgram(["--context", "8192"])
    let reply = try await HTTPClient.exchange(Self.request(tokenCount: 4000), program.port) {
      program.process.terminate()
    }
    #expect(reply.events.last == "[DONE]")
    #expect(reply.events.dropLast().last?.contains("\"finish_reason\":\"length\"") == true)
    program.process.waitUntilExit()
    #expect(program.process.terminationStatus == 0)
  }

  @Test func `It says when it stops and what it waits for`() async throws {
    let program = try ServerProgram(["--context", "8192"])
    _ = try await HTTPClient.exchange(Self.request(tokenCount: 2000), program.port) {
      program.process.terminate()
    }
    program.process.waitUntilExit()
    let said = program.said
    #expect(said.contains("stopping: ") && said.contains("finished first"), "\(said)")
    #expect(said.contains("stopped: ") && said.contains(" tokens were answered"), "\(said)")
  }

  @Test func `Few connections are as few as was asked for`() throws {
    let model = TemporaryFile(ServerRig.modelBytes)
    for count in [1, 5, 300] {
      let plan = try ServerProgram.run([model.path, "--plan", "--connections", "\(count)"])
      #expect(plan.status == 0 && plan.text.contains("server: \(count) connections"), "\(plan)")
    }
  }

  @Test func `Nothing uses the event loop when the server has ended`() async throws {
    // Whether something does is chance; it was one stop in twenty.
    try await withThrowingTaskGroup(of: Void.self) { group in
      for _ in 0..<8 {
        group.addTask { for _ in 0..<6 { try await Self.stopStrictly() } }
      }
      try await group.waitForAll()
    }
  }

  /// Has a server answer and end; NIO ends the process with a signal where something uses an event loop that is over.
  private static func stopStrictly() async throws {
    let program = try ServerProgram(
      ["--context", "8192"], environment: ["SWIFTNIO_STRICT": "1", "SWIFT_BACKTRACE": "enable=no"])
    let port = program.port
    try await withThrowingTaskGroup(of: HTTPReply.self) { group in
      for _ in 0..<3 {
        group.addTask { try await HTTPClient.exchange(request(tokenCount: 300), port) }
      }
      try await group.waitForAll()
    }
    program.process.terminate()
    program.process.waitUntilExit()
    #expect(program.process.terminationReason == .exit)
    #expect(program.process.terminationStatus == 0)
  }

  @Test func `A second signal ends the process at once`() async throws {
    let program = try ServerProgram(["--context", "65536"])
    // Far more than is ever answered.
    _ = try? await HTTPClient.exchange(Self.request(tokenCount: 60000), program.port) {
      program.process.interrupt()
      // Until it listens no more, the first signal may not have arrived.
      while (try? await HTTPClient.get("/health", program.port)) != nil {}
      program.process.interrupt()
    }
    program.process.waitUntilExit()
    #expect(program.process.terminationStatus == 130)
  }

  @Test func `A port that is taken is named, and what contradicts itself is refused`() throws {
    let program = try ServerProgram([])
    let path = program.file.path
    let taken = try ServerProgram.run([path, "--no-kv-store", "--port", "\(program.port)"])
    #expect(taken.status == 1 && taken.text.contains("127.0.0.1, port \(program.port): Address"))
    let both = try ServerProgram.run([path, "--no-kv-store", "--kv-store", "/tmp/none"])
    #expect(both.status == 64 && both.text.contains("contradict"), "\(both.text)")
  }

  @Test func `Whatever is sent, the process keeps to its memory`() async throws {
    let (budget, length) = (160, 128 << 10)
    let program = try ServerProgram([
      "--ram", "\(budget)MiB", "--context", "1024", "--max-body", "128KiB",
    ])
    let port = program.port
    let bodies = ["0,", "[],", "[0],", "{\"\":0},", "\"x\","].map { part in
      "{\"prompt\":[\(String(repeating: part, count: length / part.utf8.count - 9))0]}"
    }
    let word = "{\"prompt\":\"\(String(repeating: "x", count: length - 20))\"}"
    try await withThrowingTaskGroup(of: Int.self) { group in
      for body in bodies + [word] {
        for _ in 0..<8 {
          group.addTask { try await HTTPClient.post("/v1/completions", body, port).status }
        }
      }
      for try await status in group { #expect([400, 503].contains(status)) }
    }
    #expect(try await HTTPClient.post("/v1/completions", #"{"prompt":"a"}"#, port).status == 200)
    let peak = try program.peakKibibytes
    #expect(peak <= budget << 10, "\(peak) KiB")
  }

  @Test func `Addresses that others reach are refused, and ports that are taken`() async throws {
    let program = try ServerProgram([])
    for (arguments, status, message) in [
      (["--host", "0.0.0.0"], 64, "--api-key-file"), (["--port", "70000"], 64, "--port"),
      (["--host", "0.0.0.0", "--api-key-file", program.file.path], 1, "bytes"),
      (["--unix-socket", "a", "--port", "1"], 64, "--unix-socket"),
      (["--allow-origin", "chat.example"], 64, "--allow-origin"),
      (["--allow-host", "a b"], 64, "--allow-host"),
      (["--sequences", "0"], 64, "--sequences"),
      (["--port", "\(program.port)"], 1, "Address already in use"),
    ] as [([String], Int32, String)] {
      let other = try ServerProgram.run([program.file.path] + arguments)
      #expect(other.status == status && other.text.contains(message), "\(other)")
    }
  }

  @Test func `SIGHUP has the keys read again, and a file that is refused changes nothing`()
    async throws
  {
    let (first, second) = (String(repeating: "a", count: 16), String(repeating: "b", count: 16))
    let file = TemporaryFile(Array(first.utf8))
    chmod(file.path, 0o600)
    let program = try ServerProgram(["--api-key-file", file.path])
    func status(_ key: String) async throws -> Int {
      let head = HTTPClient.head("GET /props", ["Authorization: Bearer \(key)"])
      return try await HTTPClient.exchange(head, program.port).status
    }
    func write(_ text: String) throws {
      let handle = try #require(FileHandle(forWritingAtPath: file.path))
      try handle.truncate(atOffset: 0)
      try handle.write(contentsOf: Array(text.utf8))
      kill(program.process.processIdentifier, SIGHUP)
    }
    #expect(try await status(first) == 200)
    #expect(try await status(second) == 401)
    try write("short")
    try write(second)
    while try await status(second) != 200 {}
    #expect(try await status(first) == 401)
    try write("short")
    for _ in 0..<20 { #expect(try await status(second) == 200) }
  }

  @Test func `A socket in the file system is its owner's, and goes with the server`() async throws {
    let folder = TemporaryFolder()
    let path = folder.path + "/socket"
    func mode() -> mode_t? {
      var status = stat()
      return lstat(path, &status) == 0 ? status.st_mode & 0o7777 : nil
    }
    let head = HTTPClient.head("GET /health", host: "any.name")
    let killed = try ServerProgram(["--unix-socket", path])
    #expect(mode() == 0o600)
    let refused = try ServerProgram.run([killed.file.path, "--unix-socket", path])
    #expect(refused.status == 1 && refused.text.contains("is listening"), "\(refused)")
    #expect(try await HTTPClient.exchange(head, 0, socketPath: path).status == 200)
    kill(killed.process.processIdentifier, SIGKILL)
    killed.process.waitUntilExit()
    #expect(mode() != nil)
    let program = try ServerProgram(["--unix-socket", path])
    #expect(try await HTTPClient.exchange(head, 0, socketPath: path).status == 200)
    program.process.terminate()
    program.process.waitUntilExit()
    #expect(program.process.terminationStatus == 0 && mode() == nil)
    let other = try ServerProgram.run([program.file.path, "--unix-socket", program.file.path])
    #expect(other.status == 1 && other.text.contains("no socket"), "\(other)")
  }

  @Test func `Options that its page shows are in its help`() throws {
    let root = URL(fileURLWithPath: #filePath)
      .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
    let page = try String(
      contentsOf: root.appendingPathComponent("docs/serving.md"), encoding: .utf8)
    // What follows is also of other programs: a bench, service managers, clients.
    let own = try #require(page.range(of: "\n## Load\n"))
    let lines = page[own.upperBound...].split(separator: "\n").filter {
      $0.hasPrefix("flashinfer-serve ")
    }
    let options = ([page[..<own.lowerBound]] + lines).flatMap { part in
      part.matches(of: /--[a-z]+(?:-[a-z]+)*/).map { String($0.output) }
    }
    #expect(options.count > 20)
    let help = try ServerProgram.run(["--help"])
    #expect(help.status == 0)
    for option in Set(options) { #expect(help.text.contains("\(option) "), "\(option)") }
  }
}

/// `flashinfer-serve` as built beside the tests, with a tiny model; it ends with its last reference.
final class ServerProgram {
  let process = Process()
  let file: TemporaryFile
  private let cache = TemporaryFolder()
  private let errors = TemporaryFile([])
  private(set) var port = 0

  /// What it has said of itself so far.
  var said: String { (try? String(contentsOfFile: errors.path, encoding: .utf8)) ?? "" }

  private static let path = path(of: "flashinfer-serve")

  static func path(of program: String) -> String {
    let root = #filePath.split(separator: "/").dropLast(3).joined(separator: "/")
    let folders = CommandLine.arguments.filter { $0.contains("/.build/") }.map {
      ($0 as NSString).deletingLastPathComponent
    }
    let candidates = (folders + ["/\(root)/.build/release"]).map { $0 + "/\(program)" }
    return candidates.first { access($0, X_OK) == 0 } ?? candidates[candidates.count - 1]
  }

  static let isBuilt = access(path, X_OK) == 0

  /// Starts it, and waits until it listens.
  init(_ arguments: [String], environment: [String: String] = [:]) throws {
    file = TemporaryFile(ServerRig.modelBytes)
    let output = Pipe()
    process.executableURL = URL(fileURLWithPath: Self.path)
    let isOnPort = !arguments.contains("--unix-socket")
    process.arguments = [file.path] + (isOnPort ? ["--port", "0"] : []) + arguments
    process.standardOutput = output
    process.standardError = try FileHandle(
      forWritingTo: URL(fileURLWithPath: errors.path))
    // What it keeps by default goes with it.
    process.environment = Self.environment(cache).merging(environment) { $1 }
    try process.run()
    let line = String(decoding: output.fileHandleForReading.availableData, as: UTF8.self)
    guard isOnPort else {
      #expect(line.hasPrefix("listening on unix:"))
      return
    }
    let digits = line.split(separator: ":").last?.filter(\.isNumber) ?? ""
    port = try #require(Int(digits), "\(line)")
  }

  /// The most memory that it had.
  var peakKibibytes: Int {
    get throws {
      let status = try String(
        contentsOfFile: "/proc/\(process.processIdentifier)/status", encoding: .utf8)
      let peak = status.split(separator: "\n").first { $0.hasPrefix("VmHWM") }
      return peak.flatMap { Int($0.filter(\.isNumber)) } ?? .max
    }
  }

  private static func environment(_ cache: TemporaryFolder) -> [String: String] {
    ProcessInfo.processInfo.environment.merging(["XDG_CACHE_HOME": cache.path]) { $1 }
  }

  deinit { if process.isRunning { kill(process.processIdentifier, SIGKILL) } }

  /// Runs it to its end, with what it says on either output.
  static func run(
    _ arguments: [String], program: String = "flashinfer-serve"
  ) throws -> (status: Int32, text: String) {
    let (process, cache) = (Process(), TemporaryFolder())
    process.executableURL = URL(fileURLWithPath: path(of: program))
    process.arguments = arguments
    process.environment = environment(cache)
    return try process.outcome()
  }
}

extension Process {
  /// Runs it to its end, with what it says on either output.
  func outcome() throws -> (status: Int32, text: String) {
    let output = Pipe()
    standardOutput = output
    standardError = output
    try run()
    let text = String(
      decoding: output.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
    waitUntilExit()
    return (terminationStatus, text)
  }
}
