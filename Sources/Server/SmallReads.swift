import NIOCore
import NIOHTTPTypes

/// Has a connection read little at a time: what its client sends faster than it is taken stays with the system, and is no
/// memory of this process.
final class SmallReads: ChannelInboundHandler, RemovableChannelHandler {
  typealias InboundIn = HTTPRequestPart

  private static let byteCount = 4096

  func handlerAdded(context: ChannelHandlerContext) {
    let options = context.channel.syncOptions
    // A channel without these options reads as it likes.
    try? options?.setOption(
      .recvAllocator, value: FixedSizeRecvByteBufferAllocator(capacity: Self.byteCount))
    try? options?.setOption(.maxMessagesPerRead, value: 1)
  }
}
