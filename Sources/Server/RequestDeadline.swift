import HTTPTypes
import NIOCore
import NIOHTTPTypes

/// Closes a connection whose request is not complete some time after its head, and says why where nothing was said yet.
///
/// Hummingbird's own limit is on idle time, which a client that sends a byte now and then never has.
final class RequestDeadline: ChannelDuplexHandler, RemovableChannelHandler {
  typealias InboundIn = HTTPRequestPart
  typealias InboundOut = HTTPRequestPart
  typealias OutboundIn = HTTPResponsePart
  typealias OutboundOut = HTTPResponsePart

  private let seconds: Int
  private var task: Scheduled<Void>?
  private var isAnswered = false

  init(seconds: Int) { self.seconds = seconds }

  func channelRead(context: ChannelHandlerContext, data: NIOAny) {
    switch unwrapInboundIn(data) {
    case .head(let head): begin(context, APIError.Form(head))
    case .body: break
    case .end: end()
    }
    context.fireChannelRead(data)
  }

  func write(context: ChannelHandlerContext, data: NIOAny, promise: EventLoopPromise<Void>?) {
    isAnswered = true
    context.write(data, promise: promise)
  }

  func channelInactive(context: ChannelHandlerContext) {
    end()
    context.fireChannelInactive()
  }

  func handlerRemoved(context: ChannelHandlerContext) { end() }

  private func begin(_ context: ChannelHandlerContext, _ form: APIError.Form) {
    isAnswered = false
    let bound = NIOLoopBound((handler: self, context: context), eventLoop: context.eventLoop)
    task = context.eventLoop.scheduleTask(in: .seconds(Int64(seconds))) {
      bound.value.handler.close(bound.value.context, form)
    }
  }

  private func end() {
    task?.cancel()
    task = nil
  }

  private func close(_ context: ChannelHandlerContext, _ form: APIError.Form) {
    if !isAnswered {
      let body = APIError(
        .requestTimeout, "the request did not come within \(seconds) s", code: "request_timeout"
      ).json(form)
      let head = HTTPResponse(
        status: .requestTimeout,
        headerFields: [
          .connection: "close", .contentType: "application/json",
          .contentLength: "\(body.count)",
        ])
      context.write(wrapOutboundOut(.head(head)), promise: nil)
      context.write(wrapOutboundOut(.body(ByteBuffer(bytes: body))), promise: nil)
      context.writeAndFlush(wrapOutboundOut(.end(nil)), promise: nil)
    }
    context.close(promise: nil)
  }
}
