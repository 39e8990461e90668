import ModelFormat

/// The members that an object of a request may have, and what becomes of others: none is passed over in silence.
struct FieldNames: Sendable {
  /// The schema of the OpenAPI file that describes the object.
  let schema: String
  /// Those that are taken.
  let taken: [String]
  /// Fields of the interface that are not supported, with the value at which they would change nothing.
  let neutral: [String: NeutralValue]

  /// A value at which a field that is not supported changes nothing.
  enum NeutralValue: Sendable {
    /// There is none.
    case none
    /// Any: it is for the bookkeeping of whoever serves, and no part of the question.
    case anyText
    case one
    case no
    /// An empty list, object or text.
    case empty
    case texts([String])
  }

  init(_ schema: String, taken: [String], neutral: [String: NeutralValue] = [:]) {
    (self.schema, self.taken, self.neutral) = (schema, taken, neutral)
  }

  /// Refuses what is no object, or has members that are not taken.
  ///
  /// - Parameter place: where it is in the body, such as `tools[0]`.
  func check(_ value: JSONValue, at place: String) throws {
    guard let members = value.members else {
      throw APIError.bad(Self.field(of: place), "'\(place)' must be an object, not \(value.found)")
    }
    for member in members { try check(member, at: place) }
  }

  /// Refuses a member that is not taken, unless its value changes nothing.
  ///
  /// - Parameter place: where its object is in the body; nil = it is the body.
  func check(_ member: JSONMember, at place: String? = nil) throws {
    if let refusal = try refusal(of: member, at: place) { throw refusal }
  }

  /// What a member that is not known is refused with; nil where it is taken.
  ///
  /// - Throws: ``APIError`` where it is known and not supported.
  func refusal(of member: JSONMember, at place: String? = nil) throws -> APIError? {
    guard !taken.contains(member.key) else { return nil }
    let field = place.map(Self.field) ?? member.key
    guard let neutral = neutral[member.key] else {
      let start =
        place.map { "'\($0)' has no '\(member.key)'" }
        ?? "'\(member.key)' is no field of this endpoint"
      return APIError.bad(
        field, "\(start); there are: \(taken.joined(separator: ", "))", code: "unknown_parameter")
    }
    guard member.value.isNull || neutral.includes(member.value) else {
      let name = (place.map { [$0] } ?? []) + [member.key]
      throw APIError.bad(
        field,
        "'\(name.joined(separator: "."))' is not supported\(neutral.exception): leave it out",
        code: "unsupported_parameter")
    }
    return nil
  }

  /// The field of the body that a place is in.
  static func field(of place: String) -> String {
    String(place.prefix { $0 != "[" && $0 != "." })
  }
}

extension FieldNames.NeutralValue {
  func includes(_ value: JSONValue) -> Bool {
    switch self {
    case .none: false
    case .anyText: value.string != nil
    case .one: value.integer == 1
    case .no: value.bool == false
    case .empty:
      value.array?.isEmpty ?? value.members?.isEmpty ?? (value.string?.isEmpty ?? false)
    case .texts(let texts):
      value.string.map(texts.contains) ?? value.array?.allSatisfy {
        $0.string.map(texts.contains) ?? false
      } ?? false
    }
  }

  /// What is taken all the same, for people.
  var exception: String {
    switch self {
    case .none: ""
    case .anyText: " but as a text"
    case .one: " but as 1"
    case .no: " but as false"
    case .empty: " but as an empty value"
    case .texts(let texts): " but as " + texts.map { "\"\($0)\"" }.joined(separator: " or ")
    }
  }
}
