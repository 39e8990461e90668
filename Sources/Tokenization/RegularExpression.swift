import CPCRE2

/// A compiled PCRE2 pattern over UTF-8, applied from match to match.
///
/// `\s` and `\S` are Unicode's White_Space here, as in the libraries the patterns were written for;
/// PCRE2's own would include U+180E. The pattern is compiled by JIT if that is permitted.
final class RegularExpression: @unchecked Sendable {
  // Safety: a compiled pattern is not written to after `init`; match data belong to one `Matcher`.
  private let code: OpaquePointer
  let pattern: String

  private static let whiteSpace =
    #"\x09-\x0d\x20\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000}"#

  init(_ pattern: String) throws(TokenizerError) {
    self.pattern = pattern
    let bytes = Array(Self.expandingWhiteSpace(pattern).utf8)
    var errorCode: Int32 = 0
    var errorOffset = 0
    guard
      let code = pcre2_compile_8(
        bytes, bytes.count, PCRE2_UTF | PCRE2_UCP | PCRE2_DOLLAR_ENDONLY, &errorCode, &errorOffset,
        nil)
    else { throw .patternFailed(pattern: pattern, code: errorCode) }
    self.code = code
    // Where executable memory is forbidden this fails and matching is interpreted.
    _ = pcre2_jit_compile_8(code, UInt32(PCRE2_JIT_COMPLETE))
  }

  deinit { pcre2_code_free_8(code) }

  /// Replaces `\s` by its code points, inside and outside of classes, and `\S` outside of them.
  private static func expandingWhiteSpace(_ pattern: String) -> String {
    var result = ""
    var isInClass = false
    var isEscaped = false
    for character in pattern {
      if isEscaped {
        isEscaped = false
        switch character {
        case "s": result += isInClass ? whiteSpace : "[\(whiteSpace)]"
        case "S": result += "[^\(whiteSpace)]"
        default: result += "\\\(character)"
        }
        continue
      }
      switch character {
      case "\\": isEscaped = true
      case "[":
        result += isInClass ? #"\["# : "["
        isInClass = true
      case "]":
        result += "]"
        isInClass = false
      default: result.append(character)
      }
    }
    return result
  }

  /// Match memory of one thread.
  struct Matcher: ~Copyable {
    private let data: OpaquePointer
    private let context: OpaquePointer

    init() throws(TokenizerError) {
      guard let data = pcre2_match_data_create_8(16, nil) else {
        throw .patternFailed(pattern: "", code: PCRE2_ERROR_NOMEMORY)
      }
      guard let context = pcre2_match_context_create_8(nil) else {
        pcre2_match_data_free_8(data)
        throw .patternFailed(pattern: "", code: PCRE2_ERROR_NOMEMORY)
      }
      self.data = data
      self.context = context
    }

    deinit {
      pcre2_match_context_free_8(context)
      pcre2_match_data_free_8(data)
    }

    /// Calls `body` with every match in order; empty matches are passed over.
    ///
    /// - Parameter text: well-formed UTF-8. Nothing outside of it is seen: `$` is its end.
    /// - Throws: `patternFailed` when a match takes more steps than any pattern of ours needs.
    func forEachMatch(
      of expression: RegularExpression, in text: UnsafeBufferPointer<UInt8>,
      _ body: (Range<Int>) -> Void
    ) throws(TokenizerError) {
      // Our patterns take a few steps per byte: the limit stops a mistake, not a long text.
      let limit = 1_000_000 + 64 * min(text.count, Int(UInt32.max) / 128)
      pcre2_set_match_limit_8(context, UInt32(limit))
      var position = 0
      while position < text.count {
        var status = match(expression, text, from: position, options: 0)
        if status == PCRE2_ERROR_JIT_STACKLIMIT {
          status = match(expression, text, from: position, options: PCRE2_NO_JIT)
        }
        if status == PCRE2_ERROR_NOMATCH { return }
        guard status >= 0, let offsets = pcre2_get_ovector_pointer_8(data) else {
          throw .patternFailed(pattern: expression.pattern, code: status)
        }
        if offsets[1] > offsets[0] {
          body(offsets[0]..<offsets[1])
          position = offsets[1]
        } else {
          let end = max(position, offsets[1])
          guard end < text.count else { return }
          position = end + UTF8Scanner.symbolLength(in: text, at: end)
        }
      }
    }

    private func match(
      _ expression: RegularExpression, _ text: UnsafeBufferPointer<UInt8>, from position: Int,
      options: UInt32
    ) -> Int32 {
      pcre2_match_8(
        expression.code, text.baseAddress, text.count, position, options | PCRE2_NO_UTF_CHECK,
        data, context)
    }
  }
}
