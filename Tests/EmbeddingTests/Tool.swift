import Foundation

/// Runs the programs that these tests are about: compilers, examples, Python.
enum Tool {
  struct Result {
    var status: Int32
    var output: String
    var errors: String
  }

  static let root = URL(fileURLWithPath: #filePath)
    .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent().path
  /// Where `tools/test` installs the library, builds the Swift examples and makes the Python environment.
  static let prefix = root + "/.build/embed"
  /// Where it installs the library that needs no other, as it is in the Python package.
  static let selfContained = root + "/.build/embed-self-contained"
  static let swiftExamples = root + "/.build/examples/release"
  static let python = root + "/.build/python/bin/python3"
  static let programs = root + "/Tests/EmbeddingTests/Programs"

  /// The library's name for programs that are linked with it: it ends with the number of the interface.
  static let soname: String = {
    let header = try? String(
      contentsOfFile: root + "/Sources/CFlashInfer/include/flashinfer.h", encoding: .utf8)
    let version = header?.firstMatch(of: /#define FLASHINFER_ABI_VERSION (\d+)u/)?.output.1
    return "libflashinfer.so.\(version ?? "?")"
  }()

  static let isInstalled = exists(prefix + "/lib/" + soname)
  static let hasPython = exists(python)
  static let hasCMake = (try? run(["cmake", "--version"]))?.status == 0
  static let hasExamples = exists(swiftExamples + "/experts")
  static let smallModel: String? = {
    let environment = ProcessInfo.processInfo.environment
    let cache = environment["XDG_CACHE_HOME"] ?? (environment["HOME"] ?? "") + "/.cache"
    let path =
      (environment["FLASHINFER_MODELS"] ?? cache + "/flashinfer/models")
      + "/SmolLM2-135M-Instruct.Q4_1.gguf"
    return exists(path) ? path : nil
  }()

  private static func exists(_ path: String) -> Bool {
    FileManager.default.fileExists(atPath: path)
  }

  /// Runs a program that is found along PATH to its end.
  static func run(_ arguments: [String]) throws -> Result {
    let process = Process()
    process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
    process.arguments = arguments
    var environment = ProcessInfo.processInfo.environment
    environment["PKG_CONFIG_PATH"] = prefix + "/lib/pkgconfig"
    process.environment = environment
    let folder = NSTemporaryDirectory() + "flashinfer-tool-" + UUID().uuidString
    try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(atPath: folder) }
    let (out, err) = (folder + "/out", folder + "/err")
    for path in [out, err] { _ = FileManager.default.createFile(atPath: path, contents: nil) }
    process.standardOutput = FileHandle(forWritingAtPath: out)
    process.standardError = FileHandle(forWritingAtPath: err)
    process.standardInput = FileHandle.nullDevice
    try process.run()
    process.waitUntilExit()
    let status = process.terminationReason == .exit ? 0 : Int32(128)
    return Result(
      status: status + process.terminationStatus,
      output: try String(contentsOfFile: out, encoding: .utf8),
      errors: try String(contentsOfFile: err, encoding: .utf8))
  }

  /// Compiles a C program against the installed header and library, warnings being errors.
  static func compile(
    _ source: String, to output: String, options: [String] = []
  ) throws -> Result {
    let flags = try run(["pkg-config", "--cflags", "--libs", "flashinfer", "libxxhash"]).output
    return try run(
      ["clang", "-std=c11", "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-pedantic"]
        + ["-fuse-ld=lld", "-D_DEFAULT_SOURCE", "-pthread", "-o", output, source] + options
        + ["-Wl,-rpath," + prefix + "/lib"]
        + flags.split(whereSeparator: \.isWhitespace).map(String.init))
  }
}
