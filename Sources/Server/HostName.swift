import Glibc

/// The name or address of a host, as `Host` headers, origins and options have it, without a port.
public struct HostName: Hashable, Sendable {
  /// In lower case, an address of IPv6 without its brackets.
  private let text: String

  /// - Parameter authority: `name`, `address` or `[address]`, and perhaps `:port`; nil where it is none of them.
  public init?(_ authority: some StringProtocol) {
    var name = Substring(authority.lowercased())
    if name.first == "[" {
      guard let end = name.firstIndex(of: "]"), Self.isPort(name[name.index(after: end)...]) else {
        return nil
      }
      name = name[..<end].dropFirst()
      guard Self.isAddress(name, AF_INET6) else { return nil }
    } else if !Self.isAddress(name, AF_INET6) {
      if let colon = name.firstIndex(of: ":") {
        guard Self.isPort(name[colon...]) else { return nil }
        name = name[..<colon]
      }
      if name.last == "." { name.removeLast() }
      let isRight = name.utf8.allSatisfy { byte in
        (0x61...0x7A).contains(byte) || (0x30...0x39).contains(byte)
          || [0x2D, 0x2E, 0x5F].contains(byte)
      }
      guard isRight, !name.isEmpty else { return nil }
    }
    text = String(name)
  }

  /// Whether it is a number, which no name server can turn to another machine.
  var isAddress: Bool { Self.isAddress(text[...], AF_INET) || Self.isAddress(text[...], AF_INET6) }

  /// Whether it is this machine, whoever asks.
  public var isLoopback: Bool {
    if text == "localhost" || text == "::1" || text.hasSuffix(".localhost") { return true }
    return text.hasPrefix("127.") && Self.isAddress(text[...], AF_INET)
  }

  private static func isPort(_ text: Substring) -> Bool {
    text.isEmpty
      || (text.first == ":" && text.dropFirst().utf8.allSatisfy { (0x30...0x39).contains($0) })
  }

  private static func isAddress(_ text: Substring, _ family: Int32) -> Bool {
    var address = in6_addr()
    return inet_pton(family, String(text), &address) == 1
  }
}
