import Foundation
import Glibc
import TestSupport
import Testing

/// The unit and the container file say what the program and the system understand.
@Suite struct RecipeTests {
  private static let packaging =
    "/" + #filePath.split(separator: "/").dropLast(3).joined(separator: "/") + "/packaging/"

  private static func text(_ name: String) throws -> String {
    try String(contentsOfFile: packaging + name, encoding: .utf8)
  }

  private static let analyzer: String? = ["/usr/bin/systemd-analyze", "/bin/systemd-analyze"].first
  { (path: String) in
    access(path, X_OK) == 0
  }

  private static func run(_ arguments: [String]) throws -> (status: Int32, text: String) {
    let process = Process()
    process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
    process.arguments = arguments
    return try process.outcome()
  }

  @Test(.enabled(if: analyzer != nil, "systemd-analyze is not there"))
  func `The unit is one that systemd understands, and exposes little`() throws {
    let folder = TemporaryFolder()
    let prefix = folder.path + "/prefix"
    try FileManager.default.createDirectory(
      atPath: prefix + "/bin", withIntermediateDirectories: true)
    // It must be there and executable, which nothing runs.
    let program = prefix + "/bin/flashinfer-serve"
    #expect(FileManager.default.createFile(atPath: program, contents: nil))
    chmod(program, 0o755)
    let unit = folder.path + "/flashinfer-serve.service"
    let text = try Self.text("flashinfer-serve.service.in").replacing("@PREFIX@", with: prefix)
    try text.write(toFile: unit, atomically: false, encoding: .utf8)
    let analyzer = try #require(Self.analyzer)
    // The manual page is installed with the program.
    let found = try Self.run([analyzer, "verify", "--man=no", unit])
    #expect(found.status == 0 && !found.text.contains(unit), "\(found.text)")
    let help = try Self.run([analyzer, "--help"]).text
    guard help.contains("--threshold") else { return }
    let rated = try Self.run([analyzer, "security", "--offline=true", "--threshold=20", unit])
    #expect(rated.status == 0, "\(rated.text)")
    let changed = text.replacing("ProtectHome", with: "ProtectHouse")
    try changed.write(toFile: unit, atomically: false, encoding: .utf8)
    let wrong = try Self.run([analyzer, "verify", "--man=no", unit])
    #expect(wrong.text.contains("ProtectHouse"), "\(wrong.text)")
  }

  @Test(.enabled(if: ServerProgram.isBuilt, "flashinfer-serve is not built beside the tests"))
  func `Options of the recipes are the program's, and budgets fit`() throws {
    let help = try ServerProgram.run(["--help"]).text
    let (unit, settings) = (
      try Self.text("flashinfer-serve.service.in"), try Self.text("serve.conf")
    )
    let options = (unit + settings).matches(of: /\s(--[a-z][a-z-]+)/).map { String($0.output.1) }
    #expect(options.count >= 3)
    for option in options { #expect(help.contains(option), "\(option)") }
    let most = try #require(unit.firstMatch(of: /MemoryMax=(\d+)G/).flatMap { Int($0.output.1) })
    let budget = try #require(settings.firstMatch(of: /RAM=(\d+)GiB/).flatMap { Int($0.output.1) })
    #expect(budget * 5 <= most * 4)
    let container = try Self.text("Containerfile")
    #expect(container.contains("USER 65532") && container.contains("tools/server"))
  }
}
