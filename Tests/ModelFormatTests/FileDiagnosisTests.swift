import ModelFormat
import TestSupport
import Testing

/// Files that are no models are called what they are.
@Suite struct FileDiagnosisTests {
  private func explained(
    _ bytes: [UInt8], _ path: String = "model.gguf", kind: FormatError.Kind = .unrecognised
  ) throws -> FormatError {
    try withBytes(bytes) { bytes throws(FormatError) in
      FileDiagnosis.explaining(FormatError(kind, path: path, "unread"), bytes, path: path)
    }
  }

  @Test func `What stands in place of a model is named with the remedy`() throws {
    let cases: [(start: [UInt8], says: String)] = [
      (Array("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a".utf8), "git lfs pull"),
      (Array("<!doctype html>\n<html class=\"\">".utf8), "web page"),
      ([0xEF, 0xBB, 0xBF] + Array("\n <HTML><head>".utf8), "web page"), ([], "empty"),
      (Array("{\"error\":\"Repository not found\"}".utf8), "Repository not found"),
      ([0x1F, 0x8B, 8, 0], "gunzip"), (Array("PK\u{3}\u{4}".utf8), "safetensors"),
      (Array("tjgg\u{3}".utf8), "GGUF"), ([], "empty"),
    ]
    for (start, text) in cases {
      let rest = start.isEmpty ? [] : [UInt8](repeating: 0x20, count: 400)
      let error = try explained(start + rest)
      #expect(error.kind == .unrecognised && error.message.contains(text), "\(error)")
    }
    #expect(try explained([UInt8](repeating: 0, count: 5000)).message.contains("zeros"))
  }

  @Test func `Pieces of a file are told how to be joined`() throws {
    let bytes = Array(TinyModel().gguf(seed: 1).bytes().prefix(5000))
    for (name, command) in [
      ("/m/a.gguf.part1of2", "cat a.gguf.part* > a.gguf"),
      ("a.gguf-split-a", "cat a.gguf-split-* > a.gguf"), ("b.gguf.part-aa", "cat b.gguf.part*"),
      ("c.d.gguf.003", "cat c.d.gguf.0* > c.d.gguf"), ("x.gguf.ab", "cat x.gguf.a* > x.gguf"),
    ] {
      #expect(try explained(bytes, name, kind: .truncated).message.contains(command), "\(name)")
      let later = try explained([1, 2, 3] + bytes, name)
      #expect(later.message.contains(command), "\(later)")
    }
    for name in ["a.gguf", "a.gguf.part", "a-00001-of-00002.gguf", "part1of2", "a.gguf.bak"] {
      let error = try explained(bytes, name, kind: .truncated)
      #expect(error.message.contains("the file is incomplete"), "\(error)")
    }
  }

  @Test func `Errors of files that are models stay as they are`() throws {
    let bytes = TinyModel().gguf(seed: 1).bytes()
    for kind in [FormatError.Kind.malformed, .unsupported, .checksumMismatch] {
      #expect(try explained(bytes, "a.gguf.part1of2", kind: kind).message == "unread")
    }
    #expect(try explained(Array("anything else".utf8)).message == "unread")
  }
}
