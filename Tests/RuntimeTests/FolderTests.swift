import BlockIO
import Foundation
import ModelConversion
import ModelFormat
import TensorBasics
import TestSupport
import Testing
import WeightLoader

/// Hugging Face folders that are run from where they lie.
@Suite struct FolderTests {
  private static let families = [
    "gemma3", "llama", "llama-relu", "mistral", "mixtral", "olmoe", "opt", "qwen2", "qwen2moe",
    "qwen3", "qwen3moe", "olmo2", "olmo3", "granite", "smollm3", "command-r", "glm4",
    "glm4moe", "glm4moe-groups", "minimax-m2", "mimo2", "openelm", "gemma2", "qwen3-vl",
    "mistral-small", "gla", "gla-first", "based",
  ]

  static func folder(_ name: String) -> String {
    let tests = #filePath.split(separator: "/", omittingEmptySubsequences: false).dropLast(2)
    return tests.joined(separator: "/") + "/ModelConversionTests/Vectors/" + name
  }

  @Test(arguments: families)
  func `A folder gives the bits of its image, whatever is streamed`(name: String) throws {
    let target = TemporaryFolder()
    let image = target.path + "/model.bin"
    let source = try ModelSource.open(Self.folder(name))
    try Converter(source).write(to: image)
    let byteCount = source.description.storedTensors.reduce(0) { $0 + $1.byteCount }
    for seed in UInt64(0)..<6 {
      var generator = SeededGenerator(seed: seed)
      let prompt = (0..<Int.random(in: 1...40, using: &generator)).map { _ in
        Int32(generator.next() % 320)
      }
      let decoding = (0..<5).map { _ in Int32(generator.next() % 320) }
      func bits(_ path: String, _ shape: RunShape) throws -> [[UInt32]] {
        let session = try makeSession(
          path, contextLength: 64, promptLength: prompt.count, shape)
        return try logitBits(session, prompt: prompt, decoding: decoding)
      }
      let shape = RunShape(
        backend: [.auto, .uring, .pread, .mmap].randomElement(using: &generator) ?? .auto,
        threadCount: Int.random(in: 1...3, using: &generator),
        maximumChunkLength: Int.random(in: 1...40, using: &generator),
        spareByteCount: [0, 1 << 14, byteCount / 3, nil].randomElement(using: &generator) ?? nil)
      #expect(
        try bits(Self.folder(name), shape) == bits(image, RunShape()), "seed \(seed), \(shape)")
    }
  }

  /// Otherwise keys and values of one would be found for the other.
  @Test func `What config.json implies and no file holds is part of the identity`() throws {
    let target = TemporaryFolder()
    let path = target.path + "/llama"
    try FileManager.default.copyItem(atPath: Self.folder("llama"), toPath: path)
    let config = try String(contentsOfFile: path + "/config.json", encoding: .utf8)
    var identities: Set<ModelIdentity> = []
    for factor in ["8.0", "4.0", "2.0"] {
      let text = config.replacing("\"factor\": 8.0", with: "\"factor\": \(factor)")
      try text.write(toFile: path + "/config.json", atomically: false, encoding: .utf8)
      let source = try ModelSource.open(path, records: WeightRecords(folder: nil))
      identities.insert(try #require(try source.computeIdentity()))
    }
    #expect(identities.count == 3)
  }
}
