/// A template, parsed: the Jinja that transformers accepts for chat templates, in a sandbox.
///
/// Renders what jinja2's `ImmutableSandboxedEnvironment` renders with `trim_blocks`, `lstrip_blocks`, loop
/// controls and transformers' own functions and `tojson`, and fails where that raises.
package struct Template: @unchecked Sendable {
  // Safety: what it holds is never changed after parsing; constants among it are plain values.
  private let body: [Statement]
  private let source: [UInt8]
  package var byteCount: Int { source.count }
  /// The texts that the template can write: those outside tags, and string literals.
  package let literals: [[UInt8]]
  /// The names of variables, functions and macros that expressions read.
  package let names: Set<String>

  /// Parses a template.
  ///
  /// - Throws: `JinjaError` with line and column, where it is not a template.
  package init(_ source: [UInt8]) throws(JinjaError) {
    self.source = Lexer.normalised(source)
    do throws(JinjaError) {
      (body, literals, names) = try Parser.parse(self.source)
    } catch { throw error.located(in: Lexer.normalised(source)) }
  }

  package init(_ source: String) throws(JinjaError) { try self.init(Array(source.utf8)) }

  /// Renders the template.
  ///
  /// - Parameters:
  ///   - variables: what the template finds under which name.
  ///   - inputByteCount: bytes of text in the variables, for the limits.
  ///   - clock: the time that `strftime_now` tells.
  /// - Throws: `JinjaError` with line and column.
  package func render(
    _ variables: [(name: String, value: Value)], inputByteCount: Int, clock: Clock = .now
  ) throws(JinjaError) -> MarkedText {
    let limits = Limits(templateByteCount: source.count, inputByteCount: inputByteCount)
    return try render(variables, limits, clock).text
  }

  /// As `render(_:inputByteCount:clock:)`, and says what it used.
  package func render(
    _ variables: [(name: String, value: Value)], _ limits: Limits, _ clock: Clock
  ) throws(JinjaError) -> (text: MarkedText, steps: Int, values: Int) {
    let meter = Meter(limits)
    do throws(JinjaError) {
      let text = try Interpreter(meter, clock).render(body, variables)
      return (text, meter.steps, meter.values)
    } catch { throw error.located(in: source) }
  }
}
