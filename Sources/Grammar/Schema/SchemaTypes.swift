import ModelFormat

/// Kinds of JSON values; numbers that are integers and others are two.
struct SchemaTypes: OptionSet {
  let rawValue: UInt8

  static let null = SchemaTypes(rawValue: 1)
  static let boolean = SchemaTypes(rawValue: 2)
  static let integer = SchemaTypes(rawValue: 4)
  static let fraction = SchemaTypes(rawValue: 8)
  static let string = SchemaTypes(rawValue: 16)
  static let array = SchemaTypes(rawValue: 32)
  static let object = SchemaTypes(rawValue: 64)
  static let number: SchemaTypes = [.integer, .fraction]
  static let all: SchemaTypes = [.null, .boolean, .number, .string, .array, .object]

  init(rawValue: UInt8) { self.rawValue = rawValue }

  /// The kind of a value.
  init(of value: JSONValue) {
    self =
      switch value.content {
      case .null: .null
      case .bool: .boolean
      case .integer, .wideInteger: .integer
      case .number(let value): value == value.rounded() ? .integer : .fraction
      case .string: .string
      case .array: .array
      case .object: .object
      case .unusable: []
      }
  }

  /// What `type` says.
  init(_ value: JSONValue, in part: LocatedSchema) throws(GrammarError) {
    self = []
    for name in value.array ?? [value] {
      switch name.string {
      case "null": insert(.null)
      case "boolean": insert(.boolean)
      case "integer": insert(.integer)
      case "number": formUnion(.number)
      case "string": insert(.string)
      case "array": insert(.array)
      case "object": insert(.object)
      default: throw part.error("'type' names no type: \(name.found)")
      }
    }
  }
}

extension JSONValue {
  /// Whether two values are the same, as JSON Schema compares them.
  func equals(_ other: JSONValue) -> Bool {
    switch (content, other.content) {
    case (.null, .null): true
    case (.bool(let left), .bool(let right)): left == right
    case (.string(let left), .string(let right)): ExactString(left) == ExactString(right)
    case (.array(let left), .array(let right)):
      left.count == right.count && zip(left, right).allSatisfy { $0.equals($1) }
    case (.object(let left), .object(let right)):
      left.count == right.count
        && left.allSatisfy { member in
          right.contains {
            ExactString($0.key) == ExactString(member.key) && $0.value.equals(member.value)
          }
        }
    default: double.map { $0 == other.double } ?? false
    }
  }
}
