import NIOCore
import NIOHTTP1
import NIOHTTPTypes
import NIOHTTPTypesHTTP1

/// Answers clients of HTTP/1.0 as that has it: a body ends with its length or with the connection, never in chunks.
///
/// What comes behind it knows no versions, so that it puts its other half before that.
final class OldClients: ChannelInboundHandler, RemovableChannelHandler {
  typealias InboundIn = HTTPRequestPart

  func handlerAdded(context: ChannelHandlerContext) { context.addBeforeTypes(Versions()) }

  private final class Versions: ChannelDuplexHandler {
    typealias InboundIn = HTTPServerRequestPart
    typealias InboundOut = HTTPServerRequestPart
    typealias OutboundIn = HTTPServerResponsePart
    typealias OutboundOut = HTTPServerResponsePart

    /// Whether they are old, of requests whose responses are not complete; the first is answered first.
    private var areOld = CircularBuffer<Bool>()

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
      guard case .head(var head) = unwrapInboundIn(data) else {
        return context.fireChannelRead(data)
      }
      let isOld = (head.version.major, head.version.minor) < (1, 1)
      areOld.append(isOld)
      if isOld {
        head.headers.replaceOrAdd(name: "Connection", value: "close")
        // They need not name whom they ask (RFC 9112, 3.3): it is who is asked.
        if !head.headers.contains(name: "Host") {
          head.headers.add(name: "Host", value: "localhost")
        }
      }
      context.fireChannelRead(wrapInboundOut(.head(head)))
    }

    func write(
      context: ChannelHandlerContext, data: NIOAny, promise: EventLoopPromise<Void>?
    ) {
      var part = unwrapOutboundIn(data)
      switch part {
      case .head(var head) where areOld.first == true:
        head.version = .http1_0
        part = .head(head)
      case .end: if !areOld.isEmpty { areOld.removeFirst() }
      case .head, .body: break
      }
      context.write(wrapOutboundOut(part), promise: promise)
    }
  }
}

extension ChannelHandlerContext {
  /// Puts a handler before the one that turns HTTP's parts into those of types, behind which nothing knows of versions.
  func addBeforeTypes(_ handler: any ChannelHandler) {
    do {
      let codec = try pipeline.syncOperations.context(handlerType: HTTP1ToHTTPServerCodec.self)
      try pipeline.syncOperations.addHandler(handler, position: .before(codec.handler))
    } catch { fireErrorCaught(error) }
  }
}
