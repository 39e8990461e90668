import NIOCore
import NIOPosix

/// What a server sent on a connection, up to its end.
struct HTTPReply: Sendable {
  var status = 0
  var headers: [String: String] = [:]
  var body: [UInt8] = []

  var text: String { String(decoding: body, as: UTF8.self) }
  /// The data of its events, if it is a stream of them.
  var events: [String] {
    text.split(separator: "\n").filter { $0.hasPrefix("data: ") }.map { String($0.dropFirst(6)) }
  }
}

/// A client that sends bytes as they are.
enum HTTPClient {
  typealias Connection = NIOAsyncChannel<ByteBuffer, ByteBuffer>

  /// Does `work` on a connection, which the server may close before the client does.
  ///
  /// - Parameters:
  ///   - socketPath: where the server listens if on no port.
  ///   - receiveByteCount: what the system keeps for a client that does not read; nil = as usual, megabytes.
  static func connected<Result>(
    _ port: Int, socketPath: String? = nil, receiveByteCount: Int? = nil,
    _ work: (
      NIOAsyncChannelInboundStream<ByteBuffer>, NIOAsyncChannelOutboundWriter<ByteBuffer>
    ) async throws -> Result
  ) async throws -> Result {
    var bootstrap = ClientBootstrap(group: MultiThreadedEventLoopGroup.singleton)
    if let receiveByteCount {
      bootstrap = bootstrap.channelOption(.socketOption(.so_rcvbuf), value: .init(receiveByteCount))
    }
    let address =
      try socketPath.map { try SocketAddress(unixDomainSocketPath: $0) }
      ?? SocketAddress(ipAddress: "127.0.0.1", port: port)
    let connection: Connection = try await bootstrap.connect(to: address) { channel in
      channel.eventLoop.makeCompletedFuture {
        try NIOAsyncChannel(wrappingChannelSynchronously: channel)
      }
    }
    var result: Result?
    do {
      try await connection.executeThenClose { result = try await work($0, $1) }
    } catch {
      // Closing what is closed is an error too.
      guard result != nil, error is ChannelError else { throw error }
    }
    guard let result else { throw ChannelError.eof }
    return result
  }

  static func get(_ path: String, _ port: Int) async throws -> HTTPReply {
    try await exchange(head("GET \(path)"), port)
  }

  /// A request without a body.
  static func head(_ start: String, host: String = "localhost", _ fields: [String] = []) -> String {
    let lines = ["\(start) HTTP/1.1", "Host: \(host)", "Connection: close"] + fields
    return lines.joined(separator: "\r\n") + "\r\n\r\n"
  }

  static func post(_ path: String, _ body: String, _ port: Int) async throws -> HTTPReply {
    try await exchange(request(path, body), port)
  }

  static func request(_ path: String, _ body: String, _ fields: [String] = []) -> String {
    head("POST \(path)", fields + ["Content-Length: \(body.utf8.count)"]) + body
  }

  /// Sends `text`, and waits for the end of what comes.
  ///
  /// - Parameter onAnswer: done when the first token of a streamed answer has come.
  static func exchange(
    _ text: String, _ port: Int, socketPath: String? = nil,
    onAnswer: () async throws -> Void = {}
  ) async throws -> HTTPReply {
    try await connected(port, socketPath: socketPath) { inbound, outbound in
      try await outbound.write(ByteBuffer(string: text))
      var (bytes, hasAnswer) = ([UInt8](), false)
      for try await part in inbound {
        bytes += part.readableBytesView
        guard !hasAnswer, String(decoding: bytes, as: UTF8.self).contains("data: ") else {
          continue
        }
        hasAnswer = true
        try await onAnswer()
      }
      return reply(bytes)
    }
  }

  /// Sends `text` and leaves as soon as `isEnough` of what came, which is returned.
  @discardableResult static func leave(
    after text: String, _ port: Int, when isEnough: (String) -> Bool
  ) async throws -> HTTPReply {
    try await connected(port) { inbound, outbound in
      try await outbound.write(ByteBuffer(string: text))
      var bytes: [UInt8] = []
      guard !isEnough("") else { return reply(bytes) }
      for try await part in inbound {
        bytes += part.readableBytesView
        if isEnough(String(decoding: bytes, as: UTF8.self)) { break }
      }
      return reply(bytes)
    }
  }

  /// Sends `text`, then a byte now and then for as long as the server takes them; what came until it closed.
  static func dripping(_ text: String, _ port: Int) async throws -> HTTPReply {
    try await connected(port) { inbound, outbound in
      let sender = Task {
        try await outbound.write(ByteBuffer(string: text))
        while !Task.isCancelled {
          try await Task.sleep(for: .milliseconds(50))
          try await outbound.write(ByteBuffer(string: "x"))
        }
      }
      defer { sender.cancel() }
      var bytes: [UInt8] = []
      // Where both sides write at the end of a connection, it may end with an error.
      do { for try await part in inbound { bytes += part.readableBytesView } } catch {}
      return reply(bytes)
    }
  }

  private static func reply(_ bytes: [UInt8]) -> HTTPReply {
    var reply = HTTPReply()
    let text = String(decoding: bytes, as: UTF8.self)
    guard let end = text.firstRange(of: "\r\n\r\n") else { return reply }
    let lines = text[..<end.lowerBound].split(separator: "\r\n")
    reply.status = lines.first.flatMap { Int($0.dropFirst(9).prefix(3)) } ?? 0
    for line in lines.dropFirst() {
      let parts = line.split(separator: ":", maxSplits: 1)
      guard parts.count == 2 else { continue }
      reply.headers[parts[0].lowercased()] = String(parts[1].drop { $0 == " " })
    }
    let start = text.utf8.distance(from: text.startIndex, to: end.upperBound)
    reply.body = Array(bytes[start...])
    if reply.headers["transfer-encoding"] == "chunked" { reply.body = joined(reply.body[...]) }
    return reply
  }

  /// A body without what separates its chunks.
  private static func joined(_ chunked: ArraySlice<UInt8>) -> [UInt8] {
    var (rest, body) = (chunked, [UInt8]())
    while let lineEnd = rest.firstIndex(of: 0x0D),
      let count = Int(String(decoding: rest[..<lineEnd], as: UTF8.self), radix: 16), count > 0,
      lineEnd + 2 + count <= rest.endIndex
    {
      body += rest[(lineEnd + 2)..<(lineEnd + 2 + count)]
      rest = rest[min(rest.endIndex, lineEnd + 4 + count)...]
    }
    return body
  }
}
