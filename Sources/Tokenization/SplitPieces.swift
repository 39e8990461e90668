import Jinja
import ModelFormat

/// Text cut by a pattern: matches, and what stands between them, without gaps.
struct SplitSegment {
  /// Where it ends; it begins where the one before ends.
  var end: Int
  var isMatch: Bool
}

/// A string or regular expression that is looked for.
enum TextPattern: Sendable {
  /// Of no bytes nothing is found.
  case text(ByteSearch?)
  case expression(RegularExpression)

  init(_ pattern: TokenizerPipeline.Pattern) throws(TokenizerError) {
    switch pattern {
    case .text(let text): self = .text(text.isEmpty ? nil : ByteSearch(Array(text.utf8)))
    case .regex(let pattern): self = .expression(try RegularExpression(pattern))
    }
  }

  /// Calls `body` with every match in well-formed `text`, in order.
  func forEachMatch(
    in text: UnsafeBufferPointer<UInt8>, isYoung: Bool,
    _ matcher: borrowing RegularExpression.Matcher, _ body: (Range<Int>) -> Void
  ) throws(TokenizerError) {
    switch self {
    case .text(let search):
      guard let search else { return }
      var position = 0
      while let start = search.place(in: text, position..<text.count) {
        position = start + search.needle.count
        body(start..<position)
      }
    case .expression(let expression):
      try matcher.forEachMatch(of: expression, in: text, isYoung: isYoung, body)
    }
  }

  /// `text` cut at every match.
  func segments(
    of text: UnsafeBufferPointer<UInt8>, isYoung: Bool,
    _ matcher: borrowing RegularExpression.Matcher
  ) throws(TokenizerError) -> [SplitSegment] {
    var segments: [SplitSegment] = []
    var last = 0
    try forEachMatch(in: text, isYoung: isYoung, matcher) { match in
      if match.lowerBound > last {
        segments.append(SplitSegment(end: match.lowerBound, isMatch: false))
      }
      segments.append(SplitSegment(end: match.upperBound, isMatch: true))
      last = match.upperBound
    }
    if last < text.count { segments.append(SplitSegment(end: text.count, isMatch: false)) }
    return segments
  }
}

/// What pieces the five behaviours of a split make.
enum SplitPieces {
  /// Calls `body` with the end of every piece; ``TokenizerPipeline/Behavior/removed`` cuts as isolated does.
  static func appendEnds(
    _ segments: [SplitSegment], _ behavior: TokenizerPipeline.Behavior, inverted: Bool,
    _ body: (Int) -> Void
  ) {
    // A piece ends between two segments unless they are joined.
    var joins = [Bool](repeating: false, count: segments.count)
    func isMatch(_ index: Int) -> Bool { segments[index].isMatch != inverted }
    for index in segments.indices.dropFirst() {
      joins[index] =
        switch behavior {
        case .isolated, .removed: false
        case .contiguous: isMatch(index) == isMatch(index - 1)
        case .mergedWithPrevious: isMatch(index) && !isMatch(index - 1)
        case .mergedWithNext: isMatch(index - 1) && !isMatch(index)
        }
    }
    for index in segments.indices where index + 1 == segments.count || !joins[index + 1] {
      body(segments[index].end)
    }
  }
}

/// Pieces of text that a stage writes anew, one after the other.
struct RewrittenPieces {
  private(set) var bytes: [UInt8] = []
  private(set) var ends: [UInt32] = []
  /// Whether the first piece begins where the text does.
  private(set) var startsText: Bool
  private var isFirst = true

  init(startsText: Bool) { self.startsText = startsText }

  private mutating func end() {
    isFirst = false
    if bytes.count > Int(ends.last ?? 0) { ends.append(UInt32(bytes.count)) }
  }

  /// A piece with a space before it, if it does not begin with one.
  mutating func appendWithSpace(_ piece: UnsafeBufferPointer<UInt8>) {
    if piece.first != 0x20 { bytes.append(0x20) }
    bytes.append(contentsOf: piece)
    end()
  }

  /// A piece with `replacement` for every space, and before it where `prepending` says so.
  mutating func append(
    _ piece: UnsafeBufferPointer<UInt8>, replacement: [UInt8],
    _ prepending: TokenizerPipeline.Prepending
  ) {
    let begins = piece.first == 0x20 || piece.starts(with: replacement)
    if !begins, prepending == .always || (prepending == .first && isFirst && startsText) {
      bytes.append(contentsOf: replacement)
    }
    for byte in piece {
      if byte == 0x20 { bytes.append(contentsOf: replacement) } else { bytes.append(byte) }
    }
    end()
  }

  /// The segments of a piece that match, or do not match, left out.
  mutating func append(
    _ piece: UnsafeBufferPointer<UInt8>, segments: [SplitSegment], removing isMatch: Bool
  ) {
    var start = 0
    for segment in segments {
      if segment.isMatch != isMatch {
        bytes.append(contentsOf: piece[start..<segment.end])
        end()
      } else if isFirst, segment.end > start {
        startsText = false
        isFirst = false
      }
      start = segment.end
    }
  }
}
