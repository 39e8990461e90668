import Foundation
import Testing

/// The version has one home, the file `VERSION`, and whatever else states one agrees with it.
@Suite struct VersionTests {
  private let version = SourceTree.file("VERSION")?.lines.first ?? ""

  @Test func `The file is one version`() throws {
    let lines = try #require(SourceTree.file("VERSION")).lines
    #expect(lines.count == 2 && lines[1].isEmpty)
    #expect(version.wholeMatch(of: /[0-9]+\.[0-9]+\.[0-9]+/) != nil, "\(version)")
  }

  @Test func `The Python package speaks the interface that the header declares`() throws {
    func number(_ path: String, after before: String) -> Int? {
      let stated = SourceTree.file(path)?.lines.first { $0.hasPrefix(before) }
      return stated.flatMap { Int($0.dropFirst(before.count).prefix { $0.isNumber }) }
    }
    let header = number(
      "Sources/CFlashInfer/include/flashinfer.h", after: "#define FLASHINFER_ABI_VERSION ")
    #expect(header != nil)
    #expect(number("python/flashinfer_ssd/_native.py", after: "ABI_VERSION = ") == header)
  }

  @Test(arguments: [
    ("Sources/TensorBasics/FlashInferVersion.swift", "current = \""),
    ("Sources/CFlashInfer/include/flashinfer.h", "#define FLASHINFER_VERSION \""),
    ("Sources/WeightLoader/WeightLoader.docc/WeightLoader.md", "from: \""),
    ("examples/swift/Package.swift", "from: \""),
  ])
  func `What states a version states this one`(path: String, before: String) throws {
    let file = try #require(SourceTree.file(path))
    let stated = file.lines.compactMap { line in
      line.range(of: before).map { line[$0.upperBound...].prefix { $0 != "\"" } }
    }
    #expect(stated == [Substring(version)], "\(path)")
  }
}
