import ModelFormat
import Runtime
import TensorBasics
import TestSupport
import Testing
import Tokenization
import WeightLoader

/// Damaged files that still parse must run or refuse, never trap.
@Suite struct HostileModelTests {
  private func run(_ path: String) throws {
    let model = try LanguageModel.open(path)
    _ = try model.tokenizer.encodePrompt(Array("the and ü\u{1F600} <|endoftext|>".utf8))
    let session = try Session(
      model.source, model.configuration,
      MemoryPlan.Request(
        budgetByteCount: 1 << 30, contextLength: 8, promptLength: 3, threadCount: 1))
    _ = try session.prefill([1, 2, 3])
    _ = try session.decode(4)
  }

  @Test(
    arguments: [
      "llama rope factors", "gemma3", "qwen2moe", "olmoe", "qwen3next", "mamba2", "nemotron_h",
      "lfm2",
    ])
  func `Damaged GGUF files`(family: String) throws {
    var model = TinyFamilies.model(family)
    model.layerCount = min(model.layerCount, 2)
    let encoded = model.gguf(seed: 2).encode()
    var generator = SeededGenerator(seed: 9)
    var outcomes = (ran: 0, refused: 0)
    for _ in 0..<1000 {
      let bytes = Mutation.mutate(
        encoded.bytes, fields: encoded.integerFields, limit: encoded.headerByteCount,
        using: &generator)
      let file = TemporaryFile(bytes, folder: "/dev/shm")
      do {
        try run(file.path)
        outcomes.ran += 1
      } catch let error as RuntimeError {
        #expect(!error.description.isEmpty)
        outcomes.refused += 1
      }
      extendLifetime(file)
    }
    #expect(outcomes.ran > 0 && outcomes.refused > 0, "\(outcomes)")
  }

  /// Weights of any bits; what is not a finite number is refused when it is met.
  @Test(arguments: ["qwen3", "qwen2moe", "qwen35", "falcon-h1"])
  func `Damaged weights`(family: String) throws {
    let encoded = TinyFamilies.model(family).gguf(seed: 2).encode()
    var generator = SeededGenerator(seed: 10)
    for _ in 0..<200 {
      var bytes = encoded.bytes
      for _ in 0..<200 {
        let place = Int.random(in: encoded.headerByteCount..<bytes.count, using: &generator)
        bytes[place] = UInt8.random(in: .min ... .max, using: &generator)
      }
      let file = TemporaryFile(bytes, folder: "/dev/shm")
      do { try run(file.path) } catch let error as RuntimeError {
        switch error {
        case .notFinite, .loader(.format): break
        default: Issue.record("\(error)")
        }
      }
      extendLifetime(file)
    }
  }
}
