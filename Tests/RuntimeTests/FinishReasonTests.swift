import ModelFormat
import Runtime
import TestSupport
import Testing
import Tokenization

/// Why an answer ends, and what is odd about a prompt.
struct FinishReasonTests {
  /// What answers with a tiny model, in a context of `contextLength`.
  private func generator(
    _ gguf: TinyGGUF = TinyModel().gguf(seed: 3), contextLength: Int = 64
  ) throws -> TextGenerator {
    let file = TemporaryFile(gguf.bytes())
    let model = try LanguageModel.open(file.path)
    let session = try Session(
      model.source, model.configuration,
      MemoryPlan.Request(
        budgetByteCount: 1 << 40, contextLength: contextLength, promptLength: 3, threadCount: 1))
    return TextGenerator(session: session, tokenizer: model.tokenizer)
  }

  /// The end of an answer of at most `maximumTokenCount` tokens in a context of `contextLength`.
  private func reason(
    maximumTokenCount: Int, contextLength: Int = 64, ignoresEnd: Bool = true,
    endTokens: TinyGGUF.Value? = nil
  ) throws -> (FinishReason, tokenCount: Int) {
    var gguf = TinyModel().gguf(seed: 3)
    if let endTokens { gguf["tokenizer.ggml.eos_token_id"] = endTokens }
    let result = try generator(gguf, contextLength: contextLength).generate(
      GenerationOptions(
        prompt: [10, 11, 12], maximumTokenCount: maximumTokenCount,
        sampling: SamplingOptions(temperature: 0), ignoresEnd: ignoresEnd)
    ) { _ in }
    return (result.finishReason, result.tokens.count)
  }

  @Test func `An answer ends where it was to, or where its context is full`() throws {
    #expect(try reason(maximumTokenCount: 5) == (.length, 5))
    #expect(try reason(maximumTokenCount: 61) == (.length, 61))
    #expect(try reason(maximumTokenCount: 62) == (.context, 61))
    #expect(try reason(maximumTokenCount: 1 << 30, contextLength: 8) == (.context, 5))
  }

  @Test func `The model's own end is told from the others`() throws {
    let first = try generator().generate(
      GenerationOptions(
        prompt: [10, 11, 12], maximumTokenCount: 1, sampling: SamplingOptions(temperature: 0),
        ignoresEnd: true)
    ) { _ in }
    let (reason, count) = try reason(
      maximumTokenCount: 5, ignoresEnd: false,
      endTokens: .uint32(UInt32(first.tokens[0])))
    #expect(reason == .stop && count == 0)
  }

  /// Tables of embeddings are often padded, and tokens are added that no row is there for.
  @Test(arguments: [300, 319, 321, 700])
  func `A tokenizer of another length than the model's rows changes no draw`(count: Int) throws {
    func tokens(_ gguf: TinyGGUF) throws -> [Int32] {
      var sampling = SamplingOptions(temperature: 3, topK: 0, topP: 1, minP: 0, seed: 1)
      sampling.repetitionPenalty = 1.3
      return try generator(gguf).generate(
        GenerationOptions(
          prompt: [10, 11, 12], maximumTokenCount: 60, sampling: sampling, ignoresEnd: true)
      ) { _ in }.tokens
    }
    let gguf = TinyModel().gguf(seed: 3)
    var other = gguf
    for key in ["tokens", "scores", "token_type"] {
      switch gguf["tokenizer.ggml." + key] {
      case .strings(let all):
        let added = (0..<700).map { Array("added\($0)".utf8) }
        other["tokenizer.ggml." + key] = .strings(Array((all + added).prefix(count)))
      case .float32s(let all):
        let added = [Float](repeating: -9, count: 700)
        other["tokenizer.ggml." + key] = .float32s(Array((all + added).prefix(count)))
      case .int32s(let all):
        let added = [Int32](repeating: 1, count: 700)
        other["tokenizer.ggml." + key] = .int32s(Array((all + added).prefix(count)))
      default: break
      }
    }
    let expected = try tokens(gguf)
    #expect(expected.count == 60 && expected.contains { $0 >= 300 })
    #expect(try tokens(other) == expected)
  }

  @Test func `Two BOS tokens are odd, one is not`() throws {
    let file = TemporaryFile(TinyModel(architecture: "gemma3").gguf(seed: 3).bytes())
    let model = try LanguageModel.open(file.path)
    let odd = try model.prompt("<s>the ant")
    #expect(model.oddity(of: odd)?.contains("two BOS") == true)
    for text in ["the ant", "", "the <s>"] {
      #expect(try model.oddity(of: model.prompt(text)) == nil)
    }
    let plain = TemporaryFile(TinyModel().gguf(seed: 3).bytes())
    let bare = try LanguageModel.open(plain.path)
    #expect(try bare.oddity(of: bare.prompt("<|endoftext|>a")) == nil)
  }
}
