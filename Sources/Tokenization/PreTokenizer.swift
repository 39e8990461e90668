/// Cuts text into the pieces within which byte pairs are merged.
///
/// Every stage cuts the pieces of the stage before; what a stage's pattern does not match stays
/// together between the matches.
struct PreTokenizer: Sendable {
  private enum Stage: Sendable {
    case matches(RegularExpression)
    case newlines
    case digitsFromRight(RegularExpression)
    case thousands
  }

  private let stages: [Stage]

  init(_ rule: PreTokenizerRule) throws(TokenizerError) {
    var stages: [Stage] = []
    for stage in rule.stages {
      switch stage {
      case .matches(let pattern): stages.append(.matches(try RegularExpression(pattern)))
      case .newlines: stages.append(.newlines)
      case .digitsFromRight: stages.append(.digitsFromRight(try RegularExpression(#"\p{N}+"#)))
      case .thousands: stages.append(.thousands)
      }
    }
    self.stages = stages
  }

  /// Ends of the pieces of `text`, ascending; the last is the end of the text.
  ///
  /// Bytes that are no UTF-8 are cut as U+FFFD would be, each as one character.
  func pieceEnds(
    of text: UnsafeBufferPointer<UInt8>, _ matcher: borrowing RegularExpression.Matcher
  ) throws(TokenizerError) -> [UInt32] {
    if UTF8Scanner.isValid(text) { return try validPieceEnds(of: text, matcher) }
    let repaired = RepairedText(text)
    let bytes = repaired.bytes
    let ends = try bytes.withUnsafeBufferPointer { valid throws(TokenizerError) in
      try validPieceEnds(of: valid, matcher)
    }
    return repaired.originalOffsets(ends)
  }

  private func validPieceEnds(
    of text: UnsafeBufferPointer<UInt8>, _ matcher: borrowing RegularExpression.Matcher
  ) throws(TokenizerError) -> [UInt32] {
    var ends = text.isEmpty ? [] : [UInt32(text.count)]
    for stage in stages {
      var next: [UInt32] = []
      next.reserveCapacity(ends.count)
      var start = 0
      for end in ends {
        let piece = UnsafeBufferPointer(rebasing: text[start..<Int(end)])
        try apply(stage, to: piece, at: start, matcher, &next)
        if next.last ?? 0 < end { next.append(end) }
        start = Int(end)
      }
      ends = next
    }
    return ends
  }

  /// Appends the ends that `stage` finds in a piece that begins at `base` of the text.
  private func apply(
    _ stage: Stage, to piece: UnsafeBufferPointer<UInt8>, at base: Int,
    _ matcher: borrowing RegularExpression.Matcher, _ ends: inout [UInt32]
  ) throws(TokenizerError) {
    switch stage {
    case .matches(let expression):
      var last = 0
      try matcher.forEachMatch(of: expression, in: piece) { match in
        if match.lowerBound > last { ends.append(UInt32(base + match.lowerBound)) }
        ends.append(UInt32(base + match.upperBound))
        last = match.upperBound
      }
    case .newlines:
      for index in 1..<max(1, piece.count)
      where (piece[index] == 0x0A) != (piece[index - 1] == 0x0A) {
        ends.append(UInt32(base + index))
      }
    case .digitsFromRight(let expression):
      try matcher.forEachMatch(of: expression, in: piece) { run in
        Self.cutFromRight(piece, run) { ends.append(UInt32(base + $0)) }
      }
    case .thousands:
      Self.cutThousands(piece) { ends.append(UInt32(base + $0)) }
    }
  }

  /// Ends of groups of three digits that are complete at the right; the first group keeps what
  /// stands before it.
  private static func cutFromRight(
    _ piece: UnsafeBufferPointer<UInt8>, _ run: Range<Int>, _ body: (Int) -> Void
  ) {
    var digits = 0
    var position = run.lowerBound
    while position < run.upperBound {
      position += UTF8Scanner.symbolLength(in: piece, at: position)
      digits += 1
    }
    position = run.lowerBound
    for digit in 1...max(1, digits) {
      position += UTF8Scanner.symbolLength(in: piece, at: position)
      if (digits - digit) % 3 == 0 { body(position) }
    }
  }

  /// Cuts before every ASCII digit from which a multiple of three digits is left in its run.
  private static func cutThousands(_ piece: UnsafeBufferPointer<UInt8>, _ body: (Int) -> Void) {
    var start = 0
    while start < piece.count {
      var end = start
      while end < piece.count, (0x30...0x39).contains(piece[end]) { end += 1 }
      for position in start..<end where position > 0 && (end - position) % 3 == 0 {
        body(position)
      }
      start = max(end, start + 1)
    }
  }
}

/// Text with U+FFFD for every byte that is no UTF-8, and the way back to the original's offsets.
private struct RepairedText {
  private(set) var bytes: [UInt8] = []
  /// Offsets in ``bytes`` of the replacements, ascending.
  private var replacements: [UInt32] = []

  init(_ text: UnsafeBufferPointer<UInt8>) {
    bytes.reserveCapacity(text.count + text.count / 4)
    var position = 0
    while position < text.count {
      if case .character(let count) = UTF8Scanner.unit(in: text, at: position) {
        bytes.append(contentsOf: text[position..<position + count])
        position += count
      } else {
        replacements.append(UInt32(bytes.count))
        bytes.append(contentsOf: UTF8Scanner.replacement)
        position += 1
      }
    }
  }

  /// Offsets in the original text of ascending character boundaries in ``bytes``.
  func originalOffsets(_ offsets: [UInt32]) -> [UInt32] {
    var before = 0
    return offsets.map { offset in
      while before < replacements.count, replacements[before] < offset { before += 1 }
      return offset - UInt32(before * (UTF8Scanner.replacement.count - 1))
    }
  }
}
