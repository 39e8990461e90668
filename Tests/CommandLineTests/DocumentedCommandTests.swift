import Foundation
import TestSupport
import Testing

/// Commands that the documents show are commands that work.
@Suite(
  .serialized,
  .enabled(if: Program.isBuilt, "the executables are not built beside the tests: swift build first")
)
struct DocumentedCommandTests {
  private static let root = URL(fileURLWithPath: #filePath)
    .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()

  private static func text(_ path: String) throws -> String {
    try String(contentsOf: root.appendingPathComponent(path), encoding: .utf8)
  }

  /// Lines inside the fenced blocks of a page, of those whose fence names `language` where it is given.
  private static func code(_ page: String, language: String? = nil) throws -> [String] {
    var lines: [String] = []
    var fence: String?
    for line in try text(page).components(separatedBy: "\n") {
      if line.hasPrefix("```") {
        fence = fence == nil ? String(line.dropFirst(3)) : nil
      } else if let fence, language == nil || language == fence {
        lines.append(line)
      }
    }
    return lines
  }

  @Test(
    .enabled(if: RealModels.smolLM2 != nil, "SmolLM2 is not there: tools/test fetches it"))
  func `The lines that the README says can be pasted work, each after the ones before`() throws {
    let lines = try Self.code("README.md", language: "sh")
    #expect(lines.count >= 10)
    let models = try #require(RealModels.smolLM2).split(separator: "/").dropLast().joined(
      separator: "/")
    let folder = TemporaryFolder()
    var variables = "cd '\(folder.path)'\nPATH=$BIN:$PATH\n"
    for line in lines {
      let command = line.replacingOccurrences(of: "~/.cache/flashinfer/models", with: "/\(models)")
      let result = try Program.shell(variables + command)
      #expect(result.status == 0, "\(line)\n\(result.errors)")
      if command.contains(try Regex("^[a-z]+=")) { variables += command + "\n" }
    }
  }

  @Test(arguments: ["README.md", "docs/commands.md", "docs/in-storage-device.md"])
  func `Options that documents show are in the help of their program`(page: String) throws {
    let command = try Regex<(Substring, Substring, Substring)>(
      #"(flashinfer-[a-z]+)((?: [^#|]*)?)"#)
    var count = 0
    for line in try Self.code(page) {
      guard let match = line.firstMatch(of: command) else { continue }
      let words = match.output.2.split(separator: " ")
      var help = ["--help"]
      if match.output.1 == "flashinfer-bench", let subcommand = words.first {
        help.insert(String(subcommand), at: 0)
      }
      let result = try Program.run(String(match.output.1), help)
      #expect(result.status == 0, "\(page): \(line)")
      for option in words where option.hasPrefix("--") && option != "--" && option != "--help" {
        count += 1
        #expect(result.output.contains("\(option)"), "\(page): \(option) in: \(line)")
      }
    }
    #expect(count > 0, "\(page) shows no options")
  }
}
