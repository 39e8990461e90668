/// Tells an answer's text, its reasoning and its calls of tools apart, as its bytes come.
///
/// What it gives does not depend on how the bytes are cut: it looks at one after the other. What may still become a mark or a
/// call is held back. What was no call after all is text, every byte of it; once arguments were given out they stay so. White
/// space around marks is left out.
package struct AnswerParser: Sendable {
  private enum State {
    case text
    case reasoning
    case call(CallReader)
    /// After the only call that may be.
    case ended
  }

  private let syntax: AnswerSyntax
  private var state: State
  /// White space, and the beginning of what may become a mark.
  private var held: [UInt8] = []
  /// Whether white space that comes next is left out.
  private var dropsSpace: Bool
  /// Nothing but white space and perhaps reasoning has come.
  private var canReason = true
  /// Nothing but white space, reasoning and calls has come.
  private var canCallPlainly = true
  private var callCount = 0
  /// White space that is held back at most.
  private static let mostSpace = 4096

  package init(_ syntax: AnswerSyntax) {
    self.syntax = syntax
    state = syntax.beginsInReasoning ? .reasoning : .text
    dropsSpace = syntax.beginsInReasoning
  }

  /// Whether the model thinks at the moment.
  var isReasoning: Bool { if case .reasoning = state { true } else { false } }

  /// Takes more of the answer's text.
  package mutating func append(_ bytes: [UInt8], to pieces: inout [AnswerPiece]) {
    guard !syntax.isPlain else {
      if !bytes.isEmpty { pieces.add(.text(bytes)) }
      return
    }
    for byte in bytes { take(byte, to: &pieces) }
  }

  /// Takes a control token, which is no text but may be a mark.
  package mutating func append(control mark: [UInt8], to pieces: inout [AnswerPiece]) {
    switch state {
    case .text, .reasoning:
      guard let action = action(of: mark) else { return }
      if !held.allSatisfy(Self.isSpace) { release(&pieces) }
      perform(action, mark: [])
    case .call(let reader):
      if reader.isInName {
        for byte in mark { take(byte, to: &pieces) }
      } else if action(of: mark) == .call {
        giveUp(reader, to: &pieces)
        append(control: mark, to: &pieces)
      }
    case .ended: break
    }
  }

  /// Gives out what was held back, when the answer is over.
  package mutating func finish(_ pieces: inout [AnswerPiece]) {
    if case .call(let reader) = state { giveUp(reader, to: &pieces) }
    // A call that was given back may have held another.
    if case .call = state { return finish(&pieces) }
    release(&pieces)
  }

  static func isSpace(_ byte: UInt8) -> Bool {
    byte == 0x20 || byte == 0x0A || byte == 0x0D || byte == 0x09
  }

  private mutating func take(_ byte: UInt8, to pieces: inout [AnswerPiece]) {
    switch state {
    case .text, .reasoning: match(byte, to: &pieces)
    case .call(var reader):
      // The reader is moved out, so that its bytes are not copied with each.
      state = .ended
      let result = reader.take(byte, &pieces)
      state = .call(reader)
      follow(result, reader, byte, to: &pieces)
    case .ended: break
    }
  }

  // MARK: Marks

  private enum Action: Equatable {
    case beginReasoning, endReasoning, call
    /// What stands between calls or after them.
    case separator
  }

  /// What a mark means here; nil = nothing.
  private func action(of mark: [UInt8]) -> Action? {
    marks.first { $0.mark == mark }?.action
  }

  /// Marks that may come now.
  private var marks: [(mark: [UInt8], action: Action)] {
    if case .reasoning = state {
      return syntax.reasoning.map { [($0.end, .endReasoning)] } ?? []
    }
    var marks: [(mark: [UInt8], action: Action)] = []
    if canReason, let reasoning = syntax.reasoning {
      marks.append((reasoning.begin, .beginReasoning))
    }
    switch syntax.calls {
    case .marked(let call)?:
      marks.append((call.begin, .call))
      if callCount > 0 { marks.append((call.end, .separator)) }
    case .announced(let mark)?: marks.append((mark, .call))
    case .plain(let mark)? where canCallPlainly:
      marks += [(mark, .call), ([UInt8(ascii: "{")], .call)]
      if callCount > 0 { marks.append(([UInt8(ascii: ";")], .separator)) }
    case .plain, nil: break
    }
    return marks
  }

  private mutating func match(_ byte: UInt8, to pieces: inout [AnswerPiece]) {
    if Self.isSpace(byte), held.isEmpty, dropsSpace { return }
    held.append(byte)
    let mark = Array(held.drop(while: Self.isSpace))
    if mark.isEmpty {
      if held.count > Self.mostSpace { release(&pieces) }
      return
    }
    if let action = action(of: mark) { return perform(action, mark: mark) }
    if marks.contains(where: { $0.mark.starts(with: mark) }) { return }
    // The first byte begins no mark; the others may.
    let rest = mark.dropFirst()
    held.removeLast(rest.count)
    release(&pieces)
    for byte in rest { match(byte, to: &pieces) }
  }

  /// - Parameter mark: what it is in the text; nothing where it was a control token.
  private mutating func perform(_ action: Action, mark: [UInt8]) {
    defer { held.removeAll() }
    switch action {
    case .beginReasoning: state = .reasoning
    case .endReasoning:
      state = .text
      canReason = false
    case .separator: break
    case .call:
      state = .call(
        CallReader(
          syntax, index: callCount, before: held, isInObject: mark == [UInt8(ascii: "{")]))
    }
    dropsSpace = true
  }

  /// Gives out what is held, which is no mark.
  private mutating func release(_ pieces: inout [AnswerPiece]) {
    guard !held.isEmpty else { return }
    switch state {
    case .reasoning: pieces.add(.reasoning(held))
    case .ended: break
    case .text, .call:
      pieces.add(.text(held))
      if !held.allSatisfy(Self.isSpace) { (canReason, canCallPlainly) = (false, false) }
    }
    held.removeAll()
    dropsSpace = false
  }

  // MARK: Calls

  private mutating func follow(
    _ result: CallReader.Result, _ reader: CallReader, _ byte: UInt8,
    to pieces: inout [AnswerPiece]
  ) {
    if reader.callCount > callCount { (callCount, canReason) = (reader.callCount, false) }
    switch result {
    case .more: if reader.isBetweenCalls, !syntax.allowsManyCalls { state = .ended }
    case .end:
      state = syntax.allowsManyCalls ? .text : .ended
      dropsSpace = true
    case .bad:
      giveUp(reader, to: &pieces)
      take(byte, to: &pieces)
    }
  }

  /// Ends a call that is none, or breaks off: what was not given out is text.
  private mutating func giveUp(_ reader: CallReader, to pieces: inout [AnswerPiece]) {
    guard callCount == 0 || syntax.allowsManyCalls else {
      state = .ended
      return
    }
    state = .text
    dropsSpace = callCount > 0
    // Its mark is not to be taken for the same call's again.
    held = reader.before
    release(&pieces)
    for byte in reader.unread { take(byte, to: &pieces) }
  }
}
