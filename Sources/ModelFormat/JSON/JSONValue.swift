/// A JSON document that keeps what `JSONDecoder` loses: byte offsets, doubled keys, and keys that
/// are canonically equivalent but of different bytes (two tokens of a vocabulary, not one).
package struct JSONValue {
  package enum Content {
    case null
    case bool(Bool)
    /// A number that is an integer, as written, and fits.
    case integer(Int)
    /// An integer that does not fit, as written.
    case wideInteger(String)
    case number(Double)
    case string(String)
    case array([JSONValue])
    case object([JSONMember])
    /// What other readers accept and no value can stand for, as it is to be called: `NaN`, a number
    /// beyond all doubles, half a surrogate pair. It is an error only where it is used.
    case unusable(String)
  }

  package let content: Content
  /// Where it begins in the document.
  package let offset: Int

  package init(content: Content, offset: Int) {
    self.content = content
    self.offset = offset
  }

  /// What it is, for errors about what should be there instead.
  package var found: String {
    switch content {
    case .null: "null"
    case .bool(let value): "\(value)"
    case .integer(let value): "\(value)"
    case .wideInteger(let digits): "\(digits.prefix(32))"
    case .number(let value): "\(value)"
    case .string(let value): "\"\(value.prefix(32))\(value.count > 32 ? "…" : "")\""
    case .array: "an array"
    case .object: "an object"
    case .unusable(let what): what
    }
  }

  var isUnusable: Bool { if case .unusable = content { true } else { false } }

  package var isNull: Bool { if case .null = content { true } else { false } }

  package var bool: Bool? { if case .bool(let value) = content { value } else { nil } }

  package var integer: Int? { if case .integer(let value) = content { value } else { nil } }

  /// Any number.
  package var double: Double? {
    switch content {
    case .integer(let value): Double(value)
    case .wideInteger(let digits): Double(digits)
    case .number(let value): value
    default: nil
    }
  }

  package var string: String? { if case .string(let value) = content { value } else { nil } }

  package var array: [JSONValue]? { if case .array(let values) = content { values } else { nil } }

  package var members: [JSONMember]? {
    if case .object(let members) = content { members } else { nil }
  }

  /// The member called `key`, unless it is null; the last one where there are several.
  package subscript(key: StaticString) -> JSONValue? {
    guard let members else { return nil }
    let wanted = UnsafeBufferPointer(start: key.utf8Start, count: key.utf8CodeUnitCount)
    guard let match = members.last(where: { $0.key.utf8.elementsEqual(wanted) }) else { return nil }
    return match.value.isNull ? nil : match.value
  }
}

/// One `"key": value` of an object.
package struct JSONMember {
  package let key: String
  package let value: JSONValue

  package init(key: String, value: JSONValue) {
    self.key = key
    self.value = value
  }
}

/// A string whose equality is that of its bytes; `String`'s own is canonical equivalence.
package struct ExactString: Hashable, Sendable {
  package let text: String

  package init(_ text: String) { self.text = text }

  package static func == (left: ExactString, right: ExactString) -> Bool {
    left.text.utf8.elementsEqual(right.text.utf8)
  }

  package func hash(into hasher: inout Hasher) {
    var text = text
    text.withUTF8 { hasher.combine(bytes: UnsafeRawBufferPointer($0)) }
  }
}
