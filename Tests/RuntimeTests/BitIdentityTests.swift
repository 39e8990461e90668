import BlockIO
import Glibc
import ModelConversion
import Runtime
import TensorBasics
import TestSupport
import Testing
import WeightLoader

/// The same logits, bit for bit, whatever the budget, back end, threads, chunks and file format.
@Suite struct BitIdentityTests {
  private func randomShape(modelByteCount: Int, using generator: inout SeededGenerator) -> RunShape
  {
    let spare: [Int?] = [0, 1 << 14, modelByteCount / 3, modelByteCount, nil]
    return RunShape(
      backend: [.auto, .uring, .pread, .mmap].randomElement(using: &generator) ?? .auto,
      threadCount: Int.random(in: 1...3, using: &generator),
      maximumChunkLength: Int.random(in: 1...40, using: &generator),
      spareByteCount: spare.randomElement(using: &generator) ?? nil)
  }

  @Test(arguments: TinyFamilies.names)
  func `Tiny models of every family`(family: String) throws {
    for seed in UInt64(0)..<4 {
      var generator = SeededGenerator(seed: seed)
      var model = TinyFamilies.model(family)
      model.embeddingLength = 256
      model.feedForwardLength = 512
      model.headLength = 64
      model.matrixTypes = (0..<4).map { _ in
        ElementType.allCases.randomElement(using: &generator) ?? .q8_0
      }
      model.tableType = ElementType.allCases.randomElement(using: &generator) ?? .q8_0
      model.vocabularyCount = 320 + Int.random(in: 0..<40, using: &generator)
      let gguf = model.gguf(seed: seed).bytes()
      let files = [TemporaryFile(gguf), TemporaryFile(try ImageBuilder.image(of: gguf))]
      defer { extendLifetime(files) }
      func token() -> Int32 { Int32(generator.next() % UInt64(model.vocabularyCount)) }
      let prompt = (0..<Int.random(in: 1...40, using: &generator)).map { _ in token() }
      let decoding = (0..<5).map { _ in token() }
      func bits(_ file: TemporaryFile, _ shape: RunShape) throws -> [[UInt32]] {
        let session = try makeSession(
          file.path, contextLength: 64, promptLength: prompt.count, shape)
        return try logitBits(session, prompt: prompt, decoding: decoding)
      }
      let expected = try bits(files[0], RunShape())
      for _ in 0..<8 {
        let index = Int.random(in: 0...1, using: &generator)
        let shape = randomShape(modelByteCount: gguf.count, using: &generator)
        let found = try bits(files[index], shape)
        #expect(
          found == expected,
          "\(family), seed \(seed), \(index == 0 ? "GGUF" : "image"), \(shape), \(model.matrixTypes)"
        )
      }
    }
  }

  @Test func `SmolLM2, as it is downloaded and as an image`() throws {
    guard let path = RealModels.smolLM2 else {
      print("skipped: SmolLM2 is not in the model folder; tools/test fetches it")
      return
    }
    let image = TemporaryFile([])
    defer { extendLifetime(image) }
    try Converter(try ModelSource.open(path)).write(to: image.path)
    var generator = SeededGenerator(seed: 1)
    let prompt = (0..<70).map { _ in Int32(generator.next() % 49152) }
    let decoding = (0..<4).map { _ in Int32(generator.next() % 49152) }
    func bits(_ path: String, _ shape: RunShape) throws -> [[UInt32]] {
      let session = try makeSession(path, contextLength: 96, promptLength: prompt.count, shape)
      return try logitBits(session, prompt: prompt, decoding: decoding)
    }
    let expected = try bits(path, RunShape(threadCount: 2))
    for index in 0..<10 {
      let shape = randomShape(modelByteCount: 96 << 20, using: &generator)
      let found = try bits(index % 2 == 0 ? image.path : path, shape)
      #expect(found == expected, "\(index % 2 == 0 ? "image" : "GGUF"), \(shape)")
    }
  }
}

/// Models that tools/test downloads; nil where they are not there.
enum RealModels {
  static var smolLM2: String? { file("SmolLM2-135M-Instruct.Q4_1.gguf") }

  private static func file(_ name: String) -> String? {
    func variable(_ name: String) -> String? { getenv(name).map { String(cString: $0) } }
    let folder =
      variable("FLASHINFER_MODELS")
      ?? (variable("XDG_CACHE_HOME") ?? (variable("HOME") ?? "") + "/.cache") + "/flashinfer/models"
    let path = "\(folder)/\(name)"
    return access(path, R_OK) == 0 ? path : nil
  }
}
