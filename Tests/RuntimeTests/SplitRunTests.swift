import BlockIO
import Glibc
import ModelFormat
import Runtime
import TensorBasics
import TestSupport
import Testing
import WeightLoader

/// Runs of split GGUF models.
@Suite struct SplitRunTests {
  private let folder = TemporaryFolder()

  /// How a model is split; what is asked of all of them is the same.
  private struct Splitting: CustomStringConvertible {
    var count: Int
    var firstIsEmpty = false
    var alignment = 32
    var isLinked = false

    var description: String {
      "\(count) members, first empty: \(firstIsEmpty), aligned to \(alignment), linked: \(isLinked)"
    }
  }

  private static let splittings = [
    Splitting(count: 1), Splitting(count: 3), Splitting(count: 17),
    Splitting(count: 3, firstIsEmpty: true), Splitting(count: 17, firstIsEmpty: true),
    Splitting(count: 3, alignment: 64), Splitting(count: 17, isLinked: true),
    Splitting(count: 3, firstIsEmpty: true, alignment: 64, isLinked: true),
  ]

  /// Writes the members, linked ones in turn to two other folders, and returns the path of the middle one.
  private func write(_ model: TinyGGUF, _ splitting: Splitting, _ number: Int) -> String {
    var model = model
    model.alignment = splitting.alignment
    let members = model.split(into: splitting.count, firstIsEmpty: splitting.firstIsEmpty)
    let stem = "s\(number)"
    guard splitting.isLinked else {
      return folder.write(members: members, stem: stem)[splitting.count / 2]
    }
    for name in ["one", "two"] { mkdir("\(folder.path)/\(name)", 0o755) }
    var paths: [String] = []
    for (index, member) in members.enumerated() {
      let name = TinyGGUF.memberName(stem, index, of: members.count)
      let target = "\(index % 2 == 0 ? "one" : "two")/\(stem)-\(index)"
      folder.write(target, member.bytes())
      paths.append("\(folder.path)/\(name)")
      #expect(symlink(target, "\(folder.path)/\(name)") == 0)
    }
    return paths[splitting.count / 2]
  }

  @Test(arguments: ["llama", "llama untied", "qwen2", "gemma3", "qwen3moe"])
  func `A split model gives the bits of the whole one, whatever is streamed`(
    family: String
  ) throws {
    var tiny = TinyModel(architecture: family.split(separator: " ").map(String.init)[0])
    // The head, in the last member, decides a configuration that the first member states.
    tiny.tiesOutput = !family.hasSuffix("untied")
    tiny.vocabularyCount = 330
    var model = tiny.gguf(seed: 3)
    if family == "llama" {
      // The rows of the embedding table count, not the tokens.
      model["tokenizer.ggml.tokens"] = TinyModel().gguf(seed: 3)["tokenizer.ggml.tokens"]
      model["tokenizer.ggml.token_type"] = TinyModel().gguf(seed: 3)["tokenizer.ggml.token_type"]
    }
    let whole = folder.write("whole.gguf", model.bytes())
    let byteCount = model.tensors.reduce(0) { $0 + $1.data.count }
    for (number, splitting) in Self.splittings.enumerated() {
      let path = write(model, splitting, number)
      var generator = SeededGenerator(seed: UInt64(number))
      let prompt = (0..<Int.random(in: 1...40, using: &generator)).map { _ in
        Int32(generator.next() % 320)
      }
      let decoding = (0..<4).map { _ in Int32(generator.next() % 320) }
      func bits(_ path: String, _ shape: RunShape) throws -> [[UInt32]] {
        let session = try makeSession(path, contextLength: 64, promptLength: prompt.count, shape)
        return try logitBits(session, prompt: prompt, decoding: decoding)
      }
      let expected = try bits(whole, RunShape())
      for spare in [0, Int.random(in: 0...byteCount, using: &generator), nil] {
        let shape = RunShape(
          backend: [.auto, .uring, .pread, .mmap].randomElement(using: &generator) ?? .auto,
          threadCount: Int.random(in: 1...3, using: &generator),
          maximumChunkLength: Int.random(in: 1...40, using: &generator), spareByteCount: spare)
        #expect(try bits(path, shape) == expected, "\(splitting), \(shape)")
      }
    }
  }

  @Test func `Greedy tokens of a split model are those of the whole one`() throws {
    let model = TinyModel().gguf(seed: 5)
    func tokens(_ path: String) throws -> [Int] {
      let session = try makeSession(
        path, contextLength: 64, promptLength: 5, RunShape(spareByteCount: 4096))
      var logits = Array(try session.prefill([7, 8, 9, 10, 11]))
      var found: [Int] = []
      for _ in 0..<24 {
        let best = logits.indices.max { logits[$0] < logits[$1] } ?? 0
        found.append(best)
        logits = Array(try session.decode(Int32(best)))
      }
      return found
    }
    let expected = try tokens(folder.write("whole.gguf", model.bytes()))
    for (number, splitting) in Self.splittings.enumerated() {
      #expect(try tokens(write(model, splitting, number)) == expected, "\(splitting)")
    }
  }

  @Test(arguments: 0..<3)
  func `A member that changes while the model is open is noticed`(changed: Int) throws {
    let members = TinyModel().gguf(seed: 1).split(into: 3)
    for replaces in [false, true] {
      let paths = folder.write(members: members, stem: "r\(replaces)")
      let model = try ModelSource.open(paths[1], records: WeightRecords(folder: nil))
      let references = try #require(try model.references())
      #expect(model.isUnchanged(since: references))
      try model.device.checkUnchanged()
      if replaces {
        rename(folder.write("new", members[changed].bytes()), paths[changed])
      } else {
        truncate(paths[changed], members[changed].bytes().count - 100)
        #expect(!model.isUnchanged(since: references))
      }
      do {
        try model.device.checkUnchanged()
        Issue.record("nothing was noticed")
      } catch { #expect(error.path == paths[changed], "\(error)") }
    }
  }

  @Test(arguments: [StorageBackend.uring, .pread, .mmap])
  func `A member cut during the run ends it with that member's name`(
    backend: StorageBackend
  ) throws {
    let model = TinyModel().gguf(seed: 1)
    let members = model.split(into: 3)
    let paths = folder.write(members: members)
    let session = try makeSession(
      paths[0], contextLength: 16, promptLength: 4,
      RunShape(backend: backend, spareByteCount: 0))
    _ = try session.prefill([1, 2, 3, 4])
    truncate(paths[1], 4096)
    do {
      for token in Int32(5)..<10 { _ = try session.decode(token) }
      Issue.record("nothing was noticed")
    } catch { #expect("\(error)".contains(paths[1]), "\(error)") }
  }
}
