/// Why a template does not parse, or why rendering it stopped.
package struct JinjaError: Error, Sendable, Equatable, CustomStringConvertible {
  package enum Kind: Sendable {
    /// The template is not Jinja, or names a filter or test that does not exist.
    case syntax
    /// The template called `raise_exception`.
    case raised
    /// An undefined value was used in a way that needs a value.
    case undefined
    /// An operation does not take values of these types.
    case type
    /// An argument of the right type has an impossible value.
    case value
    /// The sandbox forbids it.
    case security
    /// A bound of the sandbox was reached (`Limits`).
    case limit
    /// Jinja has it, and this interpreter does not.
    case unsupported
  }

  package let kind: Kind
  package let message: String
  /// Line and column of the template, from 1; 0 until the place is known.
  package private(set) var line = 0
  /// Counted in bytes.
  package private(set) var column = 0
  /// Byte offset in the template, until line and column are known.
  private(set) var offset: Int?

  package init(_ kind: Kind, _ message: String, at offset: Int? = nil) {
    self.kind = kind
    self.message = message
    self.offset = offset
  }

  /// The same error with its place, where it has none yet.
  func at(_ offset: Int) -> JinjaError {
    var error = self
    if error.offset == nil { error.offset = offset }
    return error
  }

  /// The same error with line and column in `source`, whose line ends are single line feeds.
  func located(in source: [UInt8]) -> JinjaError {
    var error = self
    let before = source.prefix(offset ?? 0)
    error.line = 1 + before.count { $0 == 0x0A }
    error.column = 1 + before.count - (before.lastIndex(of: 0x0A).map { $0 + 1 } ?? 0)
    return error
  }

  package var description: String {
    line == 0 ? message : "line \(line), column \(column): \(message)"
  }
}
