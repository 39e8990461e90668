import ModelFormat
import Runtime
import Tokenization

/// The body of `/v1/responses` and `/v1/responses/input_tokens`.
struct ResponsesRequest {
  let chat: ChatRequest
  /// Whether it is kept for others to go on from.
  let isKept: Bool
  let previousID: String?
  /// As of ``KeptResponse``, without the answer.
  let messages: [[UInt8]]
  let frame: [UInt8]
  /// Fields of the request that the response repeats, as JSON.
  let repeated: [(name: String, value: [UInt8])]

  private static let countedFields = [
    "model", "input", "instructions", "previous_response_id", "tools", "tool_choice",
    "parallel_tool_calls", "reasoning", "text", "chat_template_kwargs",
  ]
  private static let answeredFields =
    countedFields + [
      "max_output_tokens", "temperature", "top_p", "stream", "stream_options", "store", "metadata",
      "include", "top_logprobs",
      // Beyond OpenAI's interface.
      "top_k", "min_p", "repetition_penalty", "seed", "stop", "ignore_eos",
    ] + AnswerOptions.loadFields + AnswerConstraint.fields.filter { $0 != "response_format" }
  private static let neutralFields: [String: FieldNames.NeutralValue] = [
    "background": .no, "context_management": .empty, "conversation": .none,
    "max_tool_calls": .none, "moderation": .none, "prompt": .none, "prompt_cache_key": .anyText,
    "prompt_cache_retention": .texts(["in_memory"]), "safety_identifier": .anyText,
    "service_tier": .texts(["auto", "default"]), "truncation": .texts(["disabled"]),
    "user": .anyText,
  ]
  private static let names = FieldNames(
    "ResponsesRequest", taken: answeredFields, neutral: neutralFields)
  private static let countedNames = FieldNames(
    "ResponsesCountRequest", taken: countedFields, neutral: ["truncation": .texts(["disabled"])])
  private static let textNames = FieldNames("ResponsesText", taken: ["format", "verbosity"])
  private static let reasoningNames = FieldNames(
    "ReasoningOptions", taken: ["effort", "summary"])
  private static let streamNames = FieldNames(
    "ResponsesStreamOptions", taken: [], neutral: ["include_obfuscation": .no])
  static let objectNames = [names, countedNames, textNames, reasoningNames, streamNames]

  /// - Parameters:
  ///   - isAnswered: false where its tokens are only counted.
  ///   - byteLimit: most bytes of a conversation, as of a body that has all of it.
  init(
    _ body: [UInt8], isAnswered: Bool, kept: KeptResponses, byteLimit: Int
  ) throws {
    let fields = try RequestFields(body, isAnswered ? Self.names : Self.countedNames)
    previousID = try fields.text("previous_response_id")
    let previous = try previousID.map { try kept.find($0, field: "previous_response_id") }
    let old = previous?.messages ?? []
    guard old.reduce(body.count, { $0 + $1.count }) <= byteLimit else {
      throw APIError.bad(
        "previous_response_id",
        "the conversation has more than \(byteLimit) bytes (the server's --max-body)",
        code: "context_length_exceeded")
    }
    let oldMessages = try old.map { message in
      try message.withUnsafeBytes { try JSONParser.parse($0, path: "a kept message") }
    }
    var reader = ResponsesReader(after: oldMessages)
    let new = try reader.messages(fields.required("input"))
    let list = try fields["tools"].map(ResponsesReader.tools)
    let tools = try ToolOffer(
      tools: list, try fields["tool_choice"].map(ResponsesReader.choice) ?? .auto,
      allowsMany: fields.flag("parallel_tool_calls") ?? true)
    let arguments = try Self.templateArguments(fields)
    let instructions = try fields.text("instructions").map {
      JSONValue.message("system", .text($0))
    }
    let head = [("tools", tools.names.isEmpty ? nil : list)] + arguments
    let verbosity = fields["text"]?["verbosity"]
    frame = JSONWriter.value { json in
      json.value(nil, .object([("system", instructions), ("verbosity", verbosity)] + head))
    }
    messages = old + new.map { message in JSONWriter.value { $0.value(nil, message) } }
    let all = [instructions].compactMap { $0 } + oldMessages + new
    var conversation: Conversation
    do throws(TokenizerError) {
      conversation = try Conversation(.object([("messages", .list(all))] + head), name: "the body")
    } catch { throw APIError.bad("input", error.description) }
    try fields["text"].map { try Self.textNames.check($0, at: "text") }
    var demands = Self.demands(fields)
    try demands.setVerbosity(of: &conversation, to: verbosity, at: "text.verbosity")
    var chat = ChatRequest(
      conversation: conversation, tools: tools, separatesReasoning: true,
      options: try Self.options(fields))
    if let previous, previous.frame == frame {
      chat.continued = (previous.tokens, all.count - new.count - 1)
    }
    chat.demands = demands
    self.chat = chat
    isKept = isAnswered ? try fields.flag("store") ?? true : false
    repeated = try Self.repeated(fields)
  }

  private static func options(_ fields: RequestFields) throws -> AnswerOptions {
    var options = try AnswerOptions(
      fields, limit: ["max_output_tokens"], streamOptions: streamNames)
    let count = try fields.integer("top_logprobs", in: 0...AnswerOptions.mostAlternatives)
    var includesProbabilities = false
    if let include = fields["include"] {
      // Reasoning is never encrypted: it is there in the clear.
      let known = ["message.output_text.logprobs", "reasoning.encrypted_content"]
      let words = include.array?.compactMap(\.string) ?? []
      guard words.count == include.array?.count, words.allSatisfy(known.contains) else {
        throw APIError.bad(
          "include", "'include' must be a list of: \(known.joined(separator: ", "))",
          code: "unsupported_parameter")
      }
      includesProbabilities = words.contains(known[0])
    }
    if includesProbabilities {
      options.alternativeCount = count ?? 0
    } else if let count, count > 0 {
      throw APIError.bad(
        "top_logprobs",
        "'top_logprobs' needs \"include\": [\"message.output_text.logprobs\"]")
    }
    return options
  }

  /// What the chat template is given beside messages and tools.
  private static func templateArguments(
    _ fields: RequestFields
  ) throws -> [(String, JSONValue?)] {
    let reasoning = fields["reasoning"]
    try reasoning.map { try reasoningNames.check($0, at: "reasoning") }
    if let summary = reasoning?["summary"], summary.string != "auto" {
      throw APIError.bad(
        "reasoning",
        "'reasoning.summary' is not supported but as \"auto\": reasoning is told whole",
        code: "unsupported_parameter")
    }
    if let effort = reasoning?["effort"], effort.string == nil {
      throw APIError.bad("reasoning", "'reasoning.effort' must be a text, not \(effort.found)")
    }
    return [
      ("reasoning_effort", reasoning?["effort"]),
      ("chat_template_kwargs", fields["chat_template_kwargs"]),
    ]
  }

  private static func demands(_ fields: RequestFields) -> TemplateDemands {
    let effort = fields["reasoning"]?["effort"].map { _ in
      ("reasoning_effort", "reasoning.effort")
    }
    let arguments = (fields["chat_template_kwargs"]?.members ?? []).map {
      ($0.key, "chat_template_kwargs.\($0.key)")
    }
    return TemplateDemands(arguments: [effort].compactMap { $0 } + arguments)
  }

  /// Fields as they were given, and what stands for those that were not.
  private static func repeated(
    _ fields: RequestFields
  ) throws -> [(name: String, value: [UInt8])] {
    if let metadata = fields["metadata"] {
      let members = metadata.members
      guard let members, members.count <= 16,
        members.allSatisfy({ $0.key.utf8.count <= 64 && $0.value.string?.utf8.count ?? 513 <= 512 })
      else {
        throw APIError.bad(
          "metadata",
          "'metadata' must be an object of at most 16 texts of 512 bytes, with names of 64")
      }
    }
    let usual: [(String, JSONValue?)] = [
      ("instructions", nil), ("max_output_tokens", nil), ("metadata", .object([])),
      ("parallel_tool_calls", JSONValue(content: .bool(true), offset: 0)),
      ("previous_response_id", nil), ("reasoning", .object([])),
      ("text", .object([("format", .object([("type", .text("text"))]))])),
      ("tool_choice", .text("auto")), ("tools", .list([])),
      ("top_logprobs", JSONValue(content: .integer(0), offset: 0)),
      ("truncation", .text("disabled")),
    ]
    return usual.map { name, value in
      let value = fields[name] ?? value
      return (name, JSONWriter.value { json in value.map { json.value(nil, $0) } ?? json.null() })
    }
  }
}
