import CPCRE2
import Jinja
import Synchronization

/// A pattern in Oniguruma's syntax, compiled for PCRE2 over UTF-8 and applied from match to match.
///
/// It is compiled by JIT if that is permitted. Text with characters that PCRE2 may not know is matched by a
/// second form of it, with all properties written out, which is compiled when it is needed first.
final class RegularExpression: Sendable {
  let pattern: String
  private let plain: Compiled
  private let expandedPattern: String?
  private let expanded = Mutex<Compiled?>(nil)

  /// - Throws: `unsupportedPattern`, or `patternFailed` where PCRE2 refuses the translation.
  init(_ pattern: String) throws(TokenizerError) {
    self.pattern = pattern
    let translation = try Oniguruma.translate(pattern)
    plain = try Compiled(translation.plain, of: pattern)
    expandedPattern = translation.expanded
  }

  /// What text is matched with.
  ///
  /// - Parameter isYoung: whether the text has characters younger than Unicode 14.
  fileprivate func code(isYoung: Bool) throws(TokenizerError) -> Compiled {
    guard let expandedPattern, isYoung else { return plain }
    let result = expanded.withLock { known in
      Result { () throws(TokenizerError) in
        if let known { return known }
        let compiled = try Compiled(expandedPattern, of: pattern)
        known = compiled
        return compiled
      }
    }
    return try result.get()
  }

  fileprivate final class Compiled: @unchecked Sendable {
    // Safety: a compiled pattern is not written to after `init`; match data belong to one `Matcher`.
    let code: OpaquePointer

    init(_ translation: String, of pattern: String) throws(TokenizerError) {
      let bytes = Array(translation.utf8)
      var errorCode: Int32 = 0
      var errorOffset = 0
      guard
        let code = pcre2_compile_8(
          bytes, bytes.count, PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_USE_OFFSET_LIMIT,
          &errorCode, &errorOffset, nil)
      else { throw .patternFailed(pattern: pattern, code: errorCode) }
      self.code = code
      // Where executable memory is forbidden this fails and matching is interpreted.
      _ = pcre2_jit_compile_8(code, UInt32(PCRE2_JIT_COMPLETE))
    }

    deinit { pcre2_code_free_8(code) }
  }

  /// Match memory of one thread.
  struct Matcher: ~Copyable {
    /// Places where PCRE2 may begin a match in one call, in which time cannot be looked at.
    private static let reach = 32

    private let data: OpaquePointer
    private let context: OpaquePointer
    /// What matching may take of the processor, for all that this matcher is used for. Sound patterns take
    /// less than a tenth of a microsecond for a byte.
    private let time = TimeLimit(nanoseconds: 1_000_000_000)

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

    /// Calls `body` with every match in order; an empty one only where it does not follow a match.
    ///
    /// - Parameters:
    ///   - text: well-formed UTF-8. Nothing outside of it is seen: `$` may be its end.
    ///   - isYoung: whether it has characters younger than Unicode 14.
    /// - Throws: `patternFailed` when a match takes more steps, or all of them more time, than those of any
    ///   sound pattern.
    func forEachMatch(
      of expression: RegularExpression, in text: UnsafeBufferPointer<UInt8>, isYoung: Bool,
      _ body: (Range<Int>) -> Void
    ) throws(TokenizerError) {
      // Sound patterns take a few steps per byte: the limits stop a mistake, not a long text. PCRE2 counts
      // the steps of a match, and begins anew wherever one may begin; time is what all take together.
      let limit = 1_000_000 + 16 * min(text.count, Int(UInt32.max) / 32)
      pcre2_set_match_limit_8(context, UInt32(limit))
      time.allow(nanoseconds: 5_000 * text.count)
      let code = try expression.code(isYoung: isYoung).code
      var position = 0
      var lastEnd = -1
      while position <= text.count {
        if time.isOver {
          throw .patternFailed(pattern: expression.pattern, code: PCRE2_ERROR_MATCHLIMIT)
        }
        let last = position + Self.reach
        pcre2_set_offset_limit_8(context, last)
        var status = match(code, text, from: position, options: 0)
        if status == PCRE2_ERROR_JIT_STACKLIMIT {
          status = match(code, text, from: position, options: PCRE2_NO_JIT)
        }
        if status == PCRE2_ERROR_NOMATCH {
          if last >= text.count { return }
          // Where the next character begins.
          position = last + 1
          while position < text.count, text[position] & 0xC0 == 0x80 { position += 1 }
          continue
        }
        guard status >= 0, let offsets = pcre2_get_ovector_pointer_8(data) else {
          throw .patternFailed(pattern: expression.pattern, code: status)
        }
        let (start, end) = (offsets[0], offsets[1])
        if end > start || end != lastEnd {
          body(start..<end)
          lastEnd = end
          position = end
        } else {
          guard position < text.count else { return }
          position += UTF8Scanner.symbolLength(in: text, at: position)
        }
      }
    }

    private func match(
      _ code: OpaquePointer, _ text: UnsafeBufferPointer<UInt8>, from position: Int, options: UInt32
    ) -> Int32 {
      pcre2_match_8(
        code, text.baseAddress, text.count, position, options | PCRE2_NO_UTF_CHECK, data, context)
    }
  }
}
