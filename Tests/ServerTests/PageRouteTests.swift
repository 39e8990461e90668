import Foundation
import ModelFormat
import Runtime
import TensorBasics
import Testing

/// The page at `/`, and the state that it shows. How it looks and works is `tools/test-page`'s.
@Suite struct PageRouteTests {
  private static let folder = URL(fileURLWithPath: #filePath)
    .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
    .appendingPathComponent("Sources/Server/Page")

  /// The content of each of its files.
  private static let files: [String: [UInt8]] = {
    let names = (try? FileManager.default.contentsOfDirectory(atPath: folder.path)) ?? []
    return Dictionary(
      uniqueKeysWithValues: names.map { name in
        (name, (try? Array(Data(contentsOf: folder.appendingPathComponent(name)))) ?? [])
      })
  }()

  private static func path(_ name: String) -> String {
    name == "index.html" ? "/" : "/page/\(name)"
  }

  private static func type(_ name: String) -> String {
    switch name.split(separator: ".").last {
    case "html": "text/html; charset=utf-8"
    case "css": "text/css; charset=utf-8"
    case "svg": "image/svg+xml"
    default: "text/javascript; charset=utf-8"
    }
  }

  @Test func `The program has each file of the page, as it is in the folder`() async throws {
    #expect(Self.files.count > 5)
    try await ServerRig.serving { rig in
      for (name, bytes) in Self.files {
        let reply = try await rig.get(Self.path(name))
        #expect(reply.status == 200 && reply.body == bytes, "\(name)")
        #expect(reply.headers["content-type"] == Self.type(name))
        #expect(reply.headers["x-content-type-options"] == "nosniff")
        #expect(reply.headers["cache-control"] == "no-cache")
        let policy = reply.headers["content-security-policy"] ?? ""
        #expect(policy.hasPrefix("default-src 'none'; script-src 'self'; style-src 'self';"))
        #expect(!policy.contains("unsafe") && !policy.contains("http") && !policy.contains("*"))
      }
    }
  }

  @Test func `A browser that has the page is not sent it again`() async throws {
    try await ServerRig.serving { rig in
      let tag = try #require(try await rig.get("/").headers["etag"])
      func get(_ tag: String) async throws -> HTTPReply {
        try await HTTPClient.exchange(
          HTTPClient.head("GET /", ["If-None-Match: \(tag)"]), rig.port)
      }
      let same = try await get("\"0\", \(tag)")
      #expect(same.status == 304 && same.body.isEmpty && same.headers["etag"] == tag)
      #expect(try await get("\"0\"").status == 200)
    }
  }

  @Test func `No path leads to a file`() async throws {
    try await ServerRig.serving { rig in
      for path in [
        "/index.html", "/page", "/page/", "/page/index.html", "/page/../page/app.js",
        "/page/..%2f..%2f..%2fPackage.swift", "/page/%2e%2e/app.js", "/../../etc/passwd",
        "//etc/passwd", "/page/app.js%00.css", "/page/app.JS",
      ] {
        let status = try await rig.get(path).status
        #expect(status == 404, "\(path)")
      }
    }
  }

  @Test func `The page takes nothing from elsewhere and has no script of its own`() throws {
    let texts = Self.files.mapValues { String(decoding: $0, as: UTF8.self) }
    let page = try #require(texts["index.html"])
    let references = page.matches(of: /(?:src|href)="([^"#]+)"/).map { String($0.output.1) }
    #expect(references.count > 3)
    let imports = texts.filter { $0.key.hasSuffix(".js") }.values.flatMap { text in
      text.matches(of: /from "([^"]+)"/).map { "page/" + $0.output.1.dropFirst(2) }
    }
    for reference in references + imports {
      #expect(
        reference.hasPrefix("page/") && texts[String(reference.dropFirst(5))] != nil,
        "\(reference)")
    }
    #expect(page.firstMatch(of: /<script(?![^>]*src=)|<style|style="|\son[a-z]+="/) == nil)
    let banned = [
      "innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "@import", "url(",
    ]
    for (name, text) in texts {
      for word in banned { #expect(!text.contains(word), "\(name) has \(word)") }
    }
  }

  @Test func `The state tells of weights, sweeps, drive and sequences`() async throws {
    let start = monotonicNanoseconds()
    try await ServerRig.serving { rig in
      let idle = try JSONValue.parsed(try await rig.get("/state").text)
      #expect(idle["model"]?.string == "tiny" && idle["context_length"]?.integer == 256)
      #expect(idle["sweep"]?["count"]?.integer == 0 && idle["sweep"]?["layer"]?.integer == nil)
      #expect(idle["experts"]?.members == nil)
      let layers = idle["layers"]?.array ?? []
      let layerCount = try rig.model().configuration.layerCount
      #expect(layers.count == layerCount)
      for share in layers + [try #require(idle["head"])] {
        #expect(share["pinned_bytes"]?.integer ?? 0 > 0)
        #expect(share["streamed_bytes"]?.integer == 0)
      }
      _ = try await rig.post(
        "/v1/completions", #"{"prompt":[5,6],"max_tokens":3,"ignore_eos":true}"#)
      let later = try JSONValue.parsed(try await rig.get("/state").text)
      #expect(later["sweep"]?["count"]?.integer == 3)
      #expect(later["sweep"]?["rows"]?.integer == 4)
      #expect(later["sweep"]?["drawn_tokens"]?.integer == 3)
      #expect(later["sweep"]?["verified_drafts"]?.integer == 0)
      #expect(later["drive"]?["bytes_read"]?.integer ?? 0 > 0)
      #expect(later["drive"]?["busy_seconds"]?.double ?? 0 > 0)
      #expect(later["prompts"]?["tokens"]?.integer == 2)
      #expect(later["sequences"]?["places"]?.integer == 3)
      #expect(later["sequences"]?["answers"]?.array?.isEmpty == true)
      let seconds = [idle, later].compactMap { $0["uptime_seconds"]?.double }
      // Not the machine's: the server began after this test.
      let most = Double(monotonicNanoseconds() - start) / 1e9
      #expect(seconds.count == 2 && seconds[0] < seconds[1] && seconds[1] < most)
    }
  }
}
