import ModelFormat

/// Cuts text into the pieces within which a model makes tokens.
///
/// Every stage cuts the pieces of the stage before, or rewrites them.
struct PreTokenizer: Sendable {
  private enum Stage: Sendable {
    case matches(RegularExpression)
    /// Cuts as ``SplitPieces`` says.
    case split(TextPattern, TokenizerPipeline.Behavior, inverted: Bool)
    case digitsFromRight(RegularExpression)
    case thousands
    /// The stages after it see GPT-2's alphabet.
    case byteLevel
    case spacePrefix
    case metaspace([UInt8], TokenizerPipeline.Prepending)

    var rewrites: Bool {
      switch self {
      case .spacePrefix, .metaspace, .split(_, .removed, _): true
      default: false
      }
    }
  }

  private let stages: [Stage]
  private let usesPatterns: Bool

  /// - Throws: `unsupportedPattern`, `patternFailed`, `unsupportedStep`.
  init(_ steps: [TokenizerPipeline.PreTokenizer]) throws(TokenizerError) {
    var stages: [Stage] = []
    for (index, step) in steps.enumerated() {
      switch step {
      case .split(.regex(let pattern), .isolated, _):
        stages.append(.matches(try RegularExpression(pattern)))
      case .split(let pattern, let behavior, let inverted):
        stages.append(.split(try TextPattern(pattern), behavior, inverted: inverted))
      case .digitGroups: stages.append(.digitsFromRight(try RegularExpression(#"\p{N}+"#)))
      case .thousands: stages.append(.thousands)
      case .spacePrefix: stages.append(.spacePrefix)
      case .metaspace(let replacement, let prepending):
        stages.append(.metaspace(Array(replacement.utf8), prepending))
      case .byteLevel where index + 1 == steps.count: break
      case .byteLevel: stages.append(.byteLevel)
      }
    }
    if let place = steps.firstIndex(of: .byteLevel) {
      let after = stages.suffix(steps.count - place - 1)
      if steps[(place + 1)...].contains(.byteLevel) || after.contains(where: \.rewrites) {
        throw .unsupportedStep("a step after ByteLevel that changes text")
      }
    }
    self.stages = stages
    usesPatterns = stages.contains {
      switch $0 {
      case .matches, .split, .digitsFromRight: true
      default: false
      }
    }
  }

  /// Calls `body` with every piece of `text` in order.
  ///
  /// Bytes that are no UTF-8 are cut as U+FFFD would be, each as one character, and become it where a stage
  /// rewrites the text.
  ///
  /// - Parameter startsText: whether nothing stands before the text.
  func forEachPiece(
    of text: UnsafeBufferPointer<UInt8>, startsText: Bool,
    _ matcher: borrowing RegularExpression.Matcher,
    _ body: (UnsafeBufferPointer<UInt8>) throws(TokenizerError) -> Void
  ) throws(TokenizerError) {
    if text.isEmpty { return }
    let whole = [UInt32(text.count)]
    if UTF8Scanner.isValid(text) {
      return try run(stages[...], text, whole, startsText, matcher, body)
    }
    let repaired = RepairedText(text)
    try repaired.bytes.withUnsafeBufferPointer { valid throws(TokenizerError) in
      let whole = [UInt32(valid.count)]
      if stages.contains(where: \.rewrites) {
        return try run(stages[...], valid, whole, startsText, matcher, body)
      }
      let ends = repaired.originalOffsets(try cut(stages[...], valid, whole, matcher))
      try Self.forEach(ends, of: text, body)
    }
  }

  private static func forEach(
    _ ends: [UInt32], of text: UnsafeBufferPointer<UInt8>,
    _ body: (UnsafeBufferPointer<UInt8>) throws(TokenizerError) -> Void
  ) throws(TokenizerError) {
    var start = 0
    // Two ends are one where both lie in a byte that is no UTF-8.
    for end in ends where Int(end) > start {
      try body(UnsafeBufferPointer(rebasing: text[start..<Int(end)]))
      start = Int(end)
    }
  }

  /// Cuts up to the next stage that rewrites; goes on with what that makes.
  private func run(
    _ stages: ArraySlice<Stage>, _ text: UnsafeBufferPointer<UInt8>, _ ends: [UInt32],
    _ startsText: Bool, _ matcher: borrowing RegularExpression.Matcher,
    _ body: (UnsafeBufferPointer<UInt8>) throws(TokenizerError) -> Void
  ) throws(TokenizerError) {
    guard let place = stages.firstIndex(where: \.rewrites) else {
      return try Self.forEach(try cut(stages, text, ends, matcher), of: text, body)
    }
    let ends = try cut(stages[..<place], text, ends, matcher)
    let isYoung = UnicodeTable.hasYoung(text)
    var rewritten = RewrittenPieces(startsText: startsText)
    for index in ends.indices {
      let start = index == 0 ? 0 : Int(ends[index - 1])
      let piece = UnsafeBufferPointer(rebasing: text[start..<Int(ends[index])])
      switch stages[place] {
      case .spacePrefix: rewritten.appendWithSpace(piece)
      case .metaspace(let replacement, let prepending):
        rewritten.append(piece, replacement: replacement, prepending)
      case .split(let pattern, .removed, let inverted):
        let segments = try pattern.segments(of: piece, isYoung: isYoung, matcher)
        rewritten.append(piece, segments: segments, removing: !inverted)
      default: preconditionFailure("not a stage that rewrites")
      }
    }
    guard !rewritten.ends.isEmpty else { return }
    try rewritten.bytes.withUnsafeBufferPointer { bytes throws(TokenizerError) in
      try run(
        stages[(place + 1)...], bytes, rewritten.ends, rewritten.startsText, matcher, body)
    }
  }

  /// The ends of the pieces that stages without rewriting make of pieces that end at `ends`.
  private func cut(
    _ stages: ArraySlice<Stage>, _ text: UnsafeBufferPointer<UInt8>, _ ends: [UInt32],
    _ matcher: borrowing RegularExpression.Matcher
  ) throws(TokenizerError) -> [UInt32] {
    var ends = ends
    let isYoung = usesPatterns && UnicodeTable.hasYoung(text)
    for (index, stage) in zip(stages.indices, stages) {
      if case .byteLevel = stage {
        let mapped = ByteAlphabet.encode(text, ends)
        let cut = try mapped.bytes.withUnsafeBufferPointer { bytes throws(TokenizerError) in
          try self.cut(stages[(index + 1)...], bytes, mapped.ends, matcher)
        }
        return ByteAlphabet.byteCounts(of: mapped.bytes, upTo: cut)
      }
      var next: [UInt32] = []
      next.reserveCapacity(ends.count)
      var start = 0
      for end in ends {
        let piece = UnsafeBufferPointer(rebasing: text[start..<Int(end)])
        try apply(stage, to: piece, at: start, isYoung, matcher, &next)
        if next.last ?? 0 < end { next.append(end) }
        start = Int(end)
      }
      ends = next
    }
    return ends
  }

  /// Appends the ends that `stage` finds in a piece that begins at `base` of the text.
  private func apply(
    _ stage: Stage, to piece: UnsafeBufferPointer<UInt8>, at base: Int, _ isYoung: Bool,
    _ matcher: borrowing RegularExpression.Matcher, _ ends: inout [UInt32]
  ) throws(TokenizerError) {
    switch stage {
    case .matches(let expression):
      var last = 0
      try matcher.forEachMatch(of: expression, in: piece, isYoung: isYoung) { match in
        if match.lowerBound > last { ends.append(UInt32(base + match.lowerBound)) }
        if match.upperBound > match.lowerBound { ends.append(UInt32(base + match.upperBound)) }
        last = match.upperBound
      }
    case .split(let pattern, let behavior, let inverted):
      let segments = try pattern.segments(of: piece, isYoung: isYoung, matcher)
      SplitPieces.appendEnds(segments, behavior, inverted: inverted) {
        ends.append(UInt32(base + $0))
      }
    case .digitsFromRight(let expression):
      try matcher.forEachMatch(of: expression, in: piece, isYoung: isYoung) { run in
        Self.cutFromRight(piece, run) { ends.append(UInt32(base + $0)) }
      }
    case .thousands:
      Self.cutThousands(piece) { ends.append(UInt32(base + $0)) }
    case .byteLevel, .spacePrefix, .metaspace: preconditionFailure("not a stage that cuts")
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
