/// Writes the text of tokens as they come, whole characters only.
///
/// Bytes that can no longer become a character are written as U+FFFD. Allocates nothing when
/// `output` has room.
public struct StreamingDetokenizer: Sendable {
  private let tokenizer: Tokenizer
  /// Bytes not yet written: at most an unfinished character and one token.
  private var pending: [UInt8] = []
  /// Whether the next text's first space is SentencePiece's own.
  private var dropsSpace: Bool

  /// - Parameter startsText: whether the first token begins a text rather than continuing one: then
  ///   a space that the tokenizer puts before every text is taken away again.
  public init(_ tokenizer: Tokenizer, startsText: Bool = false) {
    self.tokenizer = tokenizer
    dropsSpace = startsText && tokenizer.addsSpacePrefix
    pending.reserveCapacity(tokenizer.longestTokenByteCount + 4)
  }

  /// Appends to `output` the characters that `token` completes; control tokens are nothing.
  public mutating func append(_ token: Int32, to output: inout [UInt8]) {
    tokenizer.decode(token, into: &pending)
    if dropsSpace, !pending.isEmpty {
      dropsSpace = false
      if pending[0] == 0x20 { pending.removeFirst() }
    }
    write(to: &output, isEnd: false)
  }

  /// Appends what is left, an unfinished character as U+FFFD.
  public mutating func finish(_ output: inout [UInt8]) {
    write(to: &output, isEnd: true)
  }

  private mutating func write(to output: inout [UInt8], isEnd: Bool) {
    var position = 0
    pending.withUnsafeBufferPointer { bytes in
      while position < bytes.count {
        switch UTF8Scanner.unit(in: bytes, at: position) {
        case .character(let count):
          for index in position..<position + count { output.append(bytes[index]) }
          position += count
        case .invalid(let count):
          output.append(contentsOf: UTF8Scanner.replacement)
          position += count
        case .incomplete:
          guard isEnd else { return }
          output.append(contentsOf: UTF8Scanner.replacement)
          position = bytes.count
        }
      }
    }
    pending.removeFirst(position)
  }
}
