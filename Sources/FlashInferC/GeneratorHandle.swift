import CFlashInfer
import ModelFormat
import Runtime
import Synchronization
import TensorBasics
import Tokenization
import WeightLoader

/// What to continue.
enum Prompt {
  case text(String)
  case conversation(Conversation)
}

/// How a generation went.
struct Generated {
  var promptTokenCount: Int
  var answerTokenCount: Int
  var finishReason: FinishReason
  /// What is odd about the prompt; nil = nothing.
  var oddity: String?
}

/// A model and its session, which generations take turns with.
final class GeneratorHandle {
  private let model: LanguageModel
  private let request: MemoryPlan.Request
  private var session: Session?
  private let isInUse = Atomic(false)
  private var isClosed = false
  let cancellations = Cancellations()

  /// - Throws: `RuntimeError`; also where the budget is too small, before anything large is allocated.
  init(path: String, _ options: flashinfer_generator_options) throws {
    let plan = try PlanOptions(
      ram: options.ram, contextLength: options.context_length, threadCount: options.thread_count)
    model = try LanguageModel.open(path)
    request = plan.request(
      for: model,
      callerByteCount: Sampler.byteCount(vocabularyCount: model.configuration.vocabularyCount))
    session = try Session(
      model.source, model.configuration, request, cancellation: cancellations.flag)
  }

  static func find(_ handle: OpaquePointer?) throws(CallError) -> GeneratorHandle {
    try HandleTable.shared.find(number(try required(handle, "generator")), as: GeneratorHandle.self)
  }

  /// Runs `body` while no other call uses the generator.
  private func exclusively<Result>(_ body: () throws -> Result) throws -> Result {
    guard !isInUse.exchange(true, ordering: .acquiring) else {
      throw CallError(
        .busy, "two threads use one generator at the same time",
        remedy: "take turns, or open the model once for each thread")
    }
    defer { isInUse.store(false, ordering: .releasing) }
    guard !isClosed else { throw CallError(.closed, "used after it was closed") }
    return try body()
  }

  func close() throws {
    try exclusively {
      session = nil
      isClosed = true
    }
  }

  /// Continues a prompt.
  ///
  /// - Parameters:
  ///   - ticket: the caller's number for this generation; 0 = none.
  ///   - emit: takes text; false ends the generation.
  /// - Returns: how it went, also where it was ended.
  /// - Throws: `RuntimeError`, `CallError`.
  func generate(
    _ prompt: Prompt, maximumTokenCount: Int, sampling: SamplingOptions, ticket: UInt64,
    emit: (UnsafeBufferPointer<UInt8>) -> Bool
  ) throws -> Generated {
    try exclusively {
      cancellations.begin(ticket: ticket)
      let outcome = Result {
        try answer(prompt, maximumTokenCount: maximumTokenCount, sampling: sampling, emit)
      }
      let wasCancelled = cancellations.end()
      var generated = try outcome.get()
      if wasCancelled { generated.finishReason = .cancelled }
      return generated
    }
  }

  private func answer(
    _ prompt: Prompt, maximumTokenCount: Int, sampling: SamplingOptions,
    _ emit: (UnsafeBufferPointer<UInt8>) -> Bool
  ) throws -> Generated {
    let tokens = try tokens(of: prompt)
    let length = request.contextLength
    guard tokens.count < length else {
      throw CallError(
        .invalid,
        "the prompt has \(tokens.count) tokens; the context of \(length) must hold it and an answer",
        remedy: "shorten the prompt, or open the model with a longer context")
    }
    var generated = Generated(
      promptTokenCount: tokens.count, answerTokenCount: 0, finishReason: .cancelled,
      oddity: model.oddity(of: tokens))
    do {
      let result = try TextGenerator(session: readySession(), tokenizer: model.tokenizer).generate(
        GenerationOptions(
          prompt: tokens, maximumTokenCount: maximumTokenCount, sampling: sampling)
      ) { if !emit($0) { cancellations.flag.raise() } }
      generated.answerTokenCount = result.tokens.count
      generated.finishReason = result.finishReason
    } catch RuntimeError.interrupted {
      // Before it began.
    } catch RuntimeError.badPrompt(let reason) {
      throw RuntimeError.badPrompt(reason)
    } catch {
      // Final, for this session.
      session = nil
      throw error
    }
    return generated
  }

  private func tokens(of prompt: Prompt) throws(RuntimeError) -> [Int32] {
    switch prompt {
    case .text(let text): try model.prompt(text)
    case .conversation(let conversation): try model.prompt(conversation)
    }
  }

  /// The session at the beginning of a context.
  private func readySession() throws(RuntimeError) -> Session {
    if cancellations.flag.isRaised { throw .interrupted }
    if let session {
      session.reset()
      return session
    }
    let made = try Session(
      model.source, model.configuration, request, cancellation: cancellations.flag)
    session = made
    return made
  }
}
