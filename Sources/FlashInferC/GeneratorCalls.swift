// The functions have the names of flashinfer.h.
// swift-format-ignore-file: AlwaysUseLowerCamelCase

public import CFlashInfer
import Runtime
import TensorBasics
import Tokenization
import WeightLoader

@c @implementation
public func flashinfer_generator_open(
  _ path: UnsafePointer<CChar>?, _ options: UnsafePointer<flashinfer_generator_options>?,
  _ generator: UnsafeMutablePointer<OpaquePointer?>?,
  _ error: UnsafeMutablePointer<flashinfer_error>?
) -> flashinfer_status {
  call(error) {
    let path = try FlashInferC.path(path)
    let generator = try required(generator, "generator")
    var wanted = flashinfer_generator_options()
    if let options { wanted = try .read(from: options, "options") }
    generator.pointee = handle(HandleTable.shared.add(try GeneratorHandle(path: path, wanted)))
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
  _ context: UnsafeMutableRawPointer?, _ result: UnsafeMutablePointer<flashinfer_result>?,
  _ error: UnsafeMutablePointer<flashinfer_error>?
) -> flashinfer_status {
  call(error) {
    let prompt = Prompt.text(try text(prompt, "prompt"))
    return try generate(generator, prompt, generation, sink, context, result)
  }
}

@c @implementation
public func flashinfer_chat(
  _ generator: OpaquePointer?, _ messages: UnsafePointer<flashinfer_message>?, _ count: Int,
  _ generation: UnsafePointer<flashinfer_generation>?, _ sink: flashinfer_text_sink?,
  _ context: UnsafeMutableRawPointer?, _ result: UnsafeMutablePointer<flashinfer_result>?,
  _ error: UnsafeMutablePointer<flashinfer_error>?
) -> flashinfer_status {
  call(error) {
    let conversation = Prompt.conversation(Conversation(try list(messages, count)))
    return try generate(generator, conversation, generation, sink, context, result)
  }
}

@c @implementation
public func flashinfer_chat_json(
  _ generator: OpaquePointer?, _ json: UnsafePointer<CChar>?,
  _ generation: UnsafePointer<flashinfer_generation>?, _ sink: flashinfer_text_sink?,
  _ context: UnsafeMutableRawPointer?, _ result: UnsafeMutablePointer<flashinfer_result>?,
  _ error: UnsafeMutablePointer<flashinfer_error>?
) -> flashinfer_status {
  call(error) {
    let prompt = Prompt.conversation(try conversation(json, "json"))
    return try generate(generator, prompt, generation, sink, context, result)
  }
}

/// C's list of messages as the template takes it.
private func list(
  _ messages: UnsafePointer<flashinfer_message>?, _ count: Int
) throws(CallError) -> [ChatMessage] {
  guard (1...Int(FLASHINFER_LIST_LIMIT)).contains(count) else {
    throw CallError(
      .invalid, "count is \(UInt(bitPattern: count)), not 1 to \(FLASHINFER_LIST_LIMIT)")
  }
  let messages = UnsafeRawPointer(try required(messages, "messages"))
  let size = try flashinfer_message.size(at: messages, "messages")
  let roles: [ChatMessage.Role] = [.system, .user, .assistant]
  var list: [ChatMessage] = []
  for index in 0..<count {
    let name = "messages[\(index)]"
    let message = try flashinfer_message.read(from: messages + index * size, size: size, name)
    guard (1...UInt32(roles.count)).contains(message.role) else {
      throw CallError(.invalid, "\(name).role is \(message.role), not 1 to \(roles.count)")
    }
    list.append(
      ChatMessage(role: roles[Int(message.role) - 1], try text(message.text, name + ".text")))
  }
  return list
}

/// Continues a prompt as C asks for it.
private func generate(
  _ generator: OpaquePointer?, _ prompt: Prompt,
  _ generation: UnsafePointer<flashinfer_generation>?, _ sink: flashinfer_text_sink?,
  _ context: UnsafeMutableRawPointer?, _ result: UnsafeMutablePointer<flashinfer_result>?
) throws -> Status {
  let wanted = try flashinfer_generation.read(
    from: try required(generation, "generation"), "generation")
  let sink = try required(sink, "sink")
  let resultSize = try result.map { pointer throws(CallError) in
    try flashinfer_result.size(at: pointer, "result")
  }
  let sampling = try wanted.sampling
  guard (1...(1 << 30)).contains(wanted.maximum_tokens) else {
    throw CallError(.invalid, "maximum_tokens is \(wanted.maximum_tokens), not 1 to 2^30")
  }
  let generated = try GeneratorHandle.find(generator).generate(
    prompt, maximumTokenCount: Int(wanted.maximum_tokens),
    sampling: sampling, ticket: wanted.ticket
  ) { text in
    text.withMemoryRebound(to: CChar.self) { sink(context, $0.baseAddress, $0.count) == 0 }
  }
  if let result, let resultSize {
    generated.structure(seed: sampling.seed).write(to: result, size: resultSize)
  }
  guard generated.finishReason != .cancelled else { throw CallError(.cancelled, "cancelled") }
  return .ok
}

extension flashinfer_generation {
  /// How tokens are drawn; a seed where none is given.
  var sampling: SamplingOptions {
    get throws(CallError) {
      func check(_ value: Float, _ name: String, _ range: String, _ isInRange: Bool)
        throws(CallError)
      {
        guard isInRange, value.isFinite else {
          throw CallError(.invalid, "\(name) is \(value), not \(range)")
        }
      }
      try check(temperature, "temperature", "0 or more", temperature >= 0)
      try check(top_p, "top_p", "above 0 and at most 1", top_p > 0 && top_p <= 1)
      try check(min_p, "min_p", "0 to 1", min_p >= 0 && min_p <= 1)
      try check(
        repetition_penalty, "repetition_penalty", "0 or more", repetition_penalty >= 0)
      return SamplingOptions(
        temperature: temperature, topK: Int(top_k), topP: top_p, minP: min_p,
        repetitionPenalty: repetition_penalty == 0 ? 1 : repetition_penalty,
        seed: is_seeded != 0 ? seed : UInt64.random(in: 0...UInt64(UInt32.max)))
    }
  }
}

extension Generated {
  fileprivate func structure(seed: UInt64) -> flashinfer_result {
    var structure = flashinfer_result()
    structure.prompt_tokens = UInt64(promptTokenCount)
    structure.answer_tokens = UInt64(answerTokenCount)
    structure.seed = seed
    structure.finish_reason = finishReason.number
    fill(&structure.warning, oddity ?? "")
    return structure
  }
}

@c @implementation
public func flashinfer_cancel(
  _ handle: UnsafeMutableRawPointer?, _ error: UnsafeMutablePointer<flashinfer_error>?
) -> flashinfer_status {
  call(error) {
    let pointer = OpaquePointer(try required(handle, "handle"))
    if let generator = try? GeneratorHandle.find(pointer) {
      generator.cancellations.cancel()
    } else {
      try LoaderHandle.find(pointer).loader.cancellation.raise()
    }
    return .ok
  }
}

@c @implementation
public func flashinfer_cancel_ticket(
  _ generator: OpaquePointer?, _ ticket: UInt64,
  _ error: UnsafeMutablePointer<flashinfer_error>?
) -> flashinfer_status {
  call(error) {
    guard ticket > 0 else {
      throw CallError(.invalid, "ticket is 0, which belongs to no generation")
    }
    try GeneratorHandle.find(generator).cancellations.cancel(through: ticket)
    return .ok
  }
}
