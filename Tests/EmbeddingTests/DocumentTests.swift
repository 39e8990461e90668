import Foundation
import TestSupport
import Testing

/// The programs that the documents show are the examples, which compile and run.
struct DocumentTests {
  private func text(_ path: String) throws -> String {
    try String(contentsOfFile: Tool.root + "/" + path, encoding: .utf8)
  }

  @Test(arguments: [
    ("Sources/WeightLoader/WeightLoader.docc/WeightLoader.md", "swift/Sources/stream/main.swift"),
    ("Sources/Runtime/Runtime.docc/Runtime.md", "swift/Sources/generate/main.swift"),
    ("docs/embedding.md", "c/stream.c"), ("docs/embedding.md", "python/stream.py"),
    // Which tools/test builds, so that it resolves.
    ("docs/embedding.md", "swift/Package.swift"),
  ])
  func `Pages show the examples as they are`(page: String, example: String) throws {
    let program = try text("examples/" + example)
    #expect(try text(page).contains("\n" + program + "```"), "\(page) differs from \(example)")
  }

  @Test func `Nobody who depends on the package needs unsafe flags`() throws {
    #expect(try !text("Package.swift").contains("unsafeFlags"))
  }

  @Test(.enabled(if: Tool.hasExamples, "the Swift examples are not built: run tools/test"))
  func `The Swift page's program streams, loads and counts`() throws {
    let files = Files()
    let result = try Tool.run([Tool.swiftExamples + "/stream", files.experts])
    #expect(result.status == 0, "\(result.errors)")
    #expect(result.output.contains("expert 1: "))
    #expect(result.output.contains("bytes read in"))
  }

  @Test(.enabled(if: Tool.hasExamples, "the Swift examples are not built: run tools/test"))
  func `The second Swift page's program generates text`() throws {
    let files = Files()
    let result = try Tool.run([Tool.swiftExamples + "/generate", files.model])
    #expect(result.status == 0, "\(result.errors)")
    #expect(result.output.contains(" tokens, "), "\(result.output)")
  }

  @Test(.enabled(if: Tool.hasExamples, "the Swift examples are not built: run tools/test"))
  func `Experts give the same sums from an image and a GGUF file, in any memory`() throws {
    let files = Files()
    let model = files.experts
    let image = files.folder.path + "/experts.bin"
    let converted = try Tool.run([
      Tool.root + "/.build/release/flashinfer-convert", model, image,
    ])
    #expect(converted.status == 0, "\(converted.errors)")
    let outputs = try [(model, "256"), (image, "256"), (image, "40")].map { path, ram in
      let result = try Tool.run([Tool.swiftExamples + "/experts", path, ram, "8"])
      #expect(result.status == 0, "\(result.errors)")
      return result.output.split(separator: "\n").first
    }
    #expect(outputs[0] != nil && Set(outputs).count == 1, "\(outputs)")
  }
}
