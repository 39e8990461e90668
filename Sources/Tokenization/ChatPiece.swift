/// A stretch of a prompt: a chat template's markup, or a message's text.
public struct ChatPiece: Sendable, Equatable {
  public var bytes: [UInt8]
  /// Whether control tokens spelt out in ``bytes`` are meant.
  public var isMarkup: Bool

  public init(_ bytes: [UInt8], isMarkup: Bool) {
    self.bytes = bytes
    self.isMarkup = isMarkup
  }
}
