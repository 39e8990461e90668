import HTTPTypes
import ModelFormat

/// The members of a request's JSON object, all of which are known, read one by one.
struct RequestFields {
  /// The object.
  let json: JSONValue

  /// - Throws: ``APIError``, where the body is no JSON object or has a field that is not taken.
  init(_ body: [UInt8], _ names: FieldNames) throws {
    do { json = try body.withUnsafeBytes { try JSONParser.parse($0, path: "the body") } } catch {
      throw APIError(.badRequest, "\(error)", code: "invalid_json")
    }
    guard let members = json.members else {
      throw APIError(
        .badRequest, "the body must be a JSON object, not \(json.found)", code: "invalid_json")
    }
    if let place = json.repeatedMember?.dropFirst() {
      throw APIError.bad(
        FieldNames.field(of: String(place)), "'\(place.prefix(200))' is there more than once",
        code: "invalid_json")
    }
    for member in members { try names.check(member) }
  }

  /// A field's value; nil where it is absent or null.
  subscript(_ name: String) -> JSONValue? {
    guard let value = json.members?.first(where: { $0.key == name })?.value, !value.isNull else {
      return nil
    }
    return value
  }

  func flag(_ name: String) throws -> Bool? {
    try read(name, "true or false", \.bool)
  }

  func text(_ name: String) throws -> String? {
    try read(name, "a text", \.string)
  }

  /// One of some words.
  func text(_ name: String, of words: [String]) throws -> String? {
    let expected = words.map { "\"\($0)\"" }.joined(separator: " or ")
    return try read(name, expected) { value in
      value.string.flatMap { words.contains($0) ? $0 : nil }
    }
  }

  /// - Parameter form: what it must be, for people; nil = a number of the range.
  func integer(
    _ name: String, in range: ClosedRange<Int>, expected form: String? = nil
  ) throws -> Int? {
    let bounds =
      range.upperBound == .max
      ? "of \(range.lowerBound) or more" : "from \(range.lowerBound) to \(range.upperBound)"
    let expected = form ?? "a whole number \(bounds)"
    return try read(name, expected) { value in
      value.integer.flatMap { range.contains($0) ? $0 : nil }
    }
  }

  /// - Parameter expected: what it must be, for people.
  func number(
    _ name: String, _ expected: String, where isRight: (Double) -> Bool
  ) throws -> Double? {
    try read(name, expected) { value in value.double.flatMap { isRight($0) ? $0 : nil } }
  }

  /// A field that must be there.
  func required(_ name: String) throws -> JSONValue {
    guard let value = self[name] else {
      throw APIError.bad(name, "'\(name)' is missing", code: "missing_required_parameter")
    }
    return value
  }

  /// - Parameter convert: nil where the value is not what is expected.
  private func read<Value>(
    _ name: String, _ expected: String, _ convert: (JSONValue) -> Value?
  ) throws -> Value? {
    guard let value = self[name] else { return nil }
    guard let result = convert(value) else {
      throw APIError.bad(name, "'\(name)' must be \(expected), not \(value.found)")
    }
    return result
  }
}
