import Testing

/// Rules of the sources that no compiler and no formatter checks.
@Suite struct StyleTests {
  @Test func `Files are one idea long, and nothing is left to do without an issue`() {
    #expect(SourceTree.sources.count > 100)
    for source in SourceTree.sources {
      #expect(source.lines.count <= 600, "\(source.path) has \(source.lines.count) lines")
      for (number, line) in source.lines.enumerated()
      where line.contains("TODO") || line.contains("FIXME") {
        #expect(line.contains("#"), "\(source.path):\(number + 1): \(line)")
      }
    }
  }

  @Test func `Functions fit on a page`() {
    var count = 0
    for source in SourceTree.sources + SourceTree.tests where source.isSwift {
      for function in Self.functions(in: source.lines) {
        count += 1
        #expect(
          function.count <= 70,
          "\(source.path):\(function.lowerBound + 1): a function of \(function.count) lines")
      }
    }
    #expect(count > 1000)
  }

  @Test func `The measure of functions sees one that is too long`() {
    let body = Array(repeating: "    work()", count: 80)
    let lines = ["struct Sample {", "  public static func long(", "    of: Int", "  ) {"] + body
    #expect(Self.functions(in: lines + ["  }", "}"]).map(\.count) == [84])
    #expect(Self.functions(in: ["  init(x: Int) { self.x = x }", "  var y: Int"]) == [0..<1])
  }

  /// Indexes of the lines of each function, initialiser and subscript: from its first line to the brace
  /// that closes it, which the formatter puts below the first line's start.
  private static func functions(in lines: [String]) -> [Range<Int>] {
    let modifiers: Set<Substring> = [
      "public", "package", "internal", "private", "fileprivate", "static", "override", "final",
      "mutating", "consuming", "borrowing", "convenience", "required", "nonisolated",
      "@inline(__always)",
      "@discardableResult", "@Test",
    ]
    return lines.indices.compactMap { first in
      let line = lines[first]
      let indentation = line.prefix { $0 == " " }
      let words = line.split(separator: " ").drop { modifiers.contains($0) }
      guard let word = words.first,
        word == "func" || word == "deinit" || word.hasPrefix("init(")
          || word.hasPrefix("subscript(")
      else { return nil }
      guard
        let last = lines[first...].firstIndex(where: {
          $0.hasPrefix(indentation + "}")
            || ($0.hasPrefix(indentation + ") ") && $0.hasSuffix("}"))
        }), !line.hasSuffix("}")
      else { return first..<first + 1 }
      return first..<last + 1
    }
  }

  @Test func `What the compiler is told to believe is explained beside it`() {
    var count = 0
    for source in SourceTree.sources where source.isSwift {
      for (number, line) in source.lines.enumerated() {
        let code = line.drop { $0 == " " }
        guard !code.hasPrefix("//"),
          code.contains("@unchecked Sendable") || code.contains("nonisolated(unsafe)")
        else { continue }
        count += 1
        // In the comment above it, or among the first lines of the type.
        let around = source.lines[max(0, number - 8)..<min(source.lines.count, number + 6)]
        #expect(
          around.contains { $0.contains("// Safety:") || $0.contains("/// Safety:") },
          "\(source.path):\(number + 1): why is this safe? Say so in a line `// Safety: …`")
      }
    }
    #expect(count > 10)
  }

  @Test func `Public declarations begin with a sentence of at most 150 characters`() {
    var count = 0
    for source in SourceTree.sources where source.isSwift {
      for (number, summary) in Self.summaries(in: source.lines) {
        count += 1
        #expect(
          summary.count <= 150,
          "\(source.path):\(number + 1): a summary of \(summary.count) characters: \(summary)")
      }
    }
    #expect(count > 1000)
    let lines = [
      "/// One. Two.", "/// Three.", "@frozen", "public struct S {", "/// No.", "var x: Int",
    ]
    #expect(Self.summaries(in: lines).map(\.1) == ["One."])
  }

  /// The first sentence of each public declaration's comment, and the number of the comment's first line.
  private static func summaries(in lines: [String]) -> [(Int, String)] {
    func comment(_ number: Int) -> Substring? {
      guard lines.indices.contains(number) else { return nil }
      let line = lines[number].drop { $0 == " " }
      return line.hasPrefix("///") ? line.dropFirst(3).drop { $0 == " " } : nil
    }
    return lines.indices.compactMap { first in
      guard let start = comment(first), comment(first - 1) == nil, !start.hasPrefix("- ") else {
        return nil
      }
      let end = lines[first...].indices.first { comment($0) == nil } ?? lines.endIndex
      let declaration = lines[end...].first { !$0.drop { $0 == " " }.hasPrefix("@") } ?? ""
      guard declaration.drop(while: { $0 == " " }).hasPrefix("public ") else { return nil }
      let paragraph = (first..<end).map { comment($0) ?? "" }.prefix { !$0.isEmpty }
      let text = paragraph.joined(separator: " ")
      let sentence = text.ranges(of: ". ").first { range in
        text[range.upperBound...].first?.isUppercase ?? false
      }
      return (
        first,
        String(text[..<(sentence?.lowerBound ?? text.endIndex)]) + (sentence == nil ? "" : ".")
      )
    }
  }

  @Test func `No two files of a tree have the same name`() {
    for tree in [SourceTree.sources, SourceTree.tests] {
      let names = Dictionary(grouping: tree.filter(\.isSwift), by: \.name)
      for (name, files) in names where files.count > 1 {
        Issue.record("\(name) is named twice: \(files.map(\.path).sorted())")
      }
    }
  }

  @Test func `Every test target tests something`() {
    let targets = Set(SourceTree.tests.map(\.target)).filter { $0.hasSuffix("Tests") }
    #expect(targets.count > 10)
    for target in targets {
      let files = SourceTree.tests.filter { $0.target == target }
      #expect(
        files.contains { $0.lines.contains { $0.contains("@Test") } }, "\(target) tests nothing")
      for file in files where file.isSwift {
        #expect(
          file.lines.contains { !$0.isEmpty && !$0.hasPrefix("import ") && !$0.hasPrefix("//") },
          "\(file.path) is empty")
      }
    }
  }

  @Test func `A test that cannot run is skipped, and does not pass with a message`() {
    for file in SourceTree.tests where file.isSwift && file.target != "TidyTests" {
      for (number, line) in file.lines.enumerated() where line.contains("print(\"skip") {
        Issue.record("\(file.path):\(number + 1): use .enabled(if:)")
      }
    }
  }
}
