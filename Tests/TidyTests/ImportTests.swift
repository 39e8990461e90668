import Foundation
import Testing

/// Rules of the sources that no compiler checks.
@Suite struct ImportTests {
  private static let root = URL(fileURLWithPath: #filePath)
    .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()

  private struct Source {
    let path: String
    let target: String
    let lines: [String]
    var imports: [String] {
      lines.compactMap { line in
        var words = line.split(separator: " ").map(String.init)
        if ["public", "package", "internal", "@testable"].contains(words.first) {
          words.removeFirst()
        }
        guard words.count >= 2, words[0] == "import" else { return nil }
        return words[1]
      }
    }
  }

  private static let sources: [Source] = {
    let folder = root.appendingPathComponent("Sources")
    guard let walk = FileManager.default.enumerator(atPath: folder.path) else { return [] }
    let endings = [".swift", ".c", ".h", ".inc"]
    return walk.compactMap { $0 as? String }.filter { path in
      endings.contains { path.hasSuffix($0) }
    }.sorted().compactMap { path in
      guard
        let text = try? String(contentsOf: folder.appendingPathComponent(path), encoding: .utf8)
      else { return nil }
      return Source(
        path: path, target: String(path.prefix { $0 != "/" }),
        lines: text.split(separator: "\n", omittingEmptySubsequences: false).map(String.init))
    }
  }()

  /// The table of docs/architecture.md: what each library may import of ours, in words.
  private static func allowedImports() throws -> [String: Set<String>] {
    let text = try String(
      contentsOf: root.appendingPathComponent("docs/architecture.md"), encoding: .utf8)
    var table: [String: Set<String>] = [:]
    for line in text.split(separator: "\n") where line.hasPrefix("| `") {
      let cells = line.split(separator: "|").map { $0.trimmingCharacters(in: .whitespaces) }
      guard cells.count == 3 else { continue }
      let targets = cells[0].split(separator: ",").map {
        $0.trimmingCharacters(in: CharacterSet(charactersIn: "` "))
      }
      var imports = Set(
        cells[2].split(separator: ",").map { $0.trimmingCharacters(in: .whitespaces) })
      if cells[2].hasPrefix("all above but ") {
        imports = Set(table.keys).subtracting([String(cells[2].dropFirst("all above but ".count))])
      }
      if cells[2] == "Runtime and below" {
        imports = Set(table.keys).subtracting(["ModelConversion"])
      }
      for target in targets { table[target] = imports }
    }
    return table
  }

  @Test func `Libraries import only what the architecture's table allows`() throws {
    let table = try Self.allowedImports()
    #expect(table.count > 12)
    for source in Self.sources {
      guard let allowed = table[source.target] else { continue }
      for module in source.imports where table[module] != nil && module != source.target {
        #expect(allowed.contains(module), "\(source.path) imports \(module)")
      }
    }
  }

  @Test func `Foundation is only where JSON is`() {
    let libraries = ["ModelFormat", "CommandLineSupport"]
    for source in Self.sources {
      for module in source.imports where module.hasPrefix("Foundation") {
        #expect(module == "FoundationEssentials", "\(source.path) imports \(module)")
        #expect(
          libraries.contains(source.target) || source.target.hasPrefix("flashinfer-"),
          "\(source.path) imports \(module)")
      }
    }
  }

  @Test func `Only BlockIO sees io_uring`() {
    for source in Self.sources where source.imports.contains("CLinuxURing") {
      #expect(source.target == "BlockIO", "\(source.path)")
    }
  }

  @Test func `Only HostResources starts threads and reads the machine's limits`() {
    let banned = [
      "pthread_create", "sched_getaffinity", "/sys/fs/cgroup", "/proc/meminfo", "getrlimit",
    ]
    for source in Self.sources where source.target != "HostResources" {
      for (number, line) in source.lines.enumerated() {
        for name in banned {
          #expect(!line.contains(name), "\(source.path):\(number + 1): \(name)")
        }
      }
    }
  }

  @Test func `Files are one idea long, and nothing is left to do without an issue`() {
    #expect(Self.sources.count > 100)
    for source in Self.sources {
      #expect(source.lines.count <= 600, "\(source.path) has \(source.lines.count) lines")
      for (number, line) in source.lines.enumerated()
      where line.contains("TODO") || line.contains("FIXME") {
        #expect(line.contains("#"), "\(source.path):\(number + 1): \(line)")
      }
    }
  }
}
