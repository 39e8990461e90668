import Runtime
import TestSupport
import Testing

/// What a session tells of how far it has come with a prompt.
struct PromptProgressTests {
  private let file = TemporaryFile(TinyModel().gguf(seed: 3).bytes())

  /// A session of a tiny model in chunks of fewer tokens than the prompts have.
  private func session() throws -> Session {
    let model = try LanguageModel.open(file.path)
    return try Session(
      model.source, model.configuration,
      MemoryPlan.Request(
        budgetByteCount: 1 << 40, contextLength: 256, promptLength: 64, threadCount: 1))
  }

  private let prompt = (0..<100).map { Int32(10 + $0) }

  @Test func `A prompt's progress rises to 1 in halves of layers of every chunk`() throws {
    let session = try session()
    let chunkCount = (prompt.count + session.plan.chunkLength - 1) / session.plan.chunkLength
    var fractions: [Double] = []
    session.onProgress = { fractions.append($0) }
    _ = try session.prefill(prompt)
    #expect(fractions.count == chunkCount * 2 * TinyModel().layerCount)
    #expect(fractions == fractions.sorted() && fractions.last == 1)
    session.reset()
    fractions = []
    try session.score(prompt, skipping: 50) { _, _ in }
    #expect(fractions.count == chunkCount * 2 * TinyModel().layerCount && fractions.last == 1)
  }

  @Test func `Decoding tells nothing, and watching changes no bit`() throws {
    let (watched, plain) = (try session(), try session())
    var count = 0
    watched.onProgress = { _ in count += 1 }
    let expected = Array(try plain.prefill(prompt)).map(\.bitPattern)
    #expect(Array(try watched.prefill(prompt)).map(\.bitPattern) == expected)
    count = 0
    let decoded = Array(try plain.decode(7)).map(\.bitPattern)
    #expect(Array(try watched.decode(7)).map(\.bitPattern) == decoded)
    #expect(count == 0)
  }
}
