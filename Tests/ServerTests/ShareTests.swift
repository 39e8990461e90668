import Foundation
import ModelFormat
import Runtime
import Server
import Synchronization
import TestSupport
import Testing

/// More requests than there are places for: limits of time, priorities, and shares of clients.
@Suite struct ShareTests {
  /// Far more than is ever answered.
  private static let endless = #""max_tokens":60000,"ignore_eos":true"#

  private static func keys(_ text: String) throws -> APIKeys {
    let file = TemporaryFile(Array(text.utf8))
    chmod(file.path, 0o600)
    return try APIKeys(path: file.path)
  }

  private static let first = "the-first-of-the-keys"
  private static let second = "the-second-of-the-keys"

  private static func completion(_ fields: String, key: String) -> String {
    HTTPClient.request(
      "/v1/completions", "{\"prompt\":\"the\",\(fields)}", ["x-api-key: \(key)"])
  }

  /// Has somebody at every place, for as long as `work` takes.
  private static func occupying(
    _ rig: ServerRig, count: Int = 1, key: String = first, _ work: () async throws -> Void
  ) async throws {
    let request = completion("\"stream\":true,\(endless)", key: key)
    try await withThrowingTaskGroup(of: Void.self) { group in
      for _ in 0..<count {
        group.addTask {
          try await HTTPClient.leave(after: request, rig.port) { _ in Task.isCancelled }
        }
      }
      try await rig.wait { $0.openCount == count && $0.drawnCount > 0 }
      try await work()
      group.cancelAll()
    }
  }

  // MARK: - Limits of time

  @Test(arguments: ["/v1/completions", "/v1/chat/completions", "/v1/messages"], [false, true])
  func `What is there when the time is over is the answer`(
    path: String, streams: Bool
  ) async throws {
    try await ServerRig.serving(contextLength: 1 << 16) { rig in
      let prompt =
        path == "/v1/completions"
        ? "\"prompt\":\"the\"" : #""messages":[{"role":"user","content":"the"}]"#
      var (reply, seconds) = (HTTPReply(), 0.02)
      repeat {
        // Where a machine is slow the answer has not begun by then, and that is told.
        if reply.status == 408 { #expect(reply.text.contains("time limit")) }
        seconds *= 2
        reply = try await rig.post(
          path,
          "{\(prompt),\"seed\":5,\"timeout\":\(seconds),\"stream\":\(streams),\(Self.endless)}")
      } while reply.status == 408 || reply.text.contains("\"code\":\"time_limit\"")
      #expect(reply.status == 200)
      let objects = try (streams ? reply.events.filter { $0 != "[DONE]" } : [reply.text])
        .map(JSONValue.parsed)
      let ends = objects.flatMap { [$0, $0["delta"]] + ($0["choices"]?.array ?? []) }
        .compactMap { $0 }.filter { $0["time_limit_reached"]?.bool == true }
      #expect(ends.count == 1, "\(reply.text.suffix(2000))")
      let reason = ends.first.flatMap { $0["finish_reason"] ?? $0["stop_reason"] }
      #expect(["length", "max_tokens"].contains(reason?.string))
      let text = objects.map(Self.text).joined()
      let whole = try await rig.post(
        path, "{\(prompt),\"seed\":5,\"max_tokens\":\(text.count + 200),\"ignore_eos\":true}")
      let expected = Self.text(try JSONValue.parsed(whole.text))
      #expect(!text.isEmpty && expected.hasPrefix(text))
      try await rig.wait { $0.openCount == 0 }
    }
  }

  /// The text of an answer, or of an event of one.
  private static func text(_ json: JSONValue) -> String {
    let choice = json["choices"]?.array?.first
    let parts = [
      choice?["text"], choice?["message"]?["content"], choice?["delta"]?["content"],
      json["content"]?.array?.first?["text"], json["delta"]?["text"],
    ]
    return parts.compactMap { $0?.string }.joined()
  }

  @Test func `Waiting for a place counts, and an answer that has not begun is an error`()
    async throws
  {
    try await ServerRig.serving(sequenceCount: 1, contextLength: 1 << 16) { rig in
      try await Self.occupying(rig) {
        let reply = try await rig.post("/v1/completions", #"{"prompt":"a","timeout":0.1}"#)
        let error = try JSONValue.parsed(reply.text)["error"]
        #expect(reply.status == 408 && error?["code"]?.string == "time_limit", "\(reply)")
        let stream = try await rig.post(
          "/v1/completions", #"{"prompt":"a","timeout":0.1,"stream":true}"#)
        let event = try JSONValue.parsed(try #require(stream.events.first))
        #expect(event["error"]?["code"]?.string == "time_limit", "\(stream)")
        let message = try await rig.post(
          "/v1/messages",
          #"{"messages":[{"role":"user","content":"a"}],"max_tokens":5,"timeout":0.1}"#)
        let type = try JSONValue.parsed(message.text)["error"]?["type"]?.string
        #expect(message.status == 408 && type == "timeout_error")
        #expect(rig.engine.statistics().queuedCount == 0)
      }
    }
  }

  @Test func `A request lowers the server's limit and does not raise it`() async throws {
    try await ServerRig.serving(sequenceCount: 1, contextLength: 1 << 16) {
      $0.requestTimeLimit = .seconds(2)
    } _: { rig in
      let reply = try await rig.post("/v1/completions", "{\"prompt\":\"a\",\(Self.endless)}")
      #expect([200, 408].contains(reply.status))
      #expect(reply.status == 408 || reply.text.contains("\"time_limit_reached\":true"))
      for (value, isRight) in [("2", true), ("2.5", false), ("1e300", false), ("0", false)] {
        let reply = try await rig.post(
          "/v1/completions", "{\"prompt\":\"a\",\"max_tokens\":1,\"timeout\":\(value)}")
        #expect((reply.status == 400) == !isRight, "\(value): \(reply)")
        guard !isRight else { continue }
        #expect(try JSONValue.parsed(reply.text)["error"]?["param"]?.string == "timeout")
      }
    }
  }

  // MARK: - Priorities

  @Test func `Nobody comes sooner than the key says`() async throws {
    let keys = try Self.keys("\(Self.first)\n\(Self.second) name=batch priority=3\n")
    try await ServerRig.serving {
      $0.apiKeys = keys
    } _: { rig in
      for (key, priority, status) in [
        (Self.first, 0, 200), (Self.first, 9, 200), (Self.first, 10, 400), (Self.first, -1, 400),
        (Self.second, 2, 400), (Self.second, 3, 200), (Self.second, 9, 200),
      ] {
        let request = Self.completion("\"max_tokens\":1,\"priority\":\(priority)", key: key)
        let reply = try await HTTPClient.exchange(request, rig.port)
        #expect(reply.status == status, "\(key), \(priority): \(reply)")
        guard status == 400 else { continue }
        #expect(try JSONValue.parsed(reply.text)["error"]?["param"]?.string == "priority")
      }
    }
  }

  @Test func `What is said of a key is its name and its priority, or the line is refused`() throws {
    let keys = try Self.keys(
      """
      \(Self.first)
      \(Self.second)\tpriority=9 name=a-b_c.1
      a-third-of-the-keys name=batch
      """)
    let holders = [Self.first, Self.second, "a-third-of-the-keys"].map(keys.holder)
    #expect(holders.map { $0?.name } == ["key 1", "a-b_c.1", "batch"])
    #expect(holders.map { $0?.leastPriority } == [0, 9, 0])
    for words in [
      "name=", "name", "name=a b", "name=\u{e9}", "priority=10", "priority=-1", "priority=",
      "share=3", "name=\(String(repeating: "x", count: 65))",
    ] {
      let error = #expect(throws: FileError.self) {
        try Self.keys("\(Self.first)\n\(Self.second) \(words)")
      }
      #expect(error?.description.contains("line 2") == true)
      #expect(error?.description.contains(Self.second) == false)
    }
  }

  // MARK: - Shares of clients

  @Test func `A client that comes late has its turn before the many of another`() async throws {
    let keys = try Self.keys("\(Self.first) name=many\n\(Self.second) name=one\n")
    try await ServerRig.serving(sequenceCount: 1, contextLength: 1 << 16) {
      $0.apiKeys = keys
      $0.queueCount = 3
    } _: { rig in
      try await withThrowingTaskGroup(of: HTTPReply.self) { group in
        func ask(_ key: String) {
          group.addTask {
            try await HTTPClient.exchange(Self.completion("\"max_tokens\":3", key: key), rig.port)
          }
        }
        try await Self.occupying(rig) {
          // The others of the first client fill the queue.
          for _ in 0..<3 { ask(Self.first) }
          try await rig.wait { $0.queuedCount == 3 }
          ask(Self.second)
          // The newest of the many is sent away in its place.
          let refused = try #require(await group.next())
          #expect(refused.status == 429 && refused.text.contains("another client"))
          #expect(refused.headers["retry-after"].flatMap { Int($0) } ?? 0 >= 1)
          try await rig.wait { $0.queuedCount == 3 }
          let slots = try await HTTPClient.exchange(
            HTTPClient.head("GET /slots", ["x-api-key: \(Self.first)"]), rig.port)
          let clients = try JSONValue.parsed(slots.text)["clients"]?.array ?? []
          #expect(clients.compactMap { $0["client"]?.string } == ["many", "one"])
          let metrics = try await HTTPClient.exchange(
            HTTPClient.head("GET /metrics", ["x-api-key: \(Self.first)"]), rig.port)
          #expect(metrics.text.contains(#"flashinfer_client_rows{client="many"} "#))
          #expect(metrics.text.contains(#"flashinfer_client_sequences_open{client="one"} 0"#))
        }
        // The place is free: all that waited are answered.
        for try await reply in group { #expect(reply.status == 200) }
      }
    }
  }

  /// Answers as the bound of the queue sees them.
  private final class Waiting: Admission.Occupant {
    private let state: Mutex<(isQueued: Bool, retrySeconds: Int?)>
    init(isQueued: Bool = true) { state = Mutex((isQueued, nil)) }

    var isQueued: Bool { state.withLock(\.isQueued) }
    var retrySeconds: Int? { state.withLock(\.retrySeconds) }
    func giveWay(retrySeconds: Int) { state.withLock { $0.retrySeconds = retrySeconds } }
  }

  @Test func `Who has most makes room, with the newest that waits`() throws {
    let admission = Admission(placeCount: 2, queueCount: 4)
    let many =
      [Waiting(isQueued: false), Waiting(isQueued: false)] + (0..<4).map { _ in Waiting() }
    var shares = try many.map { try admission.enter(1, for: "many", $0) }
    // Nobody makes room for its own.
    #expect(throws: APIError.self) { try admission.enter(1, for: "many", Waiting()) }
    let others = (0..<3).map { _ in Waiting() }
    for (number, other) in others.enumerated() {
      shares.append(try admission.enter(1, for: "other", other))
      #expect(many.map { $0.retrySeconds != nil } == (0..<6).map { $0 >= 5 - number })
    }
    // Each has three: neither displaces the other.
    for client in ["many", "other"] {
      #expect(throws: APIError.self) { try admission.enter(1, for: client, Waiting()) }
    }
    let third = Waiting()
    shares.append(try admission.enter(1, for: "third", third))
    // Of two that have as many, whose newest is newest; and what is answered already stays.
    #expect(others.map { $0.retrySeconds != nil } == [false, false, true])
    // Two answers are not worth two of somebody who would have fewer.
    #expect(throws: APIError.self) { try admission.enter(2, for: "fourth", Waiting()) }
    // Those that were sent away gave their shares back once.
    shares.removeAll()
    let whole = try admission.enter(6, for: "many", Waiting())
    #expect(throws: APIError.self) { try admission.enter(7, for: "many", Waiting()) }
    withExtendedLifetime(whole) {}
  }

  @Test func `When to come again follows from how long answers take`() throws {
    let admission = Admission(placeCount: 2, queueCount: 0)
    let shares = try (0..<2).map { _ in
      try admission.enter(1, for: "a", Waiting(isQueued: false))
    }
    func retrySeconds(_ count: Int = 1) -> Int? {
      do { _ = try admission.enter(count, for: "a", Waiting()) } catch {
        return (error as? APIError)?.retrySeconds
      }
      return nil
    }
    admission.note(seconds: 40)
    // Who is sent away after another comes after it, at most when all that are there will have been answered.
    #expect(retrySeconds() == 20 && retrySeconds() == 40 && retrySeconds() == 40)
    for _ in 0..<100 { admission.note(seconds: 9000) }
    #expect(retrySeconds() == 600)
    withExtendedLifetime(shares) {}
  }

  @Test func `Those who are sent away are told to come one after the other`() throws {
    let admission = Admission(placeCount: 2, queueCount: 6)
    let shares = try (0..<8).map { _ in
      try admission.enter(1, for: "a", Waiting(isQueued: false))
    }
    admission.note(seconds: 100)
    let told = (0..<12).map { _ in
      do { _ = try admission.enter(1, for: "b", Waiting()) } catch {
        return (error as? APIError)?.retrySeconds
      }
      return nil
    }
    // A second may pass between two of them.
    for (number, seconds) in told.enumerated() {
      let expected = 50 * min(number + 1, 8)
      #expect((expected - 5...expected).contains(seconds ?? 0), "\(told)")
    }
    withExtendedLifetime(shares) {}
  }
}
