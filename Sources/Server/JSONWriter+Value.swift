import ModelFormat

extension JSONWriter {
  /// Writes a value that was parsed.
  mutating func value(_ key: String? = nil, _ value: JSONValue) {
    switch value.content {
    case .null, .unusable: null(key)
    case .bool(let flag): self.flag(key, flag)
    case .integer(let number): self.number(key, number)
    case .wideInteger(let digits): number(key, Double(digits))
    case .number(let number): self.number(key, number)
    case .string(let string): text(key, utf8: Array(string.utf8))
    case .array(let elements): array(key, of: elements) { $0.value(nil, $1) }
    case .object(let members):
      object(key) { json in for member in members { json.value(member.key, member.value) } }
    }
  }
}
