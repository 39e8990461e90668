import NIOCore
import NIOHTTPTypes

/// Notices that a client has left, which is when it stops sending for good: answers are computed for nobody then.
///
/// Hummingbird has `consumeWithCancellationOnInboundClose` for that, which in 2.28 ends the process where the client leaves
/// before its request was complete, or after it was read.
final class ClientWatch: ChannelInboundHandler, RemovableChannelHandler {
  typealias InboundIn = HTTPRequestPart

  private var hasLeft = false
  /// What to do then; a connection's requests are answered one after the other.
  private var onLeaving: (@Sendable () -> Void)?

  /// Does `work`, and in the meantime `onLeaving` as soon as the client at the other end of `channel` has left.
  ///
  /// - Throws: also where the connection is closed already.
  static func during<Result: Sendable>(
    _ channel: any Channel, onLeaving: @escaping @Sendable () -> Void,
    _ work: () async throws -> Result
  ) async throws -> Result {
    try await set(onLeaving, of: channel).get()
    defer { _ = set(nil, of: channel) }
    return try await work()
  }

  private static func set(
    _ onLeaving: (@Sendable () -> Void)?, of channel: any Channel
  ) -> EventLoopFuture<Void> {
    channel.eventLoop.submit {
      let watch = try channel.pipeline.syncOperations.handler(type: ClientWatch.self)
      watch.onLeaving = onLeaving
      if watch.hasLeft { onLeaving?() }
    }
  }

  func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
    if case .some(.inputClosed) = event as? ChannelEvent { leave() }
    context.fireUserInboundEventTriggered(event)
  }

  func channelInactive(context: ChannelHandlerContext) {
    leave()
    context.fireChannelInactive()
  }

  private func leave() {
    hasLeft = true
    onLeaving?()
    onLeaving = nil
  }
}
