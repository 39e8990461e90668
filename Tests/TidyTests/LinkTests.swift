import Foundation
import Testing

/// What documents and comments refer to exists.
@Suite struct LinkTests {
  @Test func `Links of documents lead to files`() throws {
    let link = try Regex<(Substring, Substring)>(#"\]\(([^)\s]+)\)"#)
    for document in SourceTree.documents {
      let folder = document.path.split(separator: "/").dropLast().joined(separator: "/")
      for (number, line) in document.lines.enumerated() {
        for match in line.matches(of: link) {
          let target = match.output.1.prefix { $0 != "#" }
          guard !target.isEmpty, !target.contains("://"), !target.hasPrefix("mailto:") else {
            continue
          }
          let path = URL(fileURLWithPath: "/\(folder)/\(target)").standardized.path
          #expect(
            SourceTree.exists(path), "\(document.path):\(number + 1): \(target) does not exist")
        }
      }
    }
  }

  @Test func `Paths that documents, comments and scripts name exist`() throws {
    let path = try Regex<(Substring, Substring)>(
      #"`((?:docs|Sources|Tests|tools|benchmarks|examples)/[A-Za-z0-9_./+-]+)`"#)
    var count = 0
    for file in SourceTree.documents + SourceTree.sources + SourceTree.tests {
      for (number, line) in file.lines.enumerated() {
        for match in line.matches(of: path) {
          count += 1
          let name = String(match.output.1)
          #expect(
            Self.exists(name), "\(file.path):\(number + 1): \(name) does not exist")
        }
      }
    }
    #expect(count > 50)
  }

  /// A path, or a decision by its number.
  private static func exists(_ name: String) -> Bool {
    if SourceTree.exists(name) { return true }
    guard name.hasPrefix("docs/decisions/") else { return false }
    return decisions.contains { $0.hasPrefix(name.dropFirst("docs/decisions/".count)) }
  }

  private static let decisions: [String] =
    (try? FileManager.default.contentsOfDirectory(
      atPath: SourceTree.root.appendingPathComponent("docs/decisions").path)) ?? []

  @Test func `Decisions are numbered in order, each number once`() {
    let numbers = Self.decisions.compactMap { Int($0.prefix(4)) }.sorted()
    #expect(numbers.count == Self.decisions.count)
    #expect(Set(numbers).count == numbers.count, "two decisions share a number")
    #expect(numbers.first == 1)
  }
}
