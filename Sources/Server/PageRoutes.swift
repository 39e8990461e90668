import HTTPTypes
import Hummingbird
import NIOCore
import TensorBasics

/// The page at `/`: its files are in the program, and no request names a file.
///
/// Nothing on it is secret: who opens it without a key is asked for one by the page, which sends it along.
struct PageRoutes: Sendable {
  func add(to router: Router<ConnectionContext>) {
    for file in PageFile.all {
      let (content, tag) = (ByteBuffer(bytes: file.bytes), file.tag)
      router.get(RouterPath(file.path)) { request, _ in
        var headers = Self.headers
        headers[.eTag] = tag
        if request.headers[.ifNoneMatch]?.contains(tag) ?? false {
          return Response(status: .notModified, headers: headers)
        }
        headers[.contentType] = file.type
        return Response(
          status: .ok, headers: headers, body: ResponseBody(byteBuffer: content))
      }
    }
  }

  /// The page is made of these files alone, talks to this server alone, and makes no HTML of text.
  private static let policy = [
    "default-src 'none'", "script-src 'self'", "style-src 'self'", "img-src 'self'",
    "connect-src 'self'", "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'",
    "require-trusted-types-for 'script'", "trusted-types 'none'",
  ].joined(separator: "; ")

  private static let headers: HTTPFields = {
    var headers: HTTPFields = [
      .contentSecurityPolicy: policy, .xContentTypeOptions: "nosniff",
      // Asked for each time, sent when it has changed.
      .cacheControl: "no-cache",
    ]
    for (name, value) in [
      ("Referrer-Policy", "no-referrer"), ("Cross-Origin-Opener-Policy", "same-origin"),
      ("Cross-Origin-Resource-Policy", "same-origin"),
    ] {
      if let name = HTTPField.Name(name) { headers[name] = value }
    }
    return headers
  }()
}

/// A file of the page.
struct PageFile: Sendable {
  let path: String
  let type: String
  let bytes: [UInt8]

  /// What is another where its content is.
  var tag: String {
    "\"\(String(bytes.withUnsafeBytes(Checksum.of), radix: 16))\""
  }

  private init(_ path: String, _ type: String, _ bytes: [UInt8]) {
    self.path = path
    self.type = type
    self.bytes = bytes
  }

  private static let script = "text/javascript; charset=utf-8"

  static let all = [
    PageFile("/", "text/html; charset=utf-8", PackageResources.index_html),
    PageFile("/page/style.css", "text/css; charset=utf-8", PackageResources.style_css),
    PageFile("/page/icon.svg", "image/svg+xml", PackageResources.icon_svg),
    PageFile("/page/theme.js", script, PackageResources.theme_js),
    PageFile("/page/app.js", script, PackageResources.app_js),
    PageFile("/page/answers.js", script, PackageResources.answers_js),
    PageFile("/page/api.js", script, PackageResources.api_js),
    PageFile("/page/chat.js", script, PackageResources.chat_js),
    PageFile("/page/conversations.js", script, PackageResources.conversations_js),
    PageFile("/page/dom.js", script, PackageResources.dom_js),
    PageFile("/page/engine.js", script, PackageResources.engine_js),
    PageFile("/page/format.js", script, PackageResources.format_js),
    PageFile("/page/markdown.js", script, PackageResources.markdown_js),
  ]
}
