/// What a rendering may use.
package struct Limits: Sendable {
  /// Steps of the interpreter, and separately bytes it copies.
  package var work: Int
  /// Bytes of rendered text.
  package var output: Int
  /// Calls of macros inside each other, and levels of nested values.
  static let depth = 100
  /// Expressions and statements being evaluated inside each other.
  static let nesting = 1000
  /// Elements of a range.
  static let range = 100_000

  /// The bounds for a template and an input of so many bytes in all.
  package init(templateByteCount: Int, inputByteCount: Int) {
    work = 1_000_000 + 64 * (templateByteCount + inputByteCount)
    output = 16 << 20 + 4 * inputByteCount
  }
}

/// Counts what a rendering has used, and stops it at its limits.
final class Meter {
  private let limits: Limits
  private(set) var steps = 0
  private(set) var copied = 0

  init(_ limits: Limits) { self.limits = limits }

  /// Counts steps of the interpreter.
  func step(_ count: Int = 1) throws(JinjaError) {
    let (sum, overflow) = steps.addingReportingOverflow(count)
    if overflow || sum > limits.work {
      throw JinjaError(.limit, "rendering takes more than \(limits.work) steps")
    }
    steps = sum
  }

  /// Counts bytes before they are written.
  func copy(_ count: Int) throws(JinjaError) {
    let (sum, overflow) = copied.addingReportingOverflow(count)
    if overflow || sum > limits.work {
      throw JinjaError(.limit, "rendering copies more than \(limits.work) bytes")
    }
    copied = sum
  }

  /// Checks the size of the rendered text.
  func output(_ byteCount: Int) throws(JinjaError) {
    if byteCount > limits.output {
      throw JinjaError(.limit, "the rendered text has more than \(limits.output) bytes")
    }
  }
}
