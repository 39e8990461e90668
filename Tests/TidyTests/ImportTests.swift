import Foundation
import Testing

/// What may import what, which no compiler checks.
@Suite struct ImportTests {
  /// The table of docs/architecture.md: what each library may import of ours, in words.
  private static func allowedImports() throws -> [String: Set<String>] {
    let page = try #require(SourceTree.file("docs/architecture.md"))
    var table: [String: Set<String>] = [:]
    for line in page.lines where line.hasPrefix("| `") {
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
    for source in SourceTree.sources {
      guard let allowed = table[source.target] else { continue }
      for module in source.imports where table[module] != nil && module != source.target {
        #expect(allowed.contains(module), "\(source.path) imports \(module)")
      }
    }
  }

  @Test func `Foundation is only where JSON is`() {
    let libraries = ["ModelFormat", "CommandLineSupport"]
    for source in SourceTree.sources {
      for module in source.imports where module.hasPrefix("Foundation") {
        #expect(module == "FoundationEssentials", "\(source.path) imports \(module)")
        #expect(
          libraries.contains(source.target) || source.target.hasPrefix("flashinfer-"),
          "\(source.path) imports \(module)")
      }
    }
  }

  @Test(
    "A system library has one home",
    arguments: [
      ("CLinuxURing", "BlockIO"), ("CXXHash", "TensorBasics"), ("CPCRE2", "Tokenization"),
      ("CUTF8Proc", "Tokenization"), ("CEditLine", "flashinfer-run"),
    ])
  func systemLibraries(library: String, home: String) {
    let importing = (SourceTree.sources + SourceTree.tests).filter { $0.imports.contains(library) }
    #expect(!importing.isEmpty)
    for source in importing {
      #expect(source.target == home, "\(source.path) imports \(library)")
    }
  }

  @Test func `Only HostResources starts threads and reads the machine's limits`() {
    let banned = [
      "pthread_create", "sched_getaffinity", "/sys/fs/cgroup", "/proc/meminfo", "getrlimit",
    ]
    for source in SourceTree.sources where source.target != "HostResources" {
      for (number, line) in source.lines.enumerated() {
        for name in banned {
          #expect(!line.contains(name), "\(source.path):\(number + 1): \(name)")
        }
      }
    }
  }
}
