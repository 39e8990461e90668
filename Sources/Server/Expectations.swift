import NIOCore
import NIOHTTP1
import NIOHTTPTypes

/// Tells a client that asks before it sends a body to send it: `Expect: 100-continue`.
///
/// Without that some wait for a second, and some for ever. What comes behind this knows nothing of it, so that it puts
/// its other half before that.
final class Expectations: ChannelInboundHandler, RemovableChannelHandler {
  typealias InboundIn = HTTPRequestPart

  func handlerAdded(context: ChannelHandlerContext) { context.addBeforeTypes(Invitations()) }

  private final class Invitations: ChannelDuplexHandler {
    typealias InboundIn = HTTPServerRequestPart
    typealias InboundOut = HTTPServerRequestPart
    typealias OutboundIn = HTTPServerResponsePart
    typealias OutboundOut = HTTPServerResponsePart

    /// Whether they wait to be told, of requests whose responses are not complete; the first is answered first.
    private var areWaiting = CircularBuffer<Bool>()

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
      switch unwrapInboundIn(data) {
      case .head(let head):
        let fields = head.headers[canonicalForm: "expect"]
        areWaiting.append(
          (head.version.major, head.version.minor) >= (1, 1)
            && fields.contains { $0.lowercased() == "100-continue" })
        invite(context)
      // Who sends does not wait any more; what comes is of the newest request.
      case .body, .end: if let last = areWaiting.indices.last { areWaiting[last] = false }
      }
      context.fireChannelRead(data)
    }

    func write(
      context: ChannelHandlerContext, data: NIOAny, promise: EventLoopPromise<Void>?
    ) {
      let part = unwrapOutboundIn(data)
      context.write(data, promise: promise)
      switch part {
      // Who is answered needs not be told.
      case .head: if !areWaiting.isEmpty { areWaiting[areWaiting.startIndex] = false }
      case .body: break
      case .end:
        if !areWaiting.isEmpty { areWaiting.removeFirst() }
        invite(context)
      }
    }

    /// Tells the oldest request's client, whose turn it is, if it waits.
    private func invite(_ context: ChannelHandlerContext) {
      guard areWaiting.first == true else { return }
      areWaiting[areWaiting.startIndex] = false
      let head = HTTPResponseHead(version: .http1_1, status: .continue)
      context.writeAndFlush(wrapOutboundOut(.head(head)), promise: nil)
    }
  }
}
