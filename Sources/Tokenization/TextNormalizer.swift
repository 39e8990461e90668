import CUTF8Proc
import Glibc
import ModelFormat

/// Changes text before it is cut, step by step. Bytes that are no UTF-8 become U+FFFD.
struct TextNormalizer: Sendable {
  private enum Step: Sendable {
    case composed(UInt32)
    case lowercase
    case stripAccents
    case strip(left: Bool, right: Bool)
    case prepend([UInt8])
    case replace(TextPattern, [UInt8])
  }

  private let steps: [Step]
  /// Far more than any tokenizer has; each reads the whole text.
  private static let maximumStepCount = 64

  init(_ normalizers: [TokenizerPipeline.Normalizer]) throws(TokenizerError) {
    var steps: [Step] = []
    guard normalizers.count <= Self.maximumStepCount else {
      throw .unsupportedStep("more than \(Self.maximumStepCount) normalisers")
    }
    for normalizer in normalizers {
      switch normalizer {
      case .unicode(let form):
        let isCompatible = form == .nfkc || form == .nfkd
        let composes = form == .nfc || form == .nfkc
        steps.append(
          .composed(
            UTF8PROC_STABLE.rawValue
              | (composes ? UTF8PROC_COMPOSE.rawValue : UTF8PROC_DECOMPOSE.rawValue)
              | (isCompatible ? UTF8PROC_COMPAT.rawValue : 0)))
      case .lowercase: steps.append(.lowercase)
      case .stripAccents: steps.append(.stripAccents)
      case .strip(let left, let right): steps.append(.strip(left: left, right: right))
      case .prepend(let text): steps.append(.prepend(Array(text.utf8)))
      case .replace(let pattern, let text):
        steps.append(.replace(try TextPattern(pattern), Array(text.utf8)))
      }
    }
    self.steps = steps
  }

  /// Whether text stays as it is.
  var isEmpty: Bool { steps.isEmpty }

  /// What `text` becomes.
  func normalized(
    _ text: UnsafeBufferPointer<UInt8>, _ matcher: borrowing RegularExpression.Matcher
  ) throws(TokenizerError) -> [UInt8] {
    var result = UTF8Scanner.isValid(text) ? Array(text) : RepairedText(text).bytes
    // No text grows so much but by steps that are made to.
    let limit = 1 << 20 + 64 * text.count
    for step in steps {
      switch step {
      case .composed(let options): result = try Self.composed(result, options)
      case .lowercase: result = Self.mapped(result, Self.appendLowercase)
      case .stripAccents:
        result = Self.mapped(result) { codePoint, bytes, output in
          // Marks are the categories 5, 6 and 7.
          if codePoint < 0x300 || !(5...7).contains(UnicodeTable.category(of: codePoint)) {
            output.append(contentsOf: bytes)
          }
        }
      case .strip(let left, let right): result = Self.stripped(result, left: left, right: right)
      case .prepend(let text):
        guard result.count + text.count <= limit else {
          throw .unsupportedStep("replacements that make a text too long")
        }
        if !result.isEmpty { result = text + result }
      case .replace(let pattern, let text):
        result = try Self.replacing(pattern, with: text, in: result, limit: limit, matcher)
      }
    }
    return result
  }

  private static func replacing(
    _ pattern: TextPattern, with text: [UInt8], in input: [UInt8], limit: Int,
    _ matcher: borrowing RegularExpression.Matcher
  ) throws(TokenizerError) -> [UInt8] {
    var output: [UInt8] = []
    output.reserveCapacity(input.count + input.count / 2)
    var isTooLong = false
    try input.withUnsafeBufferPointer { bytes throws(TokenizerError) in
      if bytes.isEmpty { return }
      var last = 0
      let isYoung = UnicodeTable.hasYoung(bytes)
      try pattern.forEachMatch(in: bytes, isYoung: isYoung, matcher) { match in
        isTooLong = isTooLong || output.count + text.count > limit
        if isTooLong { return }
        output.append(contentsOf: bytes[last..<match.lowerBound])
        output.append(contentsOf: text)
        last = match.upperBound
      }
      output.append(contentsOf: bytes[last...])
    }
    if isTooLong { throw .unsupportedStep("replacements that make a text too long") }
    return output
  }

  private static func composed(
    _ input: [UInt8], _ options: UInt32
  ) throws(TokenizerError) -> [UInt8] {
    if input.allSatisfy({ $0 < 0x80 }) { return input }
    var output: UnsafeMutablePointer<UInt8>?
    let count = input.withUnsafeBufferPointer { bytes in
      utf8proc_map(
        bytes.baseAddress, bytes.count, &output, utf8proc_option_t(rawValue: options))
    }
    guard count >= 0, let output else { throw .unsupportedStep("text that cannot be normalised") }
    defer { free(output) }
    return Array(UnsafeBufferPointer(start: output, count: count))
  }

  /// Every character changed by `change`, which is given its code point and its bytes.
  private static func mapped(
    _ input: [UInt8], _ change: (UInt32, ArraySlice<UInt8>, inout [UInt8]) -> Void
  ) -> [UInt8] {
    var output: [UInt8] = []
    output.reserveCapacity(input.count)
    input.withUnsafeBufferPointer { bytes in
      var position = 0
      while position < bytes.count {
        let (codePoint, count) = UTF8Scanner.codePoint(in: bytes, at: position)
        change(codePoint, input[position..<position + count], &output)
        position += count
      }
    }
    return output
  }

  private static func appendLowercase(
    _ codePoint: UInt32, _ bytes: ArraySlice<UInt8>, _ output: inout [UInt8]
  ) {
    // The only character that becomes two: I with a dot above.
    if codePoint == 0x130 { return output.append(contentsOf: [0x69, 0xCC, 0x87]) }
    let lower = utf8proc_tolower(Int32(codePoint))
    guard lower != codePoint, let scalar = Unicode.Scalar(UInt32(lower)) else {
      return output.append(contentsOf: bytes)
    }
    output.append(contentsOf: UTF8.encode(scalar)!)
  }

  private static func stripped(_ input: [UInt8], left: Bool, right: Bool) -> [UInt8] {
    input.withUnsafeBufferPointer { bytes in
      var (start, end) = (0, bytes.count)
      if left { start += WhiteSpace.count(after: 0, in: bytes) }
      if right { end -= WhiteSpace.count(before: end, in: bytes, from: start) }
      return Array(bytes[start..<end])
    }
  }
}

/// Runs of Unicode's white space in UTF-8.
enum WhiteSpace {
  /// Bytes of white space from `position` on.
  static func count(after position: Int, in bytes: UnsafeBufferPointer<UInt8>) -> Int {
    var end = position
    while end < bytes.count, case .character(let count) = UTF8Scanner.unit(in: bytes, at: end),
      UnicodeTable.isWhiteSpace(UTF8Scanner.codePoint(in: bytes, at: end).codePoint)
    {
      end += count
    }
    return end - position
  }

  /// Bytes of white space up to `position`, not before `lowest`.
  static func count(
    before position: Int, in bytes: UnsafeBufferPointer<UInt8>, from lowest: Int
  ) -> Int {
    var start = position
    while let previous = character(before: start, in: bytes, from: lowest),
      UnicodeTable.isWhiteSpace(previous.codePoint)
    {
      start -= previous.byteCount
    }
    return position - start
  }

  /// The well-formed character that ends at `position`, not beginning before `lowest`.
  static func character(
    before position: Int, in bytes: UnsafeBufferPointer<UInt8>, from lowest: Int
  ) -> (codePoint: UInt32, byteCount: Int)? {
    for count in 1...4 where position - count >= lowest && bytes[position - count] & 0xC0 != 0x80 {
      guard UTF8Scanner.unit(in: bytes, at: position - count) == .character(count) else {
        return nil
      }
      return UTF8Scanner.codePoint(in: bytes, at: position - count)
    }
    return nil
  }
}
