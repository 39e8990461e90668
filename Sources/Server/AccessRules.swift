import HTTPTypes
import Hummingbird

/// Who may ask: with which key, under which name of this machine, and from which pages.
///
/// A page of anybody's that a browser here shows can send requests to this machine. Browsers say where a page is from
/// (`Origin`), unless its own name was turned to this machine (DNS rebinding): then `Host` is that name.
struct AccessRules: Sendable {
  private let keys: APIKeys?
  private let hosts: Set<HostName>
  private let origins: Set<String>
  /// Browsers cannot connect to a socket in the file system.
  private let isOpenToBrowsers: Bool
  /// What needs no key: whether the server is well, what can be asked, and the page, which asks for one.
  private static let openPaths = Set(PageFile.all.map(\.path) + ["/health", "/openapi.json"])

  init(_ options: ServerOptions) {
    keys = options.apiKeys
    hosts = Set((options.allowedHosts + [options.host]).compactMap { HostName($0) })
    origins = Set(options.allowedOrigins.map { $0.lowercased() })
    isOpenToBrowsers = options.unixSocketPath == nil
  }

  /// What becomes of a request.
  enum Decision {
    /// It is answered before any endpoint sees it.
    case answer(Response)
    /// An endpoint answers it, to the holder of a key if one was asked for.
    case admit(RequestClient?)
  }

  /// - Throws: ``APIError`` with 403 or 401.
  func decide(_ request: Request) throws -> Decision {
    try checkHost(request.head)
    if let origin = request.headers[.origin] {
      guard allows(origin, at: request.head.authority) else {
        throw APIError(
          .forbidden,
          "pages from '\(origin.prefix(200))' may not ask (the server's --allow-origin)",
          code: "origin_not_allowed")
      }
      // Asked by browsers before they send what a page wants; it has no key.
      if request.method == .options, request.headers[.accessControlRequestMethod] != nil {
        return .answer(Self.preflight(request))
      }
    }
    guard let keys, !Self.openPaths.contains(request.uri.path) else { return .admit(nil) }
    return .admit(try holder(of: request, keys))
  }

  /// Lets the page that asked read the response.
  func complete(_ response: inout Response, to request: Request) {
    response.headers[.vary] = HTTPField.Name.origin.rawName
    guard let origin = request.headers[.origin], allows(origin, at: request.head.authority) else {
      return
    }
    response.headers[.accessControlAllowOrigin] = origin
    response.headers[.accessControlExposeHeaders] = HTTPField.Name.retryAfter.rawName
  }

  private func checkHost(_ head: HTTPRequest) throws {
    // The first is its authority; another would be for whoever reads the last.
    guard let authority = head.authority, head.headerFields[.host] == nil else {
      throw APIError(
        .badRequest, "a request of HTTP/1.1 has one 'Host'", code: "invalid_host")
    }
    guard isOpenToBrowsers else { return }
    // A number is what the client connected to: nobody's name servers had a part in it.
    if let host = HostName(authority), host.isLoopback || host.isAddress || hosts.contains(host) {
      return
    }
    throw APIError(
      .forbidden,
      "this server is not called '\(authority.prefix(200))' (the server's --allow-host)",
      code: "host_not_allowed")
  }

  private func allows(_ origin: String, at authority: String?) -> Bool {
    let origin = origin.lowercased()
    if origins.contains(origin) { return true }
    for scheme in ["http://", "https://"] where origin.hasPrefix(scheme) {
      let page = origin.dropFirst(scheme.count)
      // The server's own page, or one of a program on this machine.
      if String(page) == authority?.lowercased() || HostName(page)?.isLoopback == true {
        return true
      }
    }
    return false
  }

  private static func preflight(_ request: Request) -> Response {
    var response = Response(status: .noContent)
    response.headers[.accessControlAllowMethods] = "GET, POST, DELETE"
    response.headers[.accessControlAllowHeaders] = request.headers[.accessControlRequestHeaders]
    response.headers[.accessControlMaxAge] = "600"
    return response
  }

  private func holder(of request: Request, _ keys: APIKeys) throws -> RequestClient {
    let scheme = "bearer "
    var given: Substring?
    if let header = request.headers[.authorization], header.lowercased().hasPrefix(scheme) {
      given = header.dropFirst(scheme.count)
    }
    given = given ?? request.headers[.apiKey].map { $0[...] }
    guard let given else {
      throw APIError(
        .unauthorized,
        "a key is missing: send it as 'Authorization: Bearer KEY' or 'x-api-key: KEY'",
        code: "missing_api_key")
    }
    guard let holder = keys.holder(of: given) else {
      throw APIError(.unauthorized, "the key is none of this server's", code: "invalid_api_key")
    }
    return holder
  }
}

extension HTTPField.Name {
  /// Where clients of Anthropic's interface have their key.
  fileprivate static let apiKey = Self("x-api-key")!
  fileprivate static let host = Self("host")!
}
