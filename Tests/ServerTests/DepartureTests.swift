import NIOCore
import Runtime
import Server
import Testing
import Tokenization

/// Clients that leave, and more of them than there is room for.
@Suite struct DepartureTests {
  /// Far more than is ever answered.
  private static let endless = #""max_tokens":60000,"ignore_eos":true"#

  @Test(arguments: [false, true])
  func `A client that leaves takes its answers with it`(streams: Bool) async throws {
    try await ServerRig.serving(contextLength: 1 << 16) { rig in
      let request = HTTPClient.request(
        "/v1/completions", "{\"prompt\":\"the\",\"n\":5,\"stream\":\(streams),\(Self.endless)}")
      let client = Task {
        try await HTTPClient.leave(after: request, rig.port) { $0.contains("data: ") }
      }
      try await rig.wait { $0.openCount == 3 && $0.queuedCount == 2 && $0.drawnCount > 0 }
      // Of an answer that is not streamed there is nothing to wait for.
      if !streams { client.cancel() }
      _ = await client.result
      try await rig.wait { $0.openCount == 0 && $0.queuedCount == 0 }
      let reply = try await rig.post("/v1/completions", #"{"prompt":"a"}"#)
      #expect(reply.status == 200)
    }
  }

  /// Waits until no sequence is open any more, which ends the engine where it takes too long.
  private static func expectDeparture(of rig: ServerRig) async throws {
    let end = ContinuousClock.now + .seconds(90)
    while rig.engine.statistics().openCount > 0, ContinuousClock.now < end {
      try await Task.sleep(for: .milliseconds(20))
    }
    let isNoticed = rig.engine.statistics().openCount == 0
    if !isNoticed { rig.engine.stop(.now) }
    #expect(isNoticed)
  }

  @Test func `A client that reads nothing is not waited for`() async throws {
    try await ServerRig.serving(contextLength: 1 << 19) {
      // Long enough for a machine under load to send a request in.
      $0.idleSeconds = 5
    } _: { rig in
      let request = HTTPClient.request(
        "/v1/completions",
        #"{"prompt":"the","stream":true,"max_tokens":500000,"ignore_eos":true,"logprobs":5,"seed":1}"#
      )
      try await HTTPClient.connected(rig.port, receiveByteCount: 4096) { _, outbound in
        try await outbound.write(ByteBuffer(string: request))
        try await rig.wait { $0.openCount == 1 && $0.drawnCount > 0 }
        try await Self.expectDeparture(of: rig)
      }
      #expect(rig.engine.statistics().drawnCount < 500_000)
    }
  }

  @Test func `A client that reads nothing is not waited for where the answer has no more text`()
    async throws
  {
    try await ServerRig.serving(contextLength: 1 << 19) {
      $0.idleSeconds = 5
    } _: { rig in
      // Nothing but a control token is drawn, which has no text: there is nothing to send but pings.
      let token = try #require(rig.engine.tokenizer.endTokens.first)
      let request = HTTPClient.request(
        "/v1/completions",
        """
        {"prompt":"the","stream":true,"max_tokens":500000,"ignore_eos":true,"temperature":0,"logit_bias":{"\(token)":100}}
        """)
      // More than the system keeps for the client, and less than it keeps for the server.
      let document = "GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n"
      try await HTTPClient.connected(rig.port, receiveByteCount: 4096) { _, outbound in
        try await outbound.write(ByteBuffer(string: document + request))
        try await rig.wait { $0.drawnCount > 0 }
        try await Self.expectDeparture(of: rig)
      }
      #expect(rig.engine.statistics().drawnCount < 500_000)
    }
  }

  @Test func `A client that leaves before its request is whole leaves nothing behind`() async throws
  {
    try await ServerRig.serving { rig in
      let request = HTTPClient.request("/v1/completions", #"{"prompt":"the"}"#)
      for count in [10, request.utf8.count - 5, request.utf8.count] {
        let part = String(request.prefix(count))
        try await HTTPClient.leave(after: part, rig.port) { _ in true }
        try await rig.wait { $0.openCount == 0 }
        #expect(try await rig.get("/health").status == 200)
      }
    }
  }

  @Test func `Requests beyond the queue are told when to come again`() async throws {
    try await ServerRig.serving(sequenceCount: 1, contextLength: 1 << 16) {
      $0.queueCount = 1
    } _: { rig in
      let request = HTTPClient.request(
        "/v1/completions", "{\"prompt\":\"the\",\"stream\":true,\(Self.endless)}")
      try await withThrowingTaskGroup(of: Void.self) { group in
        for _ in 0..<2 {
          group.addTask {
            try await HTTPClient.leave(after: request, rig.port) { _ in Task.isCancelled }
          }
        }
        try await rig.wait { $0.openCount == 1 && $0.queuedCount == 1 && $0.drawnCount > 0 }
        try await rig.wait(forStates: ["answering", "queued"])
        let refused = try await rig.post("/v1/completions", #"{"prompt":"a"}"#)
        #expect(refused.status == 429)
        let seconds = refused.headers["retry-after"].flatMap { Int($0) } ?? 0
        #expect(seconds >= 1)
        let impossible = try await rig.post("/v1/completions", #"{"prompt":"a","n":3}"#)
        #expect(impossible.status == 400)
        group.cancelAll()
      }
      try await rig.wait { $0.openCount == 0 && $0.queuedCount == 0 }
      // The server hears of it a moment after the engine.
      var reply = HTTPReply(status: 429)
      while reply.status == 429 {
        reply = try await rig.post("/v1/completions", #"{"prompt":"a"}"#)
      }
      #expect(reply.status == 200)
    }
  }
}
