import ModelFormat

/// The rules of JSON that schemas are made of.
///
/// White space is what printers write: none, a space, or one or two new lines with up to twenty spaces or tabs; so no model
/// loses itself in it. Numbers have at most 16 digits before the point and 16 after it.
struct JSONRules {
  /// White space after `{`, `[`, `,` and `:`, and before `}` and `]`.
  let space: Expression
  /// One character inside a string, or its escape.
  let character: Expression
  let string: Expression
  let integer: Expression
  /// Any number.
  let number: Expression
  /// Anything.
  let value: Expression
  /// Any object.
  let object: Expression
  /// Any array.
  let array: Expression

  init(_ builder: inout GrammarBuilder) throws(GrammarError) {
    let indent = Expression.repetition(
      .scalar(ScalarSet([0x20...0x20, 0x09...0x09])), minimum: 0, maximum: 20)
    let lines = Expression.sequence([
      .repetition(.literal("\n"), minimum: 1, maximum: 2), indent,
    ])
    space = try builder.rule("space", .choice([.empty, .literal(" "), lines]))
    character = try builder.rule("character", Self.characters)
    string = try builder.rule(
      "string", .sequence([.literal("\""), .any(character), .literal("\"")]))
    integer = try builder.rule(
      "integer", .sequence([.optional(.literal("-")), Self.whole(digits: 16)]))
    number = try builder.rule(
      "number",
      .sequence([
        integer,
        .optional(.sequence([.literal("."), Self.digits(1, 16)])),
        .optional(
          .sequence([
            .scalar(ScalarSet(["e", "E"])), .optional(.scalar(ScalarSet(["+", "-"]))),
            .choice([
              Self.digits(1, 2), .sequence([.literal("1"), Self.digits(2, 2)]),
            ]),
          ])),
      ]))
    let value = try builder.declare("value")
    self.value = .rule(value)
    let member = Expression.sequence([string, .literal(":"), space, self.value])
    object = try builder.rule(
      "object", Self.list(of: member, between: ("{", "}"), space))
    array = try builder.rule("array", Self.list(of: self.value, between: ("[", "]"), space))
    try builder.define(
      value,
      as: .choice([
        object, array, string, number, .literal("true"), .literal("false"), .literal("null"),
      ]))
  }

  private static func list(
    of element: Expression, between brackets: (String, String), _ space: Expression
  ) -> Expression {
    let more = Expression.any(.sequence([.literal(","), space, element]))
    return .sequence([
      .literal(brackets.0), space,
      .optional(.sequence([element, more, space])), .literal(brackets.1),
    ])
  }

  /// So many decimal digits.
  static func digits(_ minimum: Int, _ maximum: Int) -> Expression {
    .repetition(.scalar(ScalarSet([0x30...0x39])), minimum: minimum, maximum: maximum)
  }

  /// A whole number without a sign.
  static func whole(digits count: Int) -> Expression {
    .choice([
      .literal("0"), .sequence([.scalar(ScalarSet([0x31...0x39])), digits(0, count - 1)]),
    ])
  }

  private static var characters: Expression {
    let plain = ScalarSet([0x20...0x21, 0x23...0x5B, 0x5D...0x10FFFF]).encodable
    func hex(_ ranges: ClosedRange<UInt32>...) -> Expression { .scalar(ScalarSet(ranges)) }
    let any = hex(0x30...0x39, 0x41...0x46, 0x61...0x66)
    let d = hex(0x44...0x44, 0x64...0x64)
    let high = Expression.sequence([d, hex(0x38...0x39, 0x41...0x42, 0x61...0x62), any, any])
    let low = Expression.sequence([d, hex(0x43...0x46, 0x63...0x66), any, any])
    return .choice([
      .scalar(plain),
      .sequence([
        .literal("\\"),
        .choice([
          .scalar(ScalarSet(#""\/bfnrt"#.unicodeScalars)),
          // No half of a surrogate pair.
          .sequence([
            .literal("u"), hex(0x30...0x39, 0x41...0x43, 0x45...0x46, 0x61...0x63, 0x65...0x66),
            any, any, any,
          ]),
          .sequence([.literal("u"), d, hex(0x30...0x37), any, any]),
          .sequence([.literal("u"), high, .literal("\\u"), low]),
        ]),
      ]),
    ])
  }

  // MARK: - Texts

  /// How a byte of a string is written; nil = as it is.
  static func escape(_ byte: UInt8) -> [UInt8]? {
    switch byte {
    case 0x22, 0x5C: [0x5C, byte]
    case 0x08: Array("\\b".utf8)
    case 0x09: Array("\\t".utf8)
    case 0x0A: Array("\\n".utf8)
    case 0x0C: Array("\\f".utf8)
    case 0x0D: Array("\\r".utf8)
    case ..<0x20:
      Array("\\u00\(byte < 16 ? "0" : "1")".utf8) + [Array("0123456789abcdef".utf8)[Int(byte & 15)]]
    default: nil
    }
  }

  /// A string, with its quotes.
  static func quoted(_ text: String) -> [UInt8] {
    [0x22] + text.utf8.flatMap { escape($0) ?? [$0] } + [0x22]
  }

  /// A value as it is written, with white space where it may be.
  func constant(_ value: JSONValue) -> Expression? {
    switch value.content {
    case .null: return .literal("null")
    case .bool(let value): return .literal(value ? "true" : "false")
    case .integer(let value): return .literal("\(value)")
    case .wideInteger(let digits): return .literal(digits)
    case .number(let value): return .literal("\(value)")
    case .string(let text): return .literal(Self.quoted(text))
    case .unusable: return nil
    case .array(let values):
      let elements = values.map { constant($0) }
      return constant(elements, between: ("[", "]"))
    case .object(let members):
      let elements = members.map { member in
        constant(member.value).map {
          Expression.sequence([.literal(Self.quoted(member.key)), .literal(":"), space, $0])
        }
      }
      return constant(elements, between: ("{", "}"))
    }
  }

  private func constant(
    _ elements: [Expression?], between brackets: (String, String)
  ) -> Expression? {
    var parts: [Expression] = [.literal(brackets.0), space]
    for (index, element) in elements.enumerated() {
      guard let element else { return nil }
      if index > 0 { parts += [.literal(","), space] }
      parts.append(element)
    }
    if !elements.isEmpty { parts.append(space) }
    return .sequence(parts + [.literal(brackets.1)])
  }
}
