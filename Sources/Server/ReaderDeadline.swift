import NIOCore
import NIOHTTPTypes

/// Closes a connection whose client reads nothing for some time of what is there for it.
final class ReaderDeadline: ChannelInboundHandler, RemovableChannelHandler {
  typealias InboundIn = HTTPRequestPart

  private let limit: TimeAmount
  private var task: Scheduled<Void>?

  init(_ limit: TimeAmount) { self.limit = limit }

  func channelWritabilityChanged(context: ChannelHandlerContext) {
    if context.channel.isWritable {
      end()
    } else if task == nil {
      let channel = context.channel
      task = context.eventLoop.scheduleTask(in: limit) { channel.close(promise: nil) }
    }
    context.fireChannelWritabilityChanged()
  }

  func channelInactive(context: ChannelHandlerContext) {
    end()
    context.fireChannelInactive()
  }

  func handlerRemoved(context: ChannelHandlerContext) { end() }

  private func end() {
    task?.cancel()
    task = nil
  }
}
