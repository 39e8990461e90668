import Glibc
import NIOCore
import NIOHTTPTypes

/// Closes a connection whose client reads nothing for some time of what is there for it.
///
/// On TCP the system does (`TCP_USER_TIMEOUT`): it knows what nobody took, be it a few bytes that an answer came to before it had no
/// more text, where everything that is written still has room in its buffers. On other sockets what cannot be written
/// says it.
final class ReaderDeadline: ChannelInboundHandler, RemovableChannelHandler {
  typealias InboundIn = HTTPRequestPart

  private let limit: TimeAmount
  private var isWatchedBySystem = false
  private var task: Scheduled<Void>?

  init(_ limit: TimeAmount) { self.limit = limit }

  func handlerAdded(context: ChannelHandlerContext) {
    let option = ChannelOptions.tcpOption(NIOBSDSocket.Option(rawValue: TCP_USER_TIMEOUT))
    let milliseconds = Int(Int32(clamping: limit.nanoseconds / 1_000_000))
    do {
      try context.channel.syncOptions?.setOption(option, value: milliseconds)
      isWatchedBySystem = true
    } catch {
      // A socket in the file system.
    }
  }

  func channelWritabilityChanged(context: ChannelHandlerContext) {
    if context.channel.isWritable {
      end()
    } else if task == nil, !isWatchedBySystem {
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
