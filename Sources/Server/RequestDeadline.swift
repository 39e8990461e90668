import HTTPTypes
import NIOCore
import NIOHTTPTypes

/// Closes a connection whose request is not complete some time after its head.
///
/// Hummingbird's own limit is on idle time, which a client that sends a byte now and then never has.
final class RequestDeadline: ChannelInboundHandler, RemovableChannelHandler {
  typealias InboundIn = HTTPRequestPart
  typealias InboundOut = HTTPRequestPart
  typealias OutboundOut = HTTPResponsePart

  private let limit: TimeAmount
  private var task: Scheduled<Void>?

  init(_ limit: TimeAmount) { self.limit = limit }

  func channelRead(context: ChannelHandlerContext, data: NIOAny) {
    switch unwrapInboundIn(data) {
    case .head: begin(context)
    case .body: break
    case .end: end()
    }
    context.fireChannelRead(data)
  }

  func channelInactive(context: ChannelHandlerContext) {
    end()
    context.fireChannelInactive()
  }

  func handlerRemoved(context: ChannelHandlerContext) { end() }

  private func begin(_ context: ChannelHandlerContext) {
    let bound = NIOLoopBound((handler: self, context: context), eventLoop: context.eventLoop)
    task = context.eventLoop.scheduleTask(in: limit) {
      bound.value.handler.close(bound.value.context)
    }
  }

  private func end() {
    task?.cancel()
    task = nil
  }

  private func close(_ context: ChannelHandlerContext) {
    let head = HTTPResponse(
      status: .requestTimeout, headerFields: [.connection: "close", .contentLength: "0"])
    context.write(wrapOutboundOut(.head(head)), promise: nil)
    context.writeAndFlush(wrapOutboundOut(.end(nil)), promise: nil)
    context.close(promise: nil)
  }
}
