public import CFlashInfer
import HostResources
import Kernels
import ModelFormat
import Runtime
import Synchronization
import TensorBasics
import WeightLoader

/// A model and its session, which generations take turns with.
final class GeneratorHandle {
  private let model: LanguageModel
  private let request: MemoryPlan.Request
  private var session: Session?
  private let isInUse = Atomic(false)
  private var isClosed = false
  /// Raised from any thread, it ends the generation under way.
  let cancellation = CancellationFlag()

  /// - Throws: `RuntimeError`; also where the budget is too small, before anything large is allocated.
  init(path: String, ram: Int?, contextLength: Int, threadCount: Int) throws(RuntimeError) {
    model = try LanguageModel.open(path)
    let context = max(2, min(contextLength, model.configuration.contextLength))
    request = MemoryPlan.Request(
      budgetByteCount: ram ?? HostLimits().defaultBudget, contextLength: context,
      promptLength: min(context, 512), threadCount: threadCount)
    session = try Session(
      model.source, model.configuration, request, cancellation: cancellation)
  }

  static func find(_ handle: OpaquePointer?) throws(CallError) -> GeneratorHandle {
    try HandleTable.shared.find(number(try required(handle, "generator")), as: GeneratorHandle.self)
  }

  /// Runs `body` where nobody else uses the generator.
  private func exclusively(_ body: () throws -> Void) throws {
    guard !isInUse.exchange(true, ordering: .acquiring) else {
      throw CallError(.busy, "two threads use one generator at the same time")
    }
    defer { isInUse.store(false, ordering: .releasing) }
    guard !isClosed else { throw CallError(.closed, "used after it was closed") }
    try body()
  }

  func close() throws {
    try exclusively {
      session = nil
      isClosed = true
    }
  }

  /// Continues a prompt.
  ///
  /// - Parameter emit: takes text; false ends the generation.
  /// - Throws: `RuntimeError`, `CallError` of status cancelled where it was ended.
  func generate(
    _ prompt: String, isChat: Bool, maximumTokenCount: Int, sampling: SamplingOptions,
    emit: (UnsafeBufferPointer<UInt8>) -> Bool
  ) throws {
    try exclusively {
      let session = try readySession()
      let tokens = try model.prompt(prompt, isChat: isChat)
      let room = session.plan.contextLength - tokens.count
      guard room > 0 else {
        throw CallError(
          .invalid,
          "the prompt has \(tokens.count) tokens, the context room for \(session.plan.contextLength) "
            + "with the answer")
      }
      do {
        let result = try TextGenerator(session: session, tokenizer: model.tokenizer).generate(
          GenerationOptions(
            prompt: tokens, maximumTokenCount: min(maximumTokenCount, room), sampling: sampling)
        ) { text in
          if !emit(text) { cancellation.raise() }
        }
        guard !result.wasInterrupted, !cancellation.isRaised else {
          throw CallError(.cancelled, "cancelled")
        }
      } catch {
        // A sweep that stopped half-way is not gone on with.
        self.session = nil
        throw error
      }
    }
  }

  /// The session at the beginning of a context.
  private func readySession() throws(RuntimeError) -> Session {
    cancellation.lower()
    if let session {
      session.reset()
      return session
    }
    let made = try Session(
      model.source, model.configuration, request, cancellation: cancellation)
    session = made
    return made
  }
}

@c @implementation
public func flashinfer_generator_open(
  _ path: UnsafePointer<CChar>?, _ options: UnsafePointer<flashinfer_generator_options>?,
  _ generator: UnsafeMutablePointer<OpaquePointer?>?,
  _ error: UnsafeMutablePointer<flashinfer_error>?
) -> flashinfer_status {
  call(error) {
    let path = try text(path, "path")
    let generator = try required(generator, "generator")
    var wanted = flashinfer_generator_options()
    if let options {
      try checkSize(options.pointee.size, of: flashinfer_generator_options.self, "options")
      wanted = options.pointee
    }
    guard wanted.thread_count <= 256, wanted.context_length <= 1 << 30 else {
      throw CallError(.invalid, "at most 256 threads and a context of 2^30 are possible")
    }
    let ram = try integer(wanted.ram, "options->ram")
    let opened = try GeneratorHandle(
      path: path, ram: ram == 0 ? nil : ram,
      contextLength: wanted.context_length == 0 ? 2048 : Int(wanted.context_length),
      threadCount: wanted.thread_count == 0
        ? HostLimits().processorCount : Int(wanted.thread_count))
    generator.pointee = handle(HandleTable.shared.add(opened))
    return .ok
  }
}

@c @implementation
public func flashinfer_generator_close(
  _ generator: OpaquePointer?, _ error: UnsafeMutablePointer<flashinfer_error>?
) -> flashinfer_status {
  call(error) {
    try GeneratorHandle.find(generator).close()
    try HandleTable.shared.remove(number(generator), as: GeneratorHandle.self)
    return .ok
  }
}

@c @implementation
public func flashinfer_generate(
  _ generator: OpaquePointer?, _ prompt: UnsafePointer<CChar>?,
  _ generation: UnsafePointer<flashinfer_generation>?, _ sink: flashinfer_text_sink?,
  _ context: UnsafeMutableRawPointer?, _ error: UnsafeMutablePointer<flashinfer_error>?
) -> flashinfer_status {
  call(error) {
    let prompt = try text(prompt, "prompt")
    let generation = try required(generation, "generation").pointee
    try checkSize(generation.size, of: flashinfer_generation.self, "generation")
    let sink = try required(sink, "sink")
    guard generation.temperature >= 0, generation.temperature.isFinite, generation.top_p > 0,
      generation.top_p <= 1, (1...(1 << 30)).contains(generation.maximum_tokens)
    else {
      throw CallError(
        .invalid,
        "temperature must be 0 or more, top_p above 0 and at most 1, maximum_tokens at least 1")
    }
    try GeneratorHandle.find(generator).generate(
      prompt, isChat: generation.is_chat != 0, maximumTokenCount: Int(generation.maximum_tokens),
      sampling: SamplingOptions(
        temperature: generation.temperature, topK: Int(generation.top_k), topP: generation.top_p,
        seed: generation.seed)
    ) { text in
      text.withMemoryRebound(to: CChar.self) { sink(context, $0.baseAddress, $0.count) == 0 }
    }
    return .ok
  }
}

@c @implementation
public func flashinfer_cancel(
  _ handle: UnsafeMutableRawPointer?, _ error: UnsafeMutablePointer<flashinfer_error>?
) -> flashinfer_status {
  call(error) {
    let pointer = OpaquePointer(try required(handle, "handle"))
    if let generator = try? GeneratorHandle.find(pointer) {
      generator.cancellation.raise()
    } else {
      try LoaderHandle.find(pointer).loader.cancellation.raise()
    }
    return .ok
  }
}
