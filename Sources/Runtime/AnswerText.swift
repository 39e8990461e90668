public import Tokenization

/// The text of an answer, made of its tokens as they come: whole UTF-8 characters, up to a stop string.
///
/// What may still become a stop string is held back, so text that was given out is never taken back.
///
/// ```swift
/// var (text, bytes) = (AnswerText(engine.tokenizer, stops: request.stops), [UInt8]())
/// while let event = try sequence.next() { text.append(event, to: &bytes) }
/// ```
public struct AnswerText: Sendable {
  /// The stop string that the answer came to, before which its text ends.
  public private(set) var stop: String?
  private let stops: StopStrings
  private var detokenizer: StreamingDetokenizer
  /// Text that may become a stop string.
  private var held: [UInt8] = []

  /// Bytes of text that wait because they may become a stop string.
  package var heldByteCount: Int { held.count }

  /// - Parameter stops: those that the answer's tokens are drawn with.
  public init(_ tokenizer: Tokenizer, stops: StopStrings = []) {
    self.stops = stops
    detokenizer = StreamingDetokenizer(tokenizer)
  }

  /// Appends to `output` the text that `token` settles.
  public mutating func append(_ token: Int32, to output: inout [UInt8]) {
    guard stop == nil else { return }
    let written = held.count
    detokenizer.append(token, to: &held)
    settle(from: written, to: &output)
  }

  /// Appends to `output` what an event of a sequence adds to the text of the turn that it belongs to.
  public mutating func append(_ event: TokenSequence.Event, to output: inout [UInt8]) {
    switch event {
    case .queued, .reading: break
    case .token(let id, _, _): append(id, to: &output)
    case .finished(let finish) where finish.reason != .cancelled: self.finish(&output)
    case .finished, .failed: release(&output)
    }
  }

  /// Appends what is left when the last token was appended, an unfinished character as U+FFFD.
  public mutating func finish(_ output: inout [UInt8]) {
    guard stop == nil else { return }
    let written = held.count
    detokenizer.finish(&held)
    settle(from: written, to: &output)
    release(&output)
  }

  /// Appends what was held back of an answer that goes on no more, without an unfinished character.
  public mutating func release(_ output: inout [UInt8]) {
    output += held
    held.removeAll()
  }

  /// Gives out what no stop string can take back; the first `written` bytes were looked at before.
  private mutating func settle(from written: Int, to output: inout [UInt8]) {
    if let end = stops.first(in: held, from: written) {
      stop = end.stop
      output += held[..<end.start]
      held.removeAll()
      return
    }
    let count = held.count - stops.heldByteCount(of: held)
    output += held[..<count]
    held.removeSubrange(..<count)
  }
}
