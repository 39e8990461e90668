import Foundation
import ModelFormat
import Runtime
import Server
import TestSupport
import Testing

/// Who may ask: keys, names of this machine, and pages that browsers show.
@Suite struct AccessTests {
  private static let key = "0123456789abcdef"
  private static let other = "another key of this server".replacing(" ", with: "-")

  private static func keyFile(_ text: String, mode: mode_t = 0o600) -> TemporaryFile {
    let file = TemporaryFile(Array(text.utf8))
    chmod(file.path, mode)
    return file
  }

  @Test func `Requests must show a key, whole and right, in either header`() async throws {
    let file = Self.keyFile("# two of them\n\(Self.key)\n\n  \(Self.other) \r\n")
    let keys = try APIKeys(path: file.path)
    try await ServerRig.serving {
      $0.apiKeys = keys
    } _: { rig in
      for (fields, isRight) in [
        ([], false), (["Authorization: Bearer \(Self.key)"], true),
        (["authorization: bearer \(Self.other)"], true), (["x-api-key: \(Self.key)"], true),
        (["Authorization: Bearer \(Self.key.dropLast())"], false),
        (["Authorization: Bearer \(Self.key)0"], false), (["Authorization: Bearer"], false),
        (["Authorization: Bearer "], false), (["Authorization: Basic \(Self.key)"], false),
        (["x-api-key: \(String(repeating: "x", count: 4000))"], false),
        (["x-api-key: # two of them"], false), (["x-api-key:"], false),
      ] as [([String], Bool)] {
        for path in ["/v1/models", "/metrics", "/slots", "/made/up"] {
          let head = HTTPClient.head("GET \(path)", fields)
          let reply = try await HTTPClient.exchange(head, rig.port)
          #expect((reply.status == 401) == !isRight, "\(head) \(reply)")
          guard !isRight, reply.status == 401 else { continue }
          #expect(reply.headers["www-authenticate"] == "Bearer")
          let error = try JSONValue.parsed(reply.text)["error"]
          #expect(["missing_api_key", "invalid_api_key"].contains(error?["code"]?.string))
          #expect(error?["type"]?.string == "authentication_error")
        }
      }
      #expect(try await rig.get("/health").status == 200)
      // The page asks for a key; what it shows has one.
      #expect(try await rig.get("/").status == 200)
      #expect(try await rig.get("/page/app.js").status == 200)
      #expect(try await rig.get("/state").status == 401)
      #expect(try await rig.post("/v1/completions", "{}").status == 401)
      #expect(rig.engine.statistics().drawnCount == 0)
    }
  }

  @Test func `A file of keys that others can read, or that has none, is refused`() throws {
    let key = Self.key
    for (text, mode, message) in [
      (key, 0o644, "chmod 600"), (key, 0o640, "chmod 600"), (key, 0o602, "chmod 600"),
      ("", 0o600, "0 keys"), ("# \(key)", 0o600, "0 keys"), ("short", 0o600, "line 1"),
      ("\(key)\nwith a space in it", 0o600, "line 2"), ("\(key)\u{e9}", 0o600, "line 1"),
      (String(repeating: "x", count: 513), 0o600, "line 1"),
      (String(repeating: key + "\n", count: 1025), 0o600, "1025 keys"),
      (String(repeating: " ", count: 1 << 17), 0o600, "bytes"),
    ] as [(String, mode_t, String)] {
      let file = Self.keyFile(text, mode: mode)
      let error = #expect(throws: FileError.self) { try APIKeys(path: file.path) }
      let words = error?.description ?? ""
      #expect(words.contains(message) && !words.contains("with a space"), "\(words)")
    }
    #expect(throws: FileError.self) { try APIKeys(path: TemporaryFolder().path) }
    #expect(throws: FileError.self) { try APIKeys(path: "/nothing/there") }
    let readable = Self.keyFile(key, mode: 0o400)
    #expect(throws: Never.self) { try APIKeys(path: readable.path) }
  }

  @Test func `A name that was turned to this machine is not its own`() async throws {
    try await ServerRig.serving {
      $0.allowedHosts = ["GPU.example"]
    } _: { rig in
      for (host, isRight) in [
        ("localhost", true), ("LocalHost:8080", true), ("localhost.", true), ("127.0.0.1:1", true),
        ("127.9.9.9", true), ("[::1]", true), ("[::1]:8080", true), ("192.168.7.7:80", true),
        ("[fe80::1]:80", true), ("gpu.example:8080", true), ("chat.localhost", true),
        ("evil.example", false), ("evil.example:8080", false), ("localhost.evil.example", false),
        ("127.0.0.1.evil.example", false), ("127.1.evil", false), ("[evil]", false),
        ("user@localhost", false), ("gpu.example.evil", false), ("localhost:80:80", false),
        ("localhost:x", false),
      ] {
        let reply = try await HTTPClient.exchange(
          HTTPClient.head("GET /health", host: host), rig.port)
        #expect(reply.status == (isRight ? 200 : 403), "\(host): \(reply)")
      }
    }
  }

  @Test func `Pages from elsewhere may not ask, and those that may can read what comes`()
    async throws
  {
    try await ServerRig.serving {
      $0.allowedOrigins = ["https://Chat.example", "vscode-webview://1"]
      $0.allowedHosts = ["gpu.example"]
    } _: { rig in
      for (origin, host, isRight) in [
        ("http://localhost:3000", "localhost", true), ("https://127.0.0.1", "localhost", true),
        ("http://[::1]:3000", "localhost", true), ("https://chat.example", "localhost", true),
        ("vscode-webview://1", "localhost", true),
        ("http://gpu.example:80", "gpu.example:80", true),
        ("http://gpu.example", "localhost", false), ("http://evil.example", "localhost", false),
        ("http://chat.example", "localhost", false),
        ("https://chat.example.evil", "localhost", false),
        ("null", "localhost", false), ("file://localhost", "localhost", false),
        ("http://localhost.evil", "localhost", false), ("http://192.168.1.1", "localhost", false),
      ] {
        let fields = ["Origin: \(origin)"]
        let asked = HTTPClient.head("GET /v1/nothing", host: host, fields)
        let reply = try await HTTPClient.exchange(asked, rig.port)
        #expect(reply.status == (isRight ? 404 : 403), "\(origin): \(reply)")
        // An error is for the page to read too.
        #expect(reply.headers["access-control-allow-origin"] == (isRight ? origin : nil))
        #expect(reply.headers["vary"] == "Origin")
        let preflight = try await HTTPClient.exchange(
          HTTPClient.head(
            "OPTIONS /v1/chat/completions", host: host,
            fields + [
              "Access-Control-Request-Method: POST",
              "Access-Control-Request-Headers: authorization,content-type",
            ]), rig.port)
        #expect(preflight.status == (isRight ? 204 : 403), "\(origin): \(preflight)")
        let headers = preflight.headers["access-control-allow-headers"]
        #expect(headers == (isRight ? "authorization,content-type" : nil))
      }
      #expect(try await rig.get("/health").headers["access-control-allow-origin"] == nil)
    }
  }

  @Test func `Browsers ask without a key whether a page may send one`() async throws {
    let file = Self.keyFile(Self.key)
    let keys = try APIKeys(path: file.path)
    try await ServerRig.serving {
      $0.apiKeys = keys
    } _: { rig in
      let fields = ["Origin: http://localhost:3000"]
      let preflight = HTTPClient.head(
        "OPTIONS /v1/models", fields + ["Access-Control-Request-Method: GET"])
      #expect(try await HTTPClient.exchange(preflight, rig.port).status == 204)
      let asked = HTTPClient.head("GET /v1/models", fields)
      let reply = try await HTTPClient.exchange(asked, rig.port)
      #expect(reply.status == 401)
      #expect(reply.headers["access-control-allow-origin"] == "http://localhost:3000")
    }
  }
}
