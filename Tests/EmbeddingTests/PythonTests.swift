import Foundation
import TestSupport
import Testing

/// The Python package, installed with pip into a fresh environment.
@Suite(.enabled(if: Tool.hasPython, "there is no Python environment with NumPy: run tools/test"))
struct PythonTests {
  private let files = Files()

  @Test func `Arrays, streams, text and errors`() throws {
    let large = files.large(tensorCount: 6, rowCount: 300, columnCount: 20_000)
    let result = try Tool.run([
      Tool.python, Tool.programs + "/test_interface.py", files.two, files.foreign, files.truncated,
      files.model, files.experts, large.path, files.chat,
    ])
    #expect(result.status == 0, "\(result.errors)")
  }

  @Test func `The distribution leaves others whole, and says what it is and where it runs`() throws
  {
    let result = try Tool.run([
      Tool.python, Tool.programs + "/test_package.py", Tool.root,
      Tool.selfContained + "/lib/libflashinfer.so",
    ])
    #expect(result.status == 0, "\(result.errors)")
  }

  @Test func `The library of a wheel needs nothing of a system but what all have`() throws {
    let library = Tool.selfContained + "/lib/libflashinfer.so"
    let needed = try Tool.run(["readelf", "-d", library]).output
    for name in ["uring", "pcre2", "utf8proc", "xxhash", "swift"] {
      #expect(!needed.contains(name), "\(needed)")
    }
  }

  @Test func `Code in documents and docstrings runs as it is shown`() throws {
    let paths = [
      (files.model, "model.gguf"), (files.two, "model.safetensors"), (files.chat, "chat.gguf"),
    ]
    for (path, name) in paths {
      let copy = files.folder.path + "/" + name
      if path != copy { #expect(try Tool.run(["cp", path, copy]).status == 0) }
    }
    let converted = try Tool.run([
      Tool.root + "/.build/release/flashinfer-convert", files.model,
      files.folder.path + "/model.bin",
    ])
    #expect(converted.status == 0, "\(converted.errors)")
    let result = try Tool.run([
      Tool.python, Tool.programs + "/test_documents.py", Tool.root, files.folder.path,
    ])
    #expect(result.status == 0, "\(result.errors)")
  }

  @Test func `The example answers several prompts in two turns each`() throws {
    let result = try Tool.run([
      Tool.python, Tool.root + "/examples/python/answers.py", files.model, "a b", "the ant", "c",
    ])
    #expect(result.status == 0 && result.output.contains("tokens, "), "\(result.errors)")
  }

  @Test func `The example keeps to its budget on a file that is larger`() throws {
    let (path, sums) = files.large(tensorCount: 8, rowCount: 1000, columnCount: 6000)
    let result = try Tool.run([
      Tool.python, Tool.root + "/examples/python/statistics.py", path, "--ram", "140MiB",
    ])
    #expect(result.status == 0, "\(result.errors)")
    let rows = result.output.split(separator: "\n").dropFirst()
    #expect(rows.count == sums.count)
    for (row, sum) in zip(rows, sums) {
      let fields = row.split(separator: " ")
      let mean = Double(fields[2]) ?? -1
      #expect(abs(mean - sum / 6e6) < 1e-3, "\(row)")
    }
    // "192000000 bytes of tensors, at most 133 MiB in memory"
    let words = result.errors.split(separator: " ")
    #expect(words.count > 7 && Int(words[0]) == 192_000_000, "\(result.errors)")
    #expect(Int(words[words.count - 4]).map { $0 <= 140 } == true, "\(result.errors)")
  }

  @Test func `A budget that is too small is refused with the least that works`() throws {
    let result = try Tool.run([
      Tool.python, Tool.root + "/examples/python/statistics.py", files.two, "--ram", "1MiB",
    ])
    #expect(result.status == 1 && result.errors.contains("the smallest that works"))
  }
}
