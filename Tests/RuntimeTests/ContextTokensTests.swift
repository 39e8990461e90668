import KVCache
import Kernels
import ModelFormat
import Runtime
import TensorBasics
import TestSupport
import Testing
import WeightLoader

/// Prompts one after another in one context, of which each reads only what is new.
@Suite struct ContextTokensTests {
  private let file = TemporaryFile(TinyModel().gguf(seed: 3).bytes())

  private func session(
    _ cancellation: CancellationFlag = CancellationFlag(), _ type: KeyValueType = .f16,
    _ policy: KeyValuePolicyChoice = .full
  ) throws -> Session {
    let source = try ModelSource.open(file.path)
    let configuration = try #require(source.description.configuration)
    var request = MemoryPlan.Request(
      budgetByteCount: 8 << 30, contextLength: 512, promptLength: 512, threadCount: 2,
      maximumChunkLength: 32)
    request.assumedProcessByteCount = 0
    request.keyValues.type = type
    request.keyValues.policy = policy
    return try Session(source, configuration, request, cancellation: cancellation)
  }

  private func bits(_ logits: UnsafeMutableBufferPointer<Float>) -> [UInt32] {
    logits.map(\.bitPattern)
  }

  private func tokens(_ count: Int, _ seed: UInt64) -> [Int32] {
    var generator = SeededGenerator(seed: seed)
    return (0..<count).map { _ in Int32.random(in: 0..<300, using: &generator) }
  }

  /// Reads a prompt and continues it, as a generator does.
  private func read(
    _ prompt: [Int32], _ answer: [Int32], _ session: Session, _ context: inout ContextTokens
  ) throws -> [[UInt32]] {
    try context.prepare(session, for: prompt)
    var found = [bits(try session.prefill(Array(prompt[session.position...])))]
    for token in answer { found.append(bits(try session.decode(token))) }
    context.note(session, prompt + answer)
    return found
  }

  @Test func `Only what follows the common beginning is read`() throws {
    let session = try session()
    var context = ContextTokens()
    let (first, answer) = (tokens(40, 1), tokens(7, 2))
    _ = try read(first, answer, session, &context)
    #expect(context.tokens == first + answer && session.position == 47)
    for (prompt, kept) in [
      (first + answer + tokens(5, 3), 47), (first + answer, 46), (Array(first[..<20]), 19),
      (tokens(30, 4), 0),
    ] {
      var context = context
      try context.prepare(session, for: first + answer)
      if session.position < 47 {
        _ = try read(first + answer, [], session, &context)
      }
      try context.prepare(session, for: prompt)
      #expect(session.position == kept && context.tokens == Array(prompt[..<kept]))
    }
  }

  @Test(
    arguments: KeyValueType.allCases, [KeyValuePolicyChoice.full, .recent(sinks: 128, recent: 128)])
  func `Every turn has the bits of a context that read all of it`(
    type: KeyValueType, policy: KeyValuePolicyChoice
  ) throws {
    var generator = SeededGenerator(seed: 5)
    let session = try session(CancellationFlag(), type, policy)
    var (context, history) = (ContextTokens(), tokens(10, 6))
    for turn in 0..<8 {
      // The answer, some of which reads otherwise as text, and a new message.
      let prompt = history + tokens(Int.random(in: 1...60, using: &generator), UInt64(10 + turn))
      let answer = tokens(Int.random(in: 0...30, using: &generator), UInt64(40 + turn))
      guard prompt.count + answer.count < 512 else { break }
      let found = try read(prompt, answer, session, &context)
      var fresh = ContextTokens()
      let expected = try read(
        prompt, answer, self.session(CancellationFlag(), type, policy), &fresh)
      #expect(found == expected, "turn \(turn)")
      history = (prompt + answer).dropLast(Int.random(in: 0...12, using: &generator))
    }
  }

  @Test func `A turn that was interrupted leaves nothing behind`() throws {
    let cancellation = CancellationFlag()
    let session = try session(cancellation)
    var context = ContextTokens()
    let prompt = tokens(150, 7)
    for step in [0, 3, 9] {
      var count = 0
      session.onProgress = { (_: Double) in
        count += 1
        if count == step { cancellation.raise() }
      }
      if step == 0 { cancellation.raise() }
      try context.prepare(session, for: prompt)
      #expect(throws: RuntimeError.self) {
        _ = try session.prefill(Array(prompt[session.position...]))
      }
      context.note(session, prompt)
      cancellation.lower()
    }
    session.onProgress = nil
    #expect(session.position > 0 && session.position % 32 == 0)
    let found = try read(prompt, [1, 2], session, &context)
    var fresh = ContextTokens()
    #expect(try found == read(prompt, [1, 2], self.session(), &fresh))
  }
}
