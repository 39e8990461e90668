import HTTPTypes
import ModelFormat
import NIOCore
import NIOHTTP1
import NIOHTTPTypes
import NIOHTTPTypesHTTP1
import NIOPosix
import TensorBasics

/// Where a server listens.
public struct ServerAddress: Sendable, Equatable {
  public let host: String
  public let port: Int

  /// `http://HOST[:PORT]`, nothing after it but a slash or the `/v1` of clients' base URLs; nil if it is none.
  public init?(_ url: String) {
    guard url.hasPrefix("http://") else { return nil }
    var rest = url.dropFirst(7)
    if rest.hasSuffix("/") { rest.removeLast() }
    if rest.hasSuffix("/v1") { rest.removeLast(3) }
    let closing = rest.hasPrefix("[") ? rest.firstIndex(of: "]") : nil
    let colon = rest[(closing ?? rest.startIndex)...].firstIndex(of: ":")
    let name = rest[..<(colon ?? rest.endIndex)]
    guard !name.isEmpty, !name.contains("/"), !name.contains("@") else { return nil }
    host = closing == nil ? String(name) : String(name.dropFirst().dropLast())
    guard let colon else {
      port = 80
      return
    }
    guard let number = UInt16(rest[rest.index(after: colon)...]), number > 0 else { return nil }
    port = Int(number)
  }

  /// As it stands in a request.
  var authority: String { (host.contains(":") ? "[\(host)]" : host) + ":\(port)" }
}

/// Posts requests, each on a connection of its own.
public struct LoadClient: Sendable {
  public let address: ServerAddress
  /// Shown with each request; nil = none.
  public let key: String?
  /// After which a request is given up.
  public let timeoutSeconds: Int

  public init(_ address: ServerAddress, key: String? = nil, timeoutSeconds: Int = 600) {
    self.address = address
    self.key = key
    self.timeoutSeconds = timeoutSeconds
  }

  /// Why the server could not be asked.
  public struct Failure: Error, CustomStringConvertible {
    public let description: String
  }

  /// The name of the server's first model.
  public func modelName() async throws -> String {
    var body: [UInt8] = []
    var status = 0
    do {
      status = try await exchange(.get, "/v1/models", nil) { body += $1.readableBytesView }
    } catch {
      throw Failure(description: "\(address.authority): \(error)")
    }
    let answer = body.withUnsafeBytes { try? JSONParser.parse($0, path: "models") }
    guard status == 200, let name = answer?["data"]?.array?.first?["id"]?.string else {
      throw Failure(
        description: "\(address.authority) names no model at /v1/models (status \(status))")
    }
    return name
  }

  /// Posts a request, and waits for the end of its answer.
  ///
  /// - Parameter start: when it was to begin, in nanoseconds of the monotonic clock.
  public func send(_ request: LoadRequest, start: Int) async -> RequestOutcome {
    var reader = EventReader()
    var refusal: [UInt8] = []
    var failure: String?
    do {
      let status = try await exchange(.post, request.path, request.body) { status, bytes in
        if status == 200 {
          reader.take(bytes.readableBytesView, at: monotonicNanoseconds())
        } else {
          refusal += bytes.readableBytesView.prefix(Self.mostRefusalBytes - refusal.count)
        }
      }
      if status != 200 {
        failure = "status \(status)"
      } else if reader.hasFailed || !reader.isEnded {
        failure = "broken stream"
      }
    } catch {
      failure = "connection"
      refusal = Array("\(error)".utf8)
    }
    var outcome = RequestOutcome(start: start, end: monotonicNanoseconds())
    if failure != nil, outcome.end - start >= timeoutSeconds * 1_000_000_000 {
      failure = "timeout"
    }
    outcome.pieces = reader.pieces
    outcome.promptTokenCount = reader.promptTokenCount
    outcome.cachedTokenCount = reader.cachedTokenCount
    outcome.answerTokenCount = reader.answerTokenCount ?? reader.pieces.count
    outcome.failure = failure
    outcome.message = reader.message ?? Self.message(refusal)
    return outcome
  }

  private static let mostRefusalBytes = 1 << 16

  /// What a body that tells of an error says to people; nil where it says nothing.
  private static func message(_ body: [UInt8]) -> String? {
    let json = body.withUnsafeBytes { try? JSONParser.parse($0, path: "error") }
    let text = json?["error"]?["message"]?.string ?? String(decoding: body, as: UTF8.self)
    return text.isEmpty ? nil : String(text.prefix(500))
  }

  private typealias Connection = NIOAsyncChannel<HTTPResponsePart, HTTPRequestPart>

  /// Sends a request, and gives `take` the answer's status and the parts of its body as they come.
  ///
  /// - Returns: the status; 0 if there was none.
  private func exchange(
    _ method: HTTPRequest.Method, _ path: String, _ body: [UInt8]?,
    _ take: (_ status: Int, _ part: ByteBuffer) -> Void
  ) async throws -> Int {
    let connection: Connection = try await ClientBootstrap(
      group: MultiThreadedEventLoopGroup.singleton
    ).connectTimeout(.seconds(Int64(min(timeoutSeconds, 30))))
      .channelOption(.socketOption(.tcp_nodelay), value: 1)
      .connect(host: address.host, port: address.port) { channel in
        channel.eventLoop.makeCompletedFuture {
          try channel.pipeline.syncOperations.addHTTPClientHandlers()
          try channel.pipeline.syncOperations.addHandler(
            HTTP1ToHTTPClientCodec())
          return try NIOAsyncChannel(wrappingChannelSynchronously: channel)
        }
      }
    // What waits for the answer sees its end then.
    let timer = connection.channel.eventLoop.scheduleTask(in: .seconds(Int64(timeoutSeconds))) {
      connection.channel.close(promise: nil)
    }
    defer { timer.cancel() }
    var request = HTTPRequest(
      method: method, scheme: "http", authority: address.authority, path: path)
    request.headerFields[.connection] = "close"
    if let key { request.headerFields[.authorization] = "Bearer \(key)" }
    if let body {
      request.headerFields[.contentType] = "application/json"
      request.headerFields[.contentLength] = "\(body.count)"
    }
    let head = request
    var status = 0
    var isWhole = false
    do {
      try await connection.executeThenClose { inbound, outbound in
        try await outbound.write(.head(head))
        if let body { try await outbound.write(.body(ByteBuffer(bytes: body))) }
        try await outbound.write(.end(nil))
        for try await part in inbound {
          switch part {
          case .head(let head): status = Int(head.status.code)
          case .body(let bytes): take(status, bytes)
          case .end:
            isWhole = true
            return
          }
        }
      }
    } catch {
      // Closing what the server has closed is an error too.
      guard isWhole else { throw error }
    }
    guard isWhole else { throw ChannelError.eof }
    return status
  }
}
