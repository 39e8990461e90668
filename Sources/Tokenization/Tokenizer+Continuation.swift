import Jinja

extension Tokenizer {
  /// The tokens that a template writes after an answer.
  ///
  /// They are what ends it, the messages that follow, and how the next answer begins. They go on from the answer's own tokens, as those were drawn: nothing of what it says is read again.
  ///
  /// - Parameter index: of the message that is the answer.
  /// - Returns: nil where the template does not show where the answer ends.
  /// - Throws: as ``encodeChat(_:template:)``.
  public func encodeChat(
    _ conversation: Conversation, after index: Int, template: ChatTemplate
  ) throws(TokenizerError) -> [Int32]? {
    guard (0..<conversation.messageCount).contains(index) else { return nil }
    // Stands for the answer; nobody can write it, and templates leave it as it is.
    let mark = "answer" + String(UInt128.random(in: 0...UInt128.max), radix: 16)
    let hidden: (conversation: Conversation, isCall: Bool)
    do throws(JinjaError) { hidden = try conversation.replacing(index, with: mark) } catch {
      throw .unsupportedConversation(error.description)
    }
    let text = try render(hidden.conversation, template: template)
    guard let end = text.end(ofLast: Array(mark.utf8)) else { return nil }
    let rest = text[end..<text.bytes.count]
    // A conversation that ends with the answer shows what of that belongs to the answer.
    let ending = try? render(hidden.conversation.prefix(through: index), template: template)
    if let ending, let end = ending.end(ofLast: Array(mark.utf8)),
      case let ending = ending[end..<ending.bytes.count], let stop = endToken(in: ending),
      rest.bytes.starts(with: ending.bytes[..<stop.upperBound])
    {
      return try encode(rest[stop.lowerBound..<rest.bytes.count], of: template)
    }
    // Brackets that end a call are its own.
    return hidden.isCall ? nil : try encode(textAfterText: rest, of: template)
  }

  /// The tokens of text that follows other text: many tokenizers write a space before text that follows nothing.
  private func encode(
    textAfterText rest: MarkedText, of template: ChatTemplate
  ) throws(TokenizerError) -> [Int32] {
    for word in ["a", ".", "1"] {
      var text = MarkedText(word)
      let start = try encode(text, of: template)
      text.append(rest)
      let tokens = try encode(text, of: template)
      if tokens.starts(with: start) { return Array(tokens.dropFirst(start.count)) }
    }
    return try encode(rest, of: template)
  }

  /// Where the first token that ends an answer is spelt out, by the template itself.
  private func endToken(in text: MarkedText) -> Range<Int>? {
    let spellings = endTokens.map(spelling).filter { !$0.isEmpty }
    for start in text.bytes.indices {
      for spelling in spellings where text.bytes[start...].starts(with: spelling) {
        let range = start..<start + spelling.count
        if !text.hasData(in: range) { return range }
      }
    }
    return nil
  }
}
