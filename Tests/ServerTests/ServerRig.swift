import Foundation
import Logging
import ModelFormat
import Runtime
import Server
import TestSupport
import Testing
import Tokenization

/// A tiny model behind a server in this process, and what it answers where nobody else asks.
struct ServerRig: Sendable {
  let port: Int
  let engine: Engine
  let server: HTTPServer
  private let file: TemporaryFile

  static let template =
    "{% if tools %}<tools>{{ tools | tojson }}\n{% endif %}"
    + "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}<assistant>"

  /// Serves while `work` is done.
  static func serving(
    model bytes: [UInt8] = modelBytes, sequenceCount: Int = 3, contextLength: Int = 256,
    store: Engine.Store? = nil,
    _ change: (inout ServerOptions) -> Void = { _ in },
    _ work: (ServerRig) async throws -> Void
  ) async throws {
    let file = TemporaryFile(bytes)
    let model = try LanguageModel.open(file.path)
    let engine = try Engine(model, request(sequenceCount, contextLength), store: store)
    var options = ServerOptions(modelName: "tiny")
    options.port = 0
    // Limits of time that no machine's load reaches; those that test them set their own.
    (options.requestSeconds, options.idleSeconds) = (3600, 3600)
    change(&options)
    var logger = Logger(label: "test")
    logger.logLevel = .critical
    let server = HTTPServer(engine, model, options, logger: logger)
    let (ports, source) = AsyncStream<Int>.makeStream()
    let running = Task {
      defer { source.finish() }
      try await server.run(handlesSignals: false) { source.yield($0) }
    }
    var iterator = ports.makeAsyncIterator()
    guard let port = await iterator.next() else { return try await running.value }
    do {
      try await work(ServerRig(port: port, engine: engine, server: server, file: file))
    } catch {
      running.cancel()
      throw error
    }
    running.cancel()
    _ = await running.result
    engine.stop()
  }

  static var modelBytes: [UInt8] {
    var file = TinyModel().gguf(seed: 3)
    file.metadata.append(("tokenizer.chat_template", .string(template)))
    return file.bytes()
  }

  private static func request(
    _ sequenceCount: Int, _ contextLength: Int
  ) -> MemoryPlan.Request {
    var request = MemoryPlan.Request(
      budgetByteCount: 8 << 30, contextLength: contextLength, promptLength: contextLength,
      threadCount: 2)
    request.assumedProcessByteCount = 0
    request.sequenceCount = sequenceCount
    request.usesGrammars = true
    return request
  }

  struct Answer: Equatable, Sendable {
    var text = ""
    var reason = ""
  }

  /// What an engine of its own answers to one request after the other.
  func alone(_ requests: [SequenceRequest], contextLength: Int = 256) throws -> [Answer] {
    // A model of its own: each engine's device is its own.
    let engine = try Engine(
      try LanguageModel.open(file.path), Self.request(1, contextLength))
    defer { engine.stop() }
    return try requests.map { request in
      let sequence = try engine.open(request, whenFull: .queue)
      var (text, bytes) = (AnswerText(engine.tokenizer, stops: request.stops), [UInt8]())
      var answer = Answer()
      while let event = sequence.next() {
        text.append(event, to: &bytes)
        if case .finished(let finish) = event {
          answer.reason = finish.reason == .stop ? "stop" : "length"
        }
      }
      answer.text = String(decoding: bytes, as: UTF8.self)
      return answer
    }
  }

  /// Writes to the model's file behind the engine's back, which ends an engine that notices.
  func damageModel() throws { try Self.damage(file) }

  static func damage(_ file: TemporaryFile) throws {
    let handle = try #require(FileHandle(forWritingAtPath: file.path))
    try handle.seekToEnd()
    try handle.write(contentsOf: [0])
    try handle.close()
  }

  func model() throws -> LanguageModel { try LanguageModel.open(file.path) }

  func post(_ path: String, _ body: String) async throws -> HTTPReply {
    try await HTTPClient.post(path, body, port)
  }

  func delete(_ path: String) async throws -> HTTPReply {
    try await HTTPClient.exchange(HTTPClient.head("DELETE \(path)"), port)
  }

  func get(_ path: String) async throws -> HTTPReply { try await HTTPClient.get(path, port) }

  /// Waits until the engine's state is as it should be; a test that waits in vain ends with the job's time.
  func wait(until isRight: (EngineStatistics) -> Bool) async throws {
    while !isRight(engine.statistics()) { try await Task.sleep(for: .milliseconds(5)) }
  }

  /// Waits until the server tells that answers are in these states; it hears of each a moment after the engine.
  func wait(forStates states: [String]) async throws {
    while true {
      let slots = try JSONValue.parsed(try await get("/slots").text)
      let found = slots["answers"]?.array?.compactMap { $0["state"]?.string }
      if found?.sorted() == states { return }
      try await Task.sleep(for: .milliseconds(5))
    }
  }
}

extension JSONValue {
  static func parsed(_ text: String) throws -> JSONValue {
    try Array(text.utf8).withUnsafeBytes { try JSONParser.parse($0, path: "reply") }
  }
}

extension Array {
  /// Maps one element after the other.
  func asyncMap<Result>(
    _ change: (Element) async throws -> Result
  ) async throws -> [Result] {
    var results: [Result] = []
    for element in self { results.append(try await change(element)) }
    return results
  }
}
