import Grammar
import ModelFormat
import Runtime
import Server
import TensorBasics
import Testing
import Tokenization

/// What comes over HTTP is what the engine answers.
@Suite struct AnswerEqualityTests {
  /// A request, and what the engine is asked for it.
  struct Question: Sendable {
    var path = "/v1/completions"
    var body = ""
    var streams = false
    /// One for each choice.
    var requests: [SequenceRequest] = []
  }

  private static let paths = [
    "/v1/completions", "/v1/chat/completions", "/v1/messages", "/v1/responses",
  ]
  /// Those that answer once.
  private static let singlePaths: Set = ["/v1/messages", "/v1/responses"]

  /// Ways to say what an answer must be, and what they mean.
  private static let constraints: [@Sendable () throws -> (String, CompiledGrammar?)] = [
    { ("", nil) },
    { (#""response_format": {"type": "text"}"#, nil) },
    { (#""response_format": {"type": "json_object"}"#, try .anyObject()) },
    {
      let schema = #"{"type": "array", "items": {"enum": ["ab", 1]}, "minItems": 1}"#
      let format = #"{"name": "n", "strict": true, "schema": \#(schema)}"#
      return (
        #""response_format": {"type": "json_schema", "json_schema": \#(format)}"#,
        try CompiledGrammar(jsonSchema: schema)
      )
    },
    {
      (
        #""json_schema": {"type": "boolean"}"#,
        try CompiledGrammar(jsonSchema: #"{"type": "boolean"}"#)
      )
    },
    { (#""grammar": "root ::= [a-f]+""#, try CompiledGrammar(gbnf: "root ::= [a-f]+")) },
    {
      (
        #""structured_outputs": {"regex": "[a-f]{3,9}"}"#,
        try CompiledGrammar(pattern: "[a-f]{3,9}")
      )
    },
    {
      (
        #""structured_outputs": {"choice": ["yes", "no"]}"#,
        try CompiledGrammar(choices: ["yes", "no"])
      )
    },
  ]

  private static func question(
    _ model: LanguageModel, using generator: inout SeededGenerator
  ) throws -> Question {
    var question = Question()
    let seed = Int.random(in: 0...1 << 40, using: &generator)
    let temperature = [0, 0.7, 1.5].randomElement(using: &generator)!
    let limit = Int.random(in: 1...40, using: &generator)
    let stops = [[], ["a"], ["th", "xy"]].randomElement(using: &generator)!
    let topK = [0, 5, 40].randomElement(using: &generator)!
    question.streams = Bool.random(using: &generator)
    question.path = paths.randomElement(using: &generator)!
    let (isMessages, isResponses) = (
      question.path == "/v1/messages", question.path == "/v1/responses"
    )
    let isSingle = singlePaths.contains(question.path)
    let count = isSingle ? 1 : Int.random(in: 1...2, using: &generator)
    let text = (0..<Int.random(in: 1...60, using: &generator)).map { _ in
      String("abcdefgh it the".randomElement(using: &generator)!)
    }.joined()
    var fields = [
      "\"\(isResponses ? "max_output_tokens" : "max_tokens")\": \(limit)",
      "\"temperature\": \(temperature)", "\"seed\": \(seed)",
      "\"top_k\": \(topK)", "\"stream\": \(question.streams)",
      "\"\(isMessages ? "stop_sequences" : "stop")\": [\(stops.map { "\"\($0)\"" }.joined(separator: ","))]",
    ]
    if !isSingle { fields.append("\"n\": \(count)") }
    let tokens: [Int32]
    if question.path != "/v1/completions" {
      var own = ["\"messages\": [{\"role\": \"user\", \"content\": \"\(text)\"}]"]
      // What calls no tool is text as it is where none is offered.
      if !isSingle, Bool.random(using: &generator) {
        own.append(#""tools": [{"type": "function", "function": {"name": "f"}}]"#)
      }
      fields += isResponses ? ["\"input\": \"\(text)\""] : own
      let conversation = "{\(own.joined(separator: ","))}"
      tokens = try model.prompt(Conversation(json: Array(conversation.utf8), name: "question"))
    } else {
      fields.append("\"prompt\": \"\(text)\"")
      tokens = try model.prompt(text)
    }
    var (field, grammar) = try constraints.randomElement(using: &generator)!()
    // That one has another name there.
    if isResponses, field.contains("response_format") { (field, grammar) = ("", nil) }
    if !field.isEmpty { fields.append(field) }
    let penalty = [0, 0.5].randomElement(using: &generator)!
    fields += [
      "\"presence_penalty\": \(penalty)", "\"frequency_penalty\": \(-penalty)",
      "\"logit_bias\": {\"9\": \(4 * penalty), \"70\": -1.5}",
    ]
    question.body = "{\(fields.joined(separator: ","))}"
    question.requests = (0..<count).map { choice in
      var sampling = SamplingOptions(
        temperature: Float(temperature), topK: topK, seed: UInt64(seed), stream: UInt32(choice))
      (sampling.presencePenalty, sampling.frequencyPenalty) = (Float(penalty), Float(-penalty))
      sampling.logitBias = [
        TokenBias(token: 9, bias: Float(4 * penalty)), TokenBias(token: 70, bias: -1.5),
      ]
      var request = SequenceRequest(
        tokens: tokens, limit: limit, sampling: sampling, stops: StopStrings(stops))
      request.grammar = grammar
      return request
    }
    return question
  }

  private static func answers(_ reply: HTTPReply, _ question: Question) throws -> [ServerRig.Answer]
  {
    #expect(reply.status == 200, "\(reply.text)")
    var answers = [ServerRig.Answer](repeating: .init(), count: question.requests.count)
    let documents =
      question.streams ? reply.events.filter { $0 != "[DONE]" } : [reply.text]
    let isMessages = question.path == "/v1/messages"
    if question.path == "/v1/responses" {
      let last = try JSONValue.parsed(documents.last ?? "")
      let response = question.streams ? last["response"] : last
      for part in response?["output"]?.array?.first?["content"]?.array ?? [] {
        answers[0].text += part["text"]?.string ?? ""
      }
      answers[0].reason = response?["status"]?.string == "completed" ? "stop" : "length"
      return answers
    }
    let end = isMessages ? "{\"type\":\"message_stop\"}" : "[DONE]"
    #expect(question.streams == (reply.events.last == end))
    for document in documents {
      let document = try JSONValue.parsed(document)
      if isMessages {
        add(document, to: &answers[0])
        continue
      }
      for choice in document["choices"]?.array ?? [] {
        let index = choice["index"]?.integer ?? 0
        let text = choice["text"] ?? (choice["message"] ?? choice["delta"])?["content"]
        answers[index].text += text?.string ?? ""
        answers[index].reason += choice["finish_reason"]?.string ?? ""
      }
    }
    return answers
  }

  /// Adds what a message, or an event of its stream, has of an answer.
  private static func add(_ document: JSONValue, to answer: inout ServerRig.Answer) {
    for block in document["content"]?.array ?? [] { answer.text += block["text"]?.string ?? "" }
    answer.text += document["delta"]?["text"]?.string ?? ""
    switch (document["delta"] ?? document)["stop_reason"]?.string {
    case "end_turn", "stop_sequence": answer.reason += "stop"
    case "max_tokens": answer.reason += "length"
    case let other: answer.reason += other ?? ""
    }
  }

  @Test(arguments: [1, 2, 3])
  func `What HTTP answers is what the engine answers alone, however many ask`(
    seed: UInt64
  ) async throws {
    try await ServerRig.serving { rig in
      var generator = SeededGenerator(seed: seed)
      let model = try rig.model()
      let questions = try (0..<16).map { _ in try Self.question(model, using: &generator) }
      let expected = try questions.map { try rig.alone($0.requests) }
      try await withThrowingTaskGroup(of: (Int, HTTPReply).self) { group in
        for (index, question) in questions.enumerated() {
          group.addTask { (index, try await rig.post(question.path, question.body)) }
        }
        for try await (index, reply) in group {
          let answers = try Self.answers(reply, questions[index])
          #expect(answers == expected[index], "seed \(seed): \(questions[index].body)")
        }
      }
    }
  }

  @Test func `A seed that was drawn is told, and gives the same answer again`() async throws {
    try await ServerRig.serving { rig in
      func ask(_ seed: String) async throws -> JSONValue {
        let body = "{\"prompt\": \"the\", \"max_tokens\": 20\(seed)}"
        return try JSONValue.parsed(try await rig.post("/v1/completions", body).text)
      }
      let first = try await ask("")
      let seed = try #require(first["seed"]?.integer)
      let second = try await ask(", \"seed\": \(seed)")
      let texts = [first, second].map { $0["choices"]?.array?.first?["text"]?.string }
      #expect(texts[0] == texts[1] && texts[0]?.isEmpty == false)
    }
  }
}
