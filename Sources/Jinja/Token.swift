/// A part of a template's source.
struct Token {
  enum Kind: Equatable {
    /// Text outside tags.
    case data([UInt8])
    case variableBegin
    case variableEnd
    case blockBegin
    case blockEnd
    case name(String)
    case string([UInt8])
    case integer(WideInteger)
    case float(Double)
    /// An operator or bracket, as it is written.
    case symbol(String)
    case end
  }

  let kind: Kind
  /// Byte offset in the source.
  let offset: Int

  /// What an error calls it.
  var description: String {
    switch kind {
    case .data: "text"
    case .variableBegin: "'{{'"
    case .variableEnd: "'}}'"
    case .blockBegin: "'{%'"
    case .blockEnd: "'%}'"
    case .name(let name): "'\(name)'"
    case .string: "a string"
    case .integer, .float: "a number"
    case .symbol(let symbol): "'\(symbol)'"
    case .end: "the end of the template"
    }
  }
}
