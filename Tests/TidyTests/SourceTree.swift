import Foundation

/// A file of the package, as text.
struct SourceFile {
  /// Path from the package's root.
  let path: String
  let lines: [String]

  var name: String { String(path.split(separator: "/").last ?? "") }
  var isSwift: Bool { path.hasSuffix(".swift") }

  /// The folder below `Sources` or `Tests` that holds the file.
  var target: String { String(path.split(separator: "/").dropFirst().first ?? "") }

  /// Names of the modules that a Swift file imports.
  var imports: [String] {
    guard isSwift else { return [] }
    return lines.compactMap { line in
      var words = line.split(separator: " ").map(String.init)
      if ["public", "package", "internal", "@testable"].contains(words.first) {
        words.removeFirst()
      }
      guard words.count >= 2, words[0] == "import" else { return nil }
      return words[1]
    }
  }
}

/// The package's files, read once.
enum SourceTree {
  static let root = URL(fileURLWithPath: #filePath)
    .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()

  /// Swift and C files below `Sources`.
  static let sources = files(in: "Sources", endings: [".swift", ".c", ".h", ".inc"])
  /// Swift and C files below `Tests`.
  static let tests = files(in: "Tests", endings: [".swift", ".c", ".h", ".inc"])
  /// Everything that people read: documents and files of each target.
  static let documents =
    files(in: "docs", endings: [".md"]) + files(in: "benchmarks", endings: [".md"])
    + files(in: "Sources", endings: [".md"]) + files(in: "python", endings: [".md"])
    + files(in: "examples", endings: [".md"]) + files(in: "Tests", endings: [".md"])
    + files(in: "Fuzz", endings: [".md"])
    + ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"].compactMap(file)

  static func exists(_ path: String) -> Bool {
    FileManager.default.fileExists(atPath: root.appendingPathComponent(path).path)
  }

  static func file(_ path: String) -> SourceFile? {
    guard
      let text = try? String(contentsOf: root.appendingPathComponent(path), encoding: .utf8)
    else { return nil }
    return SourceFile(
      path: path,
      lines: text.split(separator: "\n", omittingEmptySubsequences: false).map(String.init))
  }

  private static func files(in folder: String, endings: [String]) -> [SourceFile] {
    let walk = FileManager.default.enumerator(
      atPath: root.appendingPathComponent(folder).path)
    let paths = (walk?.compactMap { $0 as? String } ?? []).filter { path in
      !path.split(separator: "/").contains { $0.hasPrefix(".build") }
        && endings.contains { path.hasSuffix($0) }
    }
    return paths.sorted().compactMap { file("\(folder)/\($0)") }
  }
}
