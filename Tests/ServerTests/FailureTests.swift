import Foundation
import ModelFormat
import Runtime
import Server
import TestSupport
import Testing

/// An engine that fails while its server answers: the model's file is written to, which it notices after a sweep.
@Suite struct FailureTests {
  /// Far more than is ever answered.
  private static let endless = #""prompt":"the","max_tokens":60000,"ignore_eos":true"#

  @Test func `Answers under way and waiting end with the reason, and new ones are refused with it`()
    async throws
  {
    try await ServerRig.serving(sequenceCount: 1, contextLength: 1 << 16) {
      $0.failureSeconds = 3600
    } _: { rig in
      #expect(try await rig.get("/health").status == 200)
      let stream = HTTPClient.request("/v1/completions", "{\"stream\":true,\(Self.endless)}")
      let chat = HTTPClient.request(
        "/v1/messages",
        #"{"messages":[{"role":"user","content":"a"}],"max_tokens":9,"stream":true}"#)
      try await withThrowingTaskGroup(of: (kind: String, HTTPReply).self) { group in
        group.addTask { ("stream", try await HTTPClient.exchange(stream, rig.port)) }
        try await rig.wait { $0.drawnCount > 0 }
        group.addTask { ("chat", try await HTTPClient.exchange(chat, rig.port)) }
        group.addTask {
          ("whole", try await rig.post("/v1/completions", "{\(Self.endless)}"))
        }
        try await rig.wait { $0.queuedCount == 2 }
        try rig.damageModel()
        for try await (kind, reply) in group {
          switch kind {
          case "whole":
            #expect(reply.status == 503)
            try Self.expectReason(reply.text)
          default:
            let event = try #require(reply.events.last { $0.contains("error") }, "\(reply)")
            try Self.expectReason(event)
            if kind == "stream" { #expect(reply.events.count > 2) }
          }
        }
      }
      let health = try await rig.get("/health")
      #expect(health.status == 503 && health.headers["retry-after"] == "3600")
      try Self.expectReason(health.text)
      for path in ["/v1/completions", "/v1/chat/completions", "/v1/messages"] {
        let reply = try await rig.post(
          path,
          path == "/v1/completions"
            ? #"{"prompt":"a"}"#
            : #"{"messages":[{"role":"user","content":"a"}],"max_tokens":3}"#)
        #expect(reply.status == 503)
        try Self.expectReason(reply.text)
      }
      // What needs no engine is answered as before, and the state says what is wrong.
      #expect(try await rig.post("/tokenize", #"{"content":"a"}"#).status == 200)
      let state = try JSONValue.parsed(try await rig.get("/state").text)
      #expect(state["failure"]?.string != nil)
      let slots = try JSONValue.parsed(try await rig.get("/slots").text)
      #expect(slots["answers"]?.array?.isEmpty == true)
    }
  }

  private static func expectReason(_ text: String) throws {
    let message = try JSONValue.parsed(text)["error"]?["message"]?.string ?? ""
    #expect(message.contains("the engine has failed") && message.contains("changed"), "\(text)")
  }

  @Test(.enabled(if: ServerProgram.isBuilt, "flashinfer-serve is not built beside the tests"))
  func `The process of an engine that has failed ends with 1`() async throws {
    let program = try ServerProgram(["--no-kv-store"])
    #expect(try await HTTPClient.get("/health", program.port).status == 200)
    try ServerRig.damage(program.file)
    let reply = try await HTTPClient.post("/v1/completions", #"{"prompt":"a"}"#, program.port)
    #expect(reply.status == 503, "\(reply)")
    try Self.expectReason(reply.text)
    program.process.waitUntilExit()
    #expect(program.process.terminationStatus == 1)
  }
}
