import ModelFormat

/// Makes a grammar of a JSON schema: a rule for each set of schemas that some value must satisfy.
///
/// Members come in the order in which a schema names them, then others. Schemas that apply to the same value are taken
/// together (`SchemaShape`), alternatives are told apart first (`SchemaAlternatives`). What cannot be said by a
/// grammar is refused by its name.
struct SchemaCompiler {
  private let source: SchemaSource
  var builder: GrammarBuilder
  let rules: JSONRules
  /// Rules of sets of schemas, by their pointers.
  private var numbers: [String: Int] = [:]
  private var open: [(rule: Int, parts: [LocatedSchema])] = []

  /// Adds the rules of a schema to a grammar.
  ///
  /// - Returns: what matches a value of the schema.
  static func add(
    _ schema: JSONValue, to builder: inout GrammarBuilder, _ rules: JSONRules
  ) throws(GrammarError) -> Expression {
    var compiler = SchemaCompiler(
      source: SchemaSource(schema), builder: builder, rules: rules)
    let root = try compiler.reference([compiler.source.root])
    while let next = compiler.open.popLast() {
      do {
        let body = try compiler.expression(of: next.parts)
        try compiler.builder.define(next.rule, as: body)
      } catch { throw error.moved(to: next.parts.first?.pointer ?? "#") }
    }
    builder = compiler.builder
    return root
  }

  private init(source: SchemaSource, builder: GrammarBuilder, rules: JSONRules) {
    self.source = source
    self.builder = builder
    self.rules = rules
  }

  /// What matches a value that satisfies all of `parts`.
  mutating func reference(_ parts: [LocatedSchema]) throws(GrammarError) -> Expression {
    if parts.contains(where: \.isFalse) { return .never }
    let parts = parts.filter { $0.value.bool != true }
    guard let first = parts.first else { return rules.value }
    let key = Set(parts.map(\.pointer)).sorted().joined(separator: "\n")
    if let number = numbers[key] { return .rule(number) }
    let rule = try builder.declare(first.pointer)
    numbers[key] = rule
    open.append((rule, parts))
    return .rule(rule)
  }

  private mutating func expression(of parts: [LocatedSchema]) throws(GrammarError) -> Expression {
    var choices: [Expression] = []
    for alternative in try SchemaAlternatives.of(parts, in: source) {
      let shape = try SchemaShape(alternative, place: parts[0])
      if !shape.isImpossible { choices += try expressions(of: shape) }
    }
    return .choice(choices)
  }

  /// What matches values of each type.
  private mutating func expressions(of shape: SchemaShape) throws(GrammarError) -> [Expression] {
    if let values = shape.values { return try constants(values, in: shape) }
    if shape.isFree, shape.types == .all { return [rules.value] }
    var result: [Expression] = []
    if shape.types.contains(.null) { result.append(.literal("null")) }
    if shape.types.contains(.boolean) { result += [.literal("true"), .literal("false")] }
    if !shape.types.isDisjoint(with: .number) { result.append(try number(shape)) }
    if shape.types.contains(.string) { result.append(try string(shape)) }
    if shape.types.contains(.array) { result.append(try array(shape)) }
    if shape.types.contains(.object) { result.append(try object(shape)) }
    return result
  }

  private mutating func constants(
    _ values: [JSONValue], in shape: SchemaShape
  ) throws(GrammarError) -> [Expression] {
    let (texts, numbers) = (try textAutomaton(of: shape), try numberAutomaton(of: shape))
    var result: [Expression] = []
    for value in values where shape.types.isSuperset(of: SchemaTypes(of: value)) {
      switch value.content {
      case .string(let text):
        guard texts?.accepts(text.utf8) ?? true, shape.lengths.contains(text.unicodeScalars.count)
        else { continue }
      case .integer, .wideInteger, .number:
        guard numbers?.accepts(Self.plain(value).utf8) ?? true else { continue }
      case .array where !shape.arrays.isEmpty || !shape.itemCounts.isFree,
        .object
      where !shape.objects.isEmpty || !shape.required.isEmpty || !shape.memberCounts.isFree:
        throw shape.place.error(
          "'enum' and 'const' of arrays and objects beside what else is said of them are not supported"
        )
      default: break
      }
      guard let constant = rules.constant(value) else {
        throw shape.place.error("a constant is \(value.found)")
      }
      result.append(constant)
    }
    return result
  }

  /// A number without an exponent, as automata of bounds read it.
  private static func plain(_ value: JSONValue) -> String {
    if case .number(let number) = value.content, number == number.rounded(),
      let whole = Int(exactly: number)
    {
      return "\(whole)"
    }
    if case .wideInteger(let digits) = value.content { return digits }
    return value.integer.map { "\($0)" } ?? "\(value.double ?? 0)"
  }

  // MARK: - Numbers

  private mutating func number(_ shape: SchemaShape) throws(GrammarError) -> Expression {
    if let automaton = try numberAutomaton(of: shape) {
      return automaton.isEmpty ? .never : .automaton(automaton)
    }
    return shape.types.contains(.fraction) ? rules.number : rules.integer
  }

  /// Numbers within the bounds; nil where there are none.
  private func numberAutomaton(of shape: SchemaShape) throws(GrammarError) -> ByteAutomaton? {
    guard !shape.bounds.isEmpty || !shape.divisors.isEmpty else { return nil }
    let isWhole = !shape.types.contains(.fraction) || !shape.divisors.isEmpty
    let digitCount = shape.bounds.map(\.value.wholeDigitCount).reduce(16, max)
    let magnitude = try ByteAutomaton(
      .sequence([
        JSONRules.whole(digits: digitCount),
        isWhole ? .empty : .optional(.sequence([.literal("."), JSONRules.digits(1, 16)])),
      ]))
    var signs: [ByteAutomaton] = []
    for isNegated in [false, true] {
      var automaton = magnitude
      for divisor in shape.divisors {
        automaton = try automaton.intersection(.multiples(of: divisor))
      }
      for bound in shape.bounds {
        guard let limit = bound.value.magnitudes(negated: isNegated, bound.relations) else {
          continue
        }
        automaton = try automaton.intersection(limit)
      }
      signs.append(automaton)
    }
    return try ByteAutomaton(
      .choice([.automaton(signs[0]), .sequence([.literal("-"), .automaton(signs[1])])]))
  }

  // MARK: - Strings

  private mutating func string(_ shape: SchemaShape) throws(GrammarError) -> Expression {
    if shape.lengths.isImpossible { return .never }
    if let automaton = try textAutomaton(of: shape) {
      let counted =
        shape.lengths.isFree
        ? automaton
        : try automaton.intersection(
          ByteAutomaton(minimum: shape.lengths.minimum, maximum: shape.lengths.maximum))
      return counted.isEmpty
        ? .never : .sequence([.literal("\""), .quoted(counted), .literal("\"")])
    }
    if shape.lengths.isFree { return rules.string }
    return .sequence([
      .literal("\""),
      .repetition(
        rules.character, minimum: shape.lengths.minimum, maximum: shape.lengths.maximum),
      .literal("\""),
    ])
  }

  /// Texts that all patterns allow; nil where there are none.
  private func textAutomaton(of shape: SchemaShape) throws(GrammarError) -> ByteAutomaton? {
    var result: ByteAutomaton?
    for pattern in shape.patterns {
      if let known = result { result = try known.intersection(pattern) } else { result = pattern }
    }
    return result
  }

  /// Texts that satisfy all of `parts`, as names of members must; nil = all.
  func nameAutomaton(of parts: [LocatedSchema]) throws(GrammarError) -> ByteAutomaton? {
    guard !parts.isEmpty else { return nil }
    var result = ByteAutomaton(states: [.init()])
    for alternative in try SchemaAlternatives.of(parts, in: source) {
      let shape = try SchemaShape(alternative, place: parts[0])
      guard !shape.isImpossible, shape.types.contains(.string) else { continue }
      let anyText = try ByteAutomaton.anyText
      var texts = try textAutomaton(of: shape) ?? anyText
      if !shape.lengths.isFree {
        texts = try texts.intersection(
          ByteAutomaton(minimum: shape.lengths.minimum, maximum: shape.lengths.maximum))
      }
      if let values = shape.values {
        texts = try texts.intersection(
          ByteAutomaton(texts: values.compactMap(\.string).map { Array($0.utf8) }))
      }
      result = try ByteAutomaton(.choice([.automaton(result), .automaton(texts)]))
    }
    return result
  }

  // MARK: - Arrays

  private mutating func array(_ shape: SchemaShape) throws(GrammarError) -> Expression {
    let counts = shape.itemCounts
    if counts.isImpossible { return .never }
    if shape.isFree { return rules.array }
    let firstCount = shape.arrays.map(\.first.count).max() ?? 0
    let others = try reference(shape.arrays.compactMap(\.others))
    let comma = Expression.sequence([.literal(","), rules.space])
    // What follows the first elements, then each of them, from the last on.
    var rest: Expression
    let lowest = max(0, counts.minimum - firstCount)
    let highest = counts.maximum.map { $0 - firstCount }
    if let highest, highest <= 0 {
      rest = .empty
    } else if firstCount > 0 {
      rest = .repetition(.sequence([comma, others]), minimum: lowest, maximum: highest)
    } else {
      rest = .sequence([
        others,
        .repetition(
          .sequence([comma, others]), minimum: max(0, lowest - 1), maximum: highest.map { $0 - 1 }),
      ])
      if lowest == 0 { rest = .optional(rest) }
    }
    for index in stride(from: firstCount - 1, through: 0, by: -1) {
      if let maximum = counts.maximum, index >= maximum {
        rest = .empty
        continue
      }
      let element = try reference(
        shape.arrays.compactMap { $0.first.indices.contains(index) ? $0.first[index] : $0.others })
      rest = .sequence([index == 0 ? .empty : comma, element, rest])
      if index >= counts.minimum { rest = .optional(rest) }
      rest = try builder.rule("", rest)
    }
    return .sequence([
      .literal("["), rules.space, rest, rules.space, .literal("]"),
    ])
  }
}

extension SchemaShape {
  /// Whether nothing but its types bounds it.
  var isFree: Bool {
    patterns.isEmpty && lengths.isFree && bounds.isEmpty && divisors.isEmpty && itemCounts.isFree
      && arrays.isEmpty && objects.isEmpty && required.isEmpty && memberCounts.isFree
      && memberNames.isEmpty
  }
}

extension ByteAutomaton {
  /// Whole numbers without a sign that `divisor` divides.
  fileprivate static func multiples(of divisor: Int) -> ByteAutomaton {
    // The first state is that of nothing read, which is no number.
    func edges(_ remainder: Int) -> [Edge] {
      (0..<10).map { digit in
        Edge(
          bytes: (0x30 + UInt8(digit))...(0x30 + UInt8(digit)),
          to: 1 + (10 * remainder + digit) % divisor)
      }
    }
    return ByteAutomaton(
      states: [State(edges: edges(0))]
        + (0..<divisor).map { State(edges: edges($0), isAccepting: $0 == 0) })
  }
}
