package import Jinja
package import ModelFormat

extension Value {
  /// A value of a template from JSON; all of its texts are marked as data, keys too.
  ///
  /// - Throws: `JinjaError` for what has no value, such as half a surrogate pair.
  package init(data json: JSONValue) throws(JinjaError) {
    switch json.content {
    case .null: self = .null
    case .bool(let value): self = .bool(value)
    case .integer(let value): self = .integer(value)
    case .wideInteger(let digits): self = .integer(digits: digits.utf8) ?? .null
    case .number(let value): self = .float(value)
    case .string(let string): self = .text(string, isData: true)
    case .array(let elements):
      var values: [Value] = []
      for element in elements { values.append(try Value(data: element)) }
      self = try .list(of: values)
    case .object(let members):
      var pairs: [(key: MarkedText, value: Value)] = []
      for member in members {
        pairs.append((MarkedText(member.key, isData: true), try Value(data: member.value)))
      }
      self = .dictionary(try Mapping(pairs))
    case .unusable(let what): throw JinjaError(.value, "\(what) cannot be given to a template")
    }
  }
}
