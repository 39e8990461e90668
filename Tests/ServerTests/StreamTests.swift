import ModelFormat
import Runtime
import TestSupport
import Testing
import Tokenization

/// The forms of answers, whole and streamed.
@Suite struct StreamTests {
  @Test func `A stream begins with a sign of life, tells of the prompt and ends with its usage`()
    async throws
  {
    try await ServerRig.serving { rig in
      let body = """
        {"messages": [{"role": "user", "content": "the an on"}], "max_completion_tokens": 4, "stream": true,
         "ignore_eos": true, "stream_options": {"include_usage": true}, "model": "tiny"}
        """
      let reply = try await rig.post("/v1/chat/completions", body)
      #expect(reply.headers["content-type"] == "text/event-stream")
      #expect(reply.text.hasPrefix(": ping\n\n"))
      #expect(reply.text.contains(": reading, "))
      #expect(reply.events.last == "[DONE]")
      let chunks = try reply.events.dropLast().map { try JSONValue.parsed($0) }
      let first = try #require(chunks.first?["choices"]?.array?.first)
      #expect(first["delta"]?["role"]?.string == "assistant")
      #expect(first["delta"]?.members?.map(\.key) == ["role", "content"])
      #expect(chunks.allSatisfy { $0["object"]?.string == "chat.completion.chunk" })
      let finished = chunks.compactMap { $0["choices"]?.array?.first?["finish_reason"]?.string }
      #expect(finished == ["length"])
      let usage = try #require(chunks.last?["usage"])
      #expect(chunks.last?["choices"]?.array?.isEmpty == true)
      #expect(usage["completion_tokens"]?.integer == 4)
      let prompt = try rig.model().prompt([.init(role: .user, "the an on")]).count
      #expect(usage["prompt_tokens"]?.integer == prompt)
      #expect(usage["total_tokens"]?.integer == prompt + 4)
      let details = usage["completion_tokens_details"]
      #expect(details?["reasoning_tokens"]?.integer == 0)
      #expect(details?["accepted_prediction_tokens"]?.integer == 0)
      #expect(details?["rejected_prediction_tokens"]?.integer == 0)
    }
  }

  @Test func `Probabilities of tokens add up to the answer, in both interfaces`() async throws {
    try await ServerRig.serving { rig in
      let chat = try await rig.post(
        "/v1/chat/completions",
        #"{"messages":[{"role":"user","content":"a"}],"max_tokens":5,"logprobs":true,"top_logprobs":3,"seed":4}"#
      )
      let choice = try #require(
        try JSONValue.parsed(chat.text)["choices"]?.array?.first)
      let tokens = try #require(choice["logprobs"]?["content"]?.array)
      #expect(tokens.allSatisfy { $0["top_logprobs"]?.array?.count == 3 })
      #expect(tokens.allSatisfy { ($0["logprob"]?.double ?? 1) <= 0 })
      let bytes = tokens.flatMap { $0["bytes"]?.array?.compactMap(\.integer) ?? [] }
      let text = String(decoding: bytes.map { UInt8($0) }, as: UTF8.self)
      #expect(choice["message"]?["content"]?.string == text)

      let completion = try await rig.post(
        "/v1/completions", #"{"prompt":"a","max_tokens":5,"logprobs":2,"seed":4}"#)
      let logprobs = try #require(
        try JSONValue.parsed(completion.text)["choices"]?.array?.first?["logprobs"])
      let count = try #require(logprobs["tokens"]?.array?.count)
      for name: StaticString in ["token_logprobs", "top_logprobs", "text_offset"] {
        #expect(logprobs[name]?.array?.count == count)
      }

      // An answer without text has none, and they are told of all the same.
      let end = try #require(rig.model().tokenizer.eosToken)
      let bias = #""max_tokens":5,"temperature":0,"logit_bias":{"\#(end)":100}"#
      let empty = try JSONValue.parsed(
        try await rig.post("/v1/completions", #"{"prompt":"a","logprobs":2,\#(bias)}"#).text)
      let told = empty["choices"]?.array?.first
      #expect(told?["text"]?.string == "" && told?["finish_reason"]?.string == "stop", "\(empty)")
      #expect(told?["logprobs"]?["tokens"]?.array?.isEmpty == true)
      let emptyChat = try JSONValue.parsed(
        try await rig.post(
          "/v1/chat/completions",
          #"{"messages":[{"role":"user","content":"a"}],"logprobs":true,\#(bias)}"#
        ).text)
      let content = emptyChat["choices"]?.array?.first?["logprobs"]?["content"]
      #expect(content?.array?.isEmpty == true, "\(emptyChat)")
    }
  }

  /// The choice's text and the bytes of the tokens that it tells of, joined over the chunks of a stream.
  private static func told(_ reply: HTTPReply) throws -> (text: String, tokens: [[UInt8]]) {
    let documents = reply.events.isEmpty ? [reply.text] : reply.events.filter { $0 != "[DONE]" }
    var (text, tokens) = ("", [[UInt8]]())
    for document in documents {
      let choice = try JSONValue.parsed(document)["choices"]?.array?.first
      text += (choice?["message"] ?? choice?["delta"])?["content"]?.string ?? ""
      for token in choice?["logprobs"]?["content"]?.array ?? [] {
        tokens.append((token["bytes"]?.array ?? []).compactMap(\.integer).map { UInt8($0) })
      }
    }
    return (text, tokens)
  }

  @Test func `Tokens that a stop string cuts off are not told of`() async throws {
    try await ServerRig.serving { rig in
      func ask(_ seed: Int, _ fields: String) async throws -> (text: String, tokens: [[UInt8]]) {
        let body =
          #"{"messages":[{"role":"user","content":"a"}],"max_tokens":30,"logprobs":true,"#
          + #""ignore_eos":true,"seed":\#(seed)\#(fields)}"#
        return try Self.told(try await rig.post("/v1/chat/completions", body))
      }
      for seed in 1...8 {
        let whole = try await ask(seed, "")
        // Where a token begins, and in the middle of what several make.
        for start in [4, 9] {
          let stop = whole.text.dropFirst(start).prefix(3)
          guard stop.count == 3, !stop.contains(where: { "\"\\\n\u{FFFD}".contains($0) }),
            stop.allSatisfy({ $0.isASCII && !$0.isWhitespace })
          else { continue }
          let fields = ",\"stop\":\"\(stop)\""
          let (cut, streamed) = (
            try await ask(seed, fields), try await ask(seed, fields + ",\"stream\":true")
          )
          #expect(cut == streamed, "\(seed) \(stop)")
          func joined(_ tokens: some Sequence<[UInt8]>) -> String {
            String(decoding: Array(tokens.joined()), as: UTF8.self)
          }
          #expect(joined(cut.tokens).utf8.starts(with: cut.text.utf8), "\(cut)")
          // The last of them has some of the text.
          #expect(cut.text.isEmpty == cut.tokens.isEmpty)
          #expect(
            cut.text.isEmpty
              || joined(cut.tokens.dropLast()).utf8.count < cut.text.utf8.count, "\(cut)")
        }
      }
    }
  }

  @Test func `Each prompt has its n choices, and counts once`() async throws {
    try await ServerRig.serving { rig in
      let reply = try await rig.post(
        "/v1/completions",
        #"{"prompt":[[5,6,7],[8,9]],"n":2,"max_tokens":3,"ignore_eos":true,"seed":1}"#)
      let json = try JSONValue.parsed(reply.text)
      #expect(json["choices"]?.array?.compactMap { $0["index"]?.integer } == [0, 1, 2, 3])
      #expect(json["usage"]?["prompt_tokens"]?.integer == 5)
      #expect(json["usage"]?["completion_tokens"]?.integer == 12)
    }
  }

  @Test func `What a store has of a prompt is told as cached, and changes no answer`() async throws
  {
    let folder = TemporaryFolder()
    try await ServerRig.serving(store: Engine.Store(path: folder.path + "/kv")) { rig in
      let prompt = (0..<150).map { "\(5 + $0 % 90)" }.joined(separator: ",")
      let body = "{\"prompt\":[\(prompt)],\"max_tokens\":9,\"seed\":2,\"ignore_eos\":true}"
      var (texts, counts) = ([String?](), [Int?]())
      // The store keeps what ended while nothing is to be answered.
      while texts.isEmpty || (counts.last == 0 && texts.count < 1000) {
        let json = try JSONValue.parsed(try await rig.post("/v1/completions", body).text)
        texts.append(json["choices"]?.array?.first?["text"]?.string)
        counts.append(json["usage"]?["prompt_tokens_details"]?["cached_tokens"]?.integer)
      }
      #expect(counts.first == 0 && counts.last == 150)
      #expect(Set(texts).count == 1 && texts.first != nil)
    }
  }
}
