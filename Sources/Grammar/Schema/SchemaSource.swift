import ModelFormat

/// A part of a schema and where it lies.
struct LocatedSchema {
  let value: JSONValue
  /// JSON pointer, as a fragment: `#/properties/name`.
  let pointer: String

  func child(_ path: String..., value: JSONValue) -> LocatedSchema {
    LocatedSchema(
      value: value,
      pointer: path.reduce(pointer) { "\($0)/\(SchemaSource.escaped($1))" })
  }

  func error(_ reason: String) -> GrammarError { GrammarError(reason, at: .pointer(pointer)) }

  /// A keyword's value, null too.
  func member(_ name: String) -> JSONValue? {
    value.members?.last { $0.key == name }?.value
  }

  var isFalse: Bool { value.bool == false }
}

/// A schema's document: finds what its references name.
struct SchemaSource {
  let root: LocatedSchema
  private let identifier: String?
  /// Parts that have a name, by it.
  private var anchors: [String: LocatedSchema] = [:]

  init(_ schema: JSONValue) {
    root = LocatedSchema(value: schema, pointer: "#")
    identifier = root.member("$id")?.string ?? root.member("id")?.string
    var open = [root]
    while let part = open.popLast() {
      if let name = part.member("$anchor")?.string ?? part.member("$dynamicAnchor")?.string {
        anchors[name] = part
      }
      for member in part.value.members ?? [] {
        open.append(part.child(member.key, value: member.value))
      }
      for (index, element) in (part.value.array ?? []).enumerated() {
        open.append(part.child("\(index)", value: element))
      }
    }
  }

  static func escaped(_ key: String) -> String {
    key.contains("~") || key.contains("/")
      ? key.split(separator: "~", omittingEmptySubsequences: false).joined(separator: "~0")
        .split(separator: "/", omittingEmptySubsequences: false).joined(separator: "~1") : key
  }

  /// What `$ref` names.
  func resolve(_ reference: JSONValue, in part: LocatedSchema) throws(GrammarError) -> LocatedSchema
  {
    guard let text = reference.string else { throw part.error("'$ref' must be a text") }
    let pieces = text.split(separator: "#", maxSplits: 1, omittingEmptySubsequences: false)
    let base = String(pieces[0])
    guard base.isEmpty || base == identifier else {
      throw part.error("'$ref' names another document, '\(text.prefix(100))': copy it into '$defs'")
    }
    let fragment = pieces.count > 1 ? Self.unescapedPercent(String(pieces[1])) : ""
    guard fragment.isEmpty || fragment.hasPrefix("/") else {
      guard let named = anchors[fragment] else {
        throw part.error("'$ref' names '\(text.prefix(100))', which is not there")
      }
      return named
    }
    var found = root
    for step in fragment.split(separator: "/", omittingEmptySubsequences: false).dropFirst() {
      let key = Self.unescaped(String(step))
      let value =
        found.member(key)
        ?? found.value.array.flatMap { values in
          Int(key).flatMap { values.indices.contains($0) ? values[$0] : nil }
        }
      guard let value else {
        throw part.error("'$ref' names '\(text.prefix(100))', which is not there")
      }
      found = found.child(key, value: value)
    }
    return found
  }

  private static func unescaped(_ step: String) -> String {
    var result: [UInt8] = []
    var bytes = Array(step.utf8)[...]
    while let byte = bytes.popFirst() {
      if byte == 0x7E, let next = bytes.first, next == 0x30 || next == 0x31 {
        bytes.removeFirst()
        result.append(next == 0x30 ? 0x7E : 0x2F)
      } else {
        result.append(byte)
      }
    }
    return String(decoding: result, as: UTF8.self)
  }

  private static func unescapedPercent(_ text: String) -> String {
    var result: [UInt8] = []
    var bytes = Array(text.utf8)[...]
    while let byte = bytes.popFirst() {
      let digits = String(decoding: bytes.prefix(2), as: UTF8.self)
      if byte == 0x25, digits.utf8.count == 2, let value = UInt8(digits, radix: 16) {
        bytes.removeFirst(2)
        result.append(value)
      } else {
        result.append(byte)
      }
    }
    return String(decoding: result, as: UTF8.self)
  }
}
