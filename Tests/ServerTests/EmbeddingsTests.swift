import ModelFormat
import Runtime
import Server
import TestSupport
import Testing
import Tokenization

/// Vectors over HTTP: of length 1, in the direction of what the engine pools.
@Suite struct EmbeddingsTests {
  private static func ask(_ rig: ServerRig, _ fields: String) async throws -> JSONValue {
    let reply = try await rig.post("/v1/embeddings", "{\(fields)}")
    #expect(reply.status == 200, "\(reply.text)")
    return try JSONValue.parsed(reply.text)
  }

  private static func vectors(_ response: JSONValue) -> [[Float]] {
    (response["data"]?.array ?? []).map { item in
      (item["embedding"]?.array ?? []).compactMap { $0.double.map { Float($0) } }
    }
  }

  /// What the engine pools of tokens, as it is.
  private static func pooled(
    _ rig: ServerRig, _ tokens: [Int32], _ pooling: Pooling
  ) throws -> [Float] {
    var request = SequenceRequest(tokens: tokens, limit: 0)
    request.pooling = pooling
    let sequence = try rig.engine.open(request, whenFull: .queue)
    while let event = sequence.next() {
      if case .finished(let finish) = event { return try #require(finish.embedding) }
    }
    return []
  }

  private static func length(_ vector: [Float]) -> Double {
    vector.reduce(0) { $0 + Double($1) * Double($1) }.squareRoot()
  }

  @Test(arguments: [nil, 1, 3, 2] as [UInt32?])
  func `Nothing said, vectors are pooled as the model's file says, else they are means`(
    number: UInt32?
  ) async throws {
    var file = TinyModel().gguf(seed: 3)
    if let number { file.metadata.append(("llama.pooling_type", .uint32(number))) }
    try await ServerRig.serving(model: file.bytes()) { rig in
      let input = "\"input\":\"an on the\""
      let vectors = try await ["", ",\"pooling\":\"mean\"", ",\"pooling\":\"last\""].asyncMap {
        Self.vectors(try await Self.ask(rig, input + $0))
      }
      #expect(vectors[1] != vectors[2])
      #expect(vectors[0] == vectors[number == 3 ? 2 : 1])
    }
  }

  @Test(arguments: [Pooling.last, .mean])
  func `Texts and tokens have the vectors that the engine pools`(pooling: Pooling) async throws {
    try await ServerRig.serving {
      $0.pooling = pooling
    } _: { rig in
      let tokenizer = try rig.model().tokenizer
      // More than there are places, and what looks like a control token is none.
      let texts = ["the", "an on the", "a<|endoftext|>b", "x", "ü y", "the the the"]
      let tokens = try texts.map { try tokenizer.encodePrompt(Array($0.utf8)) }
      let list = texts.map { "\"\($0)\"" }.joined(separator: ",")
      let response = try await Self.ask(rig, "\"input\":[\(list)],\"model\":\"tiny\"")
      let vectors = Self.vectors(response)
      #expect(response["object"]?.string == "list" && response["model"]?.string == "tiny")
      #expect(response["data"]?.array?.compactMap { $0["index"]?.integer } == [0, 1, 2, 3, 4, 5])
      let count = tokens.reduce(0) { $0 + $1.count }
      #expect(response["usage"]?["prompt_tokens"]?.integer == count)
      for (vector, tokens) in zip(vectors, tokens) {
        #expect(abs(Self.length(vector) - 1) < 1e-6 && vector.count == 64)
        let expected = try Self.pooled(rig, tokens, pooling)
        let length = Self.length(expected)
        #expect(vector == expected.map { Float(Double($0) * (1 / length)) })
      }
      // Each by itself, and as tokens, has the same bits.
      for (index, text) in texts.enumerated() {
        #expect(Self.vectors(try await Self.ask(rig, "\"input\":\"\(text)\"")) == [vectors[index]])
        let ids = "[\(tokens[index].map { "\($0)" }.joined(separator: ","))]"
        #expect(Self.vectors(try await Self.ask(rig, "\"input\":\(ids)")) == [vectors[index]])
      }
      let ids = tokens.map { "[\($0.map { "\($0)" }.joined(separator: ","))]" }
      #expect(
        Self.vectors(try await Self.ask(rig, "\"input\":[\(ids.joined(separator: ","))]"))
          == vectors)
      let other = pooling == .last ? "mean" : "last"
      let others = try await Self.ask(
        rig, "\"input\":\"an on the\",\"pooling\":\"\(other)\",\"dimensions\":64")
      #expect(Self.vectors(others) != [vectors[1]])
      try await rig.wait { $0.openCount == 0 }
    }
  }

  @Test func `Base64 has the numbers' bytes`() async throws {
    try await ServerRig.serving { rig in
      let numbers = Self.vectors(try await Self.ask(rig, #""input":"the an""#))[0]
      let response = try await Self.ask(rig, #""input":"the an","encoding_format":"base64""#)
      let text = try #require(response["data"]?.array?.first?["embedding"]?.string)
      let digits = Array("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/".utf8)
      var (bits, bitCount, bytes) = (UInt32(0), 0, [UInt8]())
      for character in text.utf8 where character != UInt8(ascii: "=") {
        bits = bits << 6 | UInt32(try #require(digits.firstIndex(of: character)))
        bitCount += 6
        guard bitCount >= 8 else { continue }
        bitCount -= 8
        bytes.append(UInt8(truncatingIfNeeded: bits >> UInt32(bitCount)))
      }
      #expect(text.utf8.count % 4 == 0 && bytes.count == 4 * numbers.count)
      for (index, number) in numbers.enumerated() {
        let word = (0..<4).reduce(UInt32(0)) {
          $0 | UInt32(bytes[4 * index + $1]) << UInt32(8 * $1)
        }
        #expect(word == number.bitPattern)
      }
    }
  }

  @Test func `What has no vector is told by its field`() async throws {
    try await ServerRig.serving(contextLength: 32) { rig in
      let whole = Array(repeating: "1", count: 32).joined(separator: ",")
      #expect(try await rig.post("/v1/embeddings", "{\"input\":[\(whole)]}").status == 200)
      let long = Array(repeating: "1", count: 33).joined(separator: ",")
      let many = Array(repeating: "[1]", count: 32769).joined(separator: ",")
      for (fields, status, field) in [
        ("", 400, "input"), (#""input":"""#, 400, "input"), (#""input":[]"#, 400, "input"),
        (#""input":5"#, 400, "input"), (#""input":["a",5]"#, 400, "input"),
        (#""input":[320]"#, 400, "input"), (#""input":[-1]"#, 400, "input"),
        ("\"input\":[\(long)]", 400, "input"), ("\"input\":[\(many)]", 400, "input"),
        (#""input":"a","model":"other""#, 404, "model"),
        (#""input":"a","encoding_format":"hex""#, 400, "encoding_format"),
        (#""input":"a","dimensions":8"#, 400, "dimensions"),
        (#""input":"a","pooling":"cls""#, 400, "pooling"),
        (#""input":"a","nonsense":1"#, 400, "nonsense"), (#""input":"a","user":1"#, 400, "user"),
      ] {
        let reply = try await rig.post("/v1/embeddings", "{\(fields)}")
        let error = try JSONValue.parsed(reply.text)["error"]
        #expect(reply.status == status, "\(fields.prefix(80)): \(reply.text)")
        #expect(error?["param"]?.string == field, "\(fields.prefix(80)): \(reply.text)")
      }
      #expect(try await rig.post("/v1/embeddings", #"{"input":"a","user":"me"}"#).status == 200)
    }
  }
}
