import Logging
import NIOCore
import NIOHTTPTypes
import NIOSSL
import Synchronization
import TensorBasics

/// Says that clients connect to a server of TLS without it: else nobody would know why they are not answered.
///
/// Once in some time, however many there are, so that nobody fills a log.
final class HandshakeLog: ChannelInboundHandler, RemovableChannelHandler {
  typealias InboundIn = HTTPRequestPart

  /// What all connections of a server share.
  final class Shared: Sendable {
    private let logger: Logger
    /// When it was said last; nil = never.
    private let lastNanoseconds = Mutex<Int?>(nil)
    private static let intervalNanoseconds = 60_000_000_000

    init(_ logger: Logger) { self.logger = logger }

    func notePlainRequest(from address: SocketAddress?) {
      let now = monotonicNanoseconds()
      let isDue = lastNanoseconds.withLock { last in
        guard last.map({ now - $0 >= Self.intervalNanoseconds }) ?? true else { return false }
        last = now
        return true
      }
      guard isDue else { return }
      logger.warning(
        "\(address?.ipAddress ?? "a client") asks over HTTP without TLS and is not answered: with --certificate the address begins with https://"
      )
    }
  }

  private let shared: Shared

  init(_ shared: Shared) { self.shared = shared }

  func errorCaught(context: ChannelHandlerContext, error: any Error) {
    if error is NIOSSLError, "\(error)".contains("HTTP_REQUEST") {
      shared.notePlainRequest(from: context.channel.remoteAddress)
    }
    context.fireErrorCaught(error)
  }
}
