import ModelFormat

/// Which fields an endpoint takes, and what becomes of the others: none is passed over in silence.
struct FieldNames: Sendable {
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
    case anyFlag
    case zero
    case one
    case no
    /// An empty list, object or text.
    case empty
    case texts([String])
  }

  /// Refuses a field that is not taken, unless its value changes nothing.
  func check(_ member: JSONMember) throws {
    guard !taken.contains(member.key), !member.value.isNull else { return }
    guard let neutral = neutral[member.key] else {
      throw APIError.bad(
        member.key,
        "'\(member.key)' is no field of this endpoint; there are: \(taken.joined(separator: ", "))",
        code: "unknown_parameter")
    }
    guard neutral.includes(member.value) else {
      throw APIError.bad(
        member.key,
        "'\(member.key)' is not supported\(neutral.exception): leave it out",
        code: "unsupported_parameter")
    }
  }
}

extension FieldNames.NeutralValue {
  func includes(_ value: JSONValue) -> Bool {
    switch self {
    case .none: false
    case .anyText: value.string != nil
    case .anyFlag: value.bool != nil
    case .zero: value.double == 0
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
    case .anyFlag: " but as true or false"
    case .zero: " but as 0"
    case .one: " but as 1"
    case .no: " but as false"
    case .empty: " but as an empty value"
    case .texts(let texts): " but as " + texts.map { "\"\($0)\"" }.joined(separator: " or ")
    }
  }
}
