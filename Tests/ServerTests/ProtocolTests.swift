import ModelFormat
import NIOCore
import Server
import Testing

/// HTTP itself: versions, methods, hosts, and what comes of requests that end in the middle.
@Suite struct ProtocolTests {
  private static let body = #"{"prompt":"the","max_tokens":8,"seed":3,"stream":true}"#

  private static func completion(_ version: String, _ fields: String...) -> String {
    (["POST /v1/completions HTTP/\(version)"] + fields + ["Content-Length: \(body.utf8.count)"])
      .joined(separator: "\r\n") + "\r\n\r\n" + body
  }

  @Test func `A client of HTTP 1.0 is answered without chunks, and its connection ends`()
    async throws
  {
    try await ServerRig.serving { rig in
      let usual = try await rig.post("/v1/completions", Self.body)
      #expect(usual.headers["transfer-encoding"] == "chunked")
      for fields in [[], ["Host: localhost"], ["Connection: keep-alive"]] {
        var lines = Self.completion("1.0").split(
          separator: "\r\n", omittingEmptySubsequences: false)
        lines.insert(contentsOf: fields.map { $0[...] }, at: 1)
        let text = lines.joined(separator: "\r\n")
        // Where the connection did not end, this would not either.
        let reply = try await HTTPClient.exchange(text, rig.port)
        #expect(reply.status == 200 && reply.headers["transfer-encoding"] == nil, "\(reply)")
        let texts = try [reply, usual].map { reply in
          try reply.events.dropLast().map {
            try JSONValue.parsed($0)["choices"]?.array?.first?["text"]?.string ?? ""
          }.joined()
        }
        #expect(texts[0] == texts[1] && reply.events.last == "[DONE]")
      }
      let known = try await HTTPClient.exchange("GET /health HTTP/1.0\r\n\r\n", rig.port)
      #expect(known.headers["content-length"] == "\(known.body.count)", "\(known)")
    }
  }

  @Test func `Versions of requests that are sent at once are each answered in their own`()
    async throws
  {
    try await ServerRig.serving { rig in
      let text = Self.completion("1.1", "Host: localhost") + Self.completion("1.0")
      let reply = try await HTTPClient.exchange(text, rig.port)
      #expect(reply.headers["transfer-encoding"] == "chunked")
      // What follows the last chunk of the first.
      let whole = try await HTTPClient.connected(rig.port) { inbound, outbound in
        try await outbound.write(ByteBuffer(string: text))
        var bytes: [UInt8] = []
        for try await part in inbound { bytes += part.readableBytesView }
        return String(decoding: bytes, as: UTF8.self)
      }
      let parts = whole.split(separator: "\r\n0\r\n\r\n")
      #expect(parts.count == 2 && parts[1].hasPrefix("HTTP/1.0 200"), "\(whole)")
      #expect(
        parts[1].hasSuffix("data: [DONE]\n\n") && !parts[1].contains("chunked"), "\(parts[1])")
    }
  }

  @Test func `Who asks before sending a body is told to send it, in its turn`() async throws {
    try await ServerRig.serving { rig in
      let body = #"{"content":"the"}"#
      let fields = "\r\nHost: localhost\r\nContent-Length: \(body.utf8.count)\r\n"
      let whole = try await HTTPClient.connected(rig.port) { inbound, outbound in
        // The second asks while the first is answered.
        try await outbound.write(
          ByteBuffer(
            string: Self.completion("1.1", "Host: localhost")
              + "POST /tokenize HTTP/1.1\(fields)Expect: 100-Continue\r\nConnection: close\r\n\r\n")
        )
        var (text, isSent) = ("", false)
        for try await part in inbound {
          text += String(buffer: part)
          guard !isSent, text.contains("HTTP/1.1 100 ") else { continue }
          isSent = true
          try await outbound.write(ByteBuffer(string: body))
        }
        return text
      }
      let parts = whole.split(separator: "\r\n0\r\n\r\n")
      #expect(parts.count == 2 && parts[1].hasPrefix("HTTP/1.1 100 "), "\(whole)")
      #expect(parts[1].contains("\r\n\r\nHTTP/1.1 200 ") && parts[1].contains(#""tokens""#))
      // That is not of HTTP/1.0.
      let old = try await HTTPClient.exchange(
        "POST /tokenize HTTP/1.0\(fields)Expect: 100-continue\r\n\r\n\(body)", rig.port)
      #expect(old.status == 200, "\(old)")
    }
  }

  @Test(arguments: ["gzip", "Br", "identity"])
  func `A body that is compressed is refused by name`(coding: String) async throws {
    try await ServerRig.serving { rig in
      let reply = try await HTTPClient.exchange(
        HTTPClient.request(
          "/tokenize", #"{"content":"the"}"#, ["Content-Encoding: \(coding)"]), rig.port)
      #expect(reply.status == (coding == "identity" ? 200 : 415), "\(reply)")
      #expect((reply.text.contains("'\(coding)'")) == (coding != "identity"))
    }
  }

  @Test func `A request names its host, and no other`() async throws {
    try await ServerRig.serving {
      $0.allowedHosts = ["gpu.example"]
    } _: { rig in
      for (lines, status) in [
        ("HTTP/1.1", 400), ("HTTP/1.1\r\nHost: localhost\r\nHost: localhost", 400),
        ("HTTP/1.1\r\nHost: localhost\r\nhOsT: evil.example", 400),
        ("HTTP/1.0\r\nHost: localhost\r\nHost: gpu.example", 400), ("HTTP/1.1\r\nHost:", 403),
        ("HTTP/1.1\r\nHost: gpu.example", 200), ("HTTP/1.0", 200),
        ("HTTP/1.0\r\nHost: evil.example", 403),
      ] {
        let reply = try await HTTPClient.exchange(
          "GET /health \(lines)\r\nConnection: close\r\n\r\n", rig.port)
        #expect(reply.status == status, "\(lines): \(reply)")
        guard status == 400 else { continue }
        #expect(try JSONValue.parsed(reply.text)["error"]?["code"]?.string == "invalid_host")
      }
    }
  }

  @Test func `A method that a path does not take is told which it takes`() async throws {
    try await ServerRig.serving { rig in
      for (line, allowed) in [
        ("GET /v1/chat/completions", "POST"), ("DELETE /v1/completions", "POST"),
        ("PUT /v1/messages", "POST"), ("POST /health", "HEAD, GET"),
        ("OPTIONS /slots", "HEAD, GET"),
        ("PURGE /v1/models/tiny", "HEAD, GET"), ("PATCH /", "HEAD, GET"),
      ] {
        let reply = try await HTTPClient.exchange(HTTPClient.head(line), rig.port)
        #expect(reply.status == 405 && reply.headers["allow"] == allowed, "\(line): \(reply)")
        let isMessages = line.contains("/v1/messages")
        #expect(try JSONValue.parsed(reply.text)["type"]?.string == (isMessages ? "error" : nil))
      }
      for line in ["GET /v1/models/tiny/more", "POST /v1", "GET /page", "GET /page/none.js"] {
        let reply = try await HTTPClient.exchange(HTTPClient.head(line), rig.port)
        #expect(reply.status == 404 && reply.headers["allow"] == nil, "\(line): \(reply)")
      }
      for (line, path) in [
        ("POST /chat/completions", "/v1/chat/completions"), ("GET /v1/slots", "/slots"),
        ("POST /v1/v1/messages", "/v1/messages"),
      ] {
        let reply = try await HTTPClient.exchange(HTTPClient.head(line), rig.port)
        #expect(reply.status == 404 && reply.text.contains("but \(path)\""), "\(reply.text)")
      }
    }
  }

  @Test func `HEAD is answered as GET is, without a body`() async throws {
    try await ServerRig.serving { rig in
      for path in ["/health", "/", "/nothing", "/v1/completions", "/v1/models/other"] {
        let get = try await rig.get(path)
        let head = try await HTTPClient.exchange(HTTPClient.head("HEAD \(path)"), rig.port)
        #expect(head.status == get.status && head.body.isEmpty, "\(path): \(head)")
        #expect(path == "/v1/completions" || head.headers["content-length"] == "\(get.body.count)")
      }
    }
  }

  @Test(arguments: ["/v1/completions", "/v1/messages", "/nothing"])
  func `A request that does not come in time is told so once`(path: String) async throws {
    try await ServerRig.serving {
      // Where there is no such path, that must be said before the time is over.
      $0.requestSeconds = path == "/nothing" ? 15 : 1
    } _: { rig in
      let head = "POST \(path) HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n"
      let reply = try await HTTPClient.dripping(head, rig.port)
      // There is no such path, which was said before; what came then is no second answer.
      let isKnown = path != "/nothing"
      #expect(reply.status == (isKnown ? 408 : 404))
      let error = try JSONValue.parsed(reply.text)
      #expect(error["error"]?["code"]?.string == (isKnown ? "request_timeout" : "unknown_url"))
      #expect(error["type"]?.string == (path == "/v1/messages" ? "error" : nil))
    }
  }
}
