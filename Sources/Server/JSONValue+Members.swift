import ModelFormat

/// Making values, and looking at those of requests.
extension JSONValue {
  static func text(_ text: String) -> JSONValue { JSONValue(content: .string(text), offset: 0) }

  static func list(_ elements: [JSONValue]) -> JSONValue {
    JSONValue(content: .array(elements), offset: 0)
  }

  /// An object of the members that there are.
  static func object(_ members: [(String, JSONValue?)]) -> JSONValue {
    let members = members.compactMap { key, value in
      value.map { JSONMember(key: key, value: $0) }
    }
    return JSONValue(content: .object(members), offset: 0)
  }

  /// A message of a conversation.
  static func message(_ role: String, _ content: JSONValue) -> JSONValue {
    object([("role", text(role)), ("content", content)])
  }

  /// The content of a message of texts: one as it is, several as a list of parts.
  static func content(_ texts: [JSONValue]) -> JSONValue {
    guard texts.count != 1 else { return texts[0] }
    return texts.isEmpty
      ? text("") : list(texts.map { object([("type", text("text")), ("text", $0)]) })
  }

  /// The path of a member whose object has another of its name, `.messages[0].role`; nil where there is none.
  var repeatedMember: String? {
    for (number, element) in (array ?? []).enumerated() {
      if let place = element.repeatedMember { return "[\(number)]\(place)" }
    }
    guard let members else { return nil }
    let keys = members.map(\.key).sorted { $0.utf8.lexicographicallyPrecedes($1.utf8) }
    // By their bytes: two spellings of an accent are two names.
    for (key, next) in zip(keys, keys.dropFirst()) where key.utf8.elementsEqual(next.utf8) {
      return ".\(key)"
    }
    for member in members {
      if let place = member.value.repeatedMember { return ".\(member.key)\(place)" }
    }
    return nil
  }
}
