import ModelFormat

extension SchemaCompiler {
  /// A member that a schema names.
  private struct Member {
    let body: Expression
    let isRequired: Bool
  }

  /// Patterns of other members' names, at most: each combination of them is a case of its own.
  private static let mostPatterns = 4

  mutating func object(_ shape: SchemaShape) throws(GrammarError) -> Expression {
    if shape.isFree { return rules.object }
    let patterns = try self.patterns(of: shape)
    let allowedNames = try nameAutomaton(of: shape.memberNames)
    let names = Self.names(of: shape)
    var members: [Member] = []
    for name in names {
      let isRequired = shape.required.contains { ExactString($0) == ExactString(name) }
      let schemas = shape.schemas(of: name) { pattern in
        patterns.first { $0.pattern == pattern }?.automaton.accepts(name.utf8) ?? false
      }
      let isAllowed = allowedNames?.accepts(name.utf8) ?? true
      guard isAllowed, !schemas.contains(where: \.isFalse) else {
        if isRequired { return .never }
        continue
      }
      let body = try builder.rule(
        "",
        .sequence([
          .literal(JSONRules.quoted(name)), .literal(":"), rules.space, try reference(schemas),
        ]))
      members.append(Member(body: body, isRequired: isRequired))
    }
    let others = try self.others(shape, names, patterns, allowedNames)
    return try list(of: members, others, shape)
  }

  /// Names that schemas mention, in the order in which they do.
  private static func names(of shape: SchemaShape) -> [String] {
    var seen: Set<ExactString> = []
    return (shape.objects.flatMap { $0.properties.map(\.name) } + shape.required).filter {
      seen.insert(ExactString($0)).inserted
    }
  }

  private func patterns(
    of shape: SchemaShape
  ) throws(GrammarError) -> [(pattern: String, automaton: ByteAutomaton)] {
    var result: [(pattern: String, automaton: ByteAutomaton)] = []
    for (pattern, schema) in shape.objects.flatMap(\.patterns)
    where !result.contains(where: { $0.pattern == pattern }) {
      do { result.append((pattern, try ByteAutomaton(PatternParser.contained(pattern)))) } catch {
        throw error.moved(to: schema.pointer)
      }
    }
    guard result.count <= Self.mostPatterns else {
      throw shape.place.error(
        "more than \(Self.mostPatterns) 'patternProperties' are not supported")
    }
    return result
  }

  /// A member that no schema names; nil where there may be none.
  private mutating func others(
    _ shape: SchemaShape, _ names: [String],
    _ patterns: [(pattern: String, automaton: ByteAutomaton)], _ allowedNames: ByteAutomaton?
  ) throws(GrammarError) -> Expression? {
    var choices: [Expression] = []
    for matching in 0..<(1 << patterns.count) {
      func matches(_ pattern: String) -> Bool {
        patterns.firstIndex { $0.pattern == pattern }.map { matching >> $0 & 1 == 1 } ?? false
      }
      let schemas = shape.schemas(of: nil, matches: matches)
      if schemas.contains(where: \.isFalse) { continue }
      var key = rules.string
      if !names.isEmpty || !patterns.isEmpty || allowedNames != nil {
        let anyText = try ByteAutomaton.anyText
        var automaton = allowedNames ?? anyText
        for (index, pattern) in patterns.enumerated() {
          automaton =
            matching >> index & 1 == 1
            ? try automaton.intersection(pattern.automaton)
            : try automaton.subtracting(pattern.automaton)
        }
        automaton = try automaton.subtracting(
          ByteAutomaton(texts: names.map { Array($0.utf8) }))
        if automaton.isEmpty { continue }
        key = .sequence([.literal("\""), .quoted(automaton), .literal("\"")])
      }
      choices.append(
        .sequence([key, .literal(":"), rules.space, try reference(schemas)]))
    }
    return choices.isEmpty ? nil : try builder.rule("", .choice(choices))
  }

  /// Members in their order, then others, with commas between those that are there.
  private mutating func list(
    of members: [Member], _ others: Expression?, _ shape: SchemaShape
  ) throws(GrammarError) -> Expression {
    let counts = shape.memberCounts
    let requiredCount = members.count(where: \.isRequired)
    if counts.isImpossible || requiredCount > counts.maximum ?? .max { return .never }
    let needsOne = requiredCount == 0 && counts.minimum == 1
    guard counts.minimum <= requiredCount || needsOne else {
      throw shape.place.error(
        "'minProperties' above 1 and the number of required members is not supported")
    }
    var mostOthers = others == nil ? 0 : counts.maximum.map { $0 - requiredCount }
    if let maximum = counts.maximum, requiredCount < members.count {
      guard maximum == 0 || others == nil && maximum >= members.count else {
        throw shape.place.error(
          "'maxProperties' beside members that may be there is not supported")
      }
      mostOthers = 0
    }
    if counts.maximum == 0 {
      return .sequence([.literal("{"), rules.space, .literal("}")])
    }
    let comma = Expression.sequence([.literal(","), rules.space])
    let other = others ?? .never
    // After and before the first member that is there, from the last on.
    var after = try builder.rule(
      "",
      .repetition(.sequence([comma, other]), minimum: 0, maximum: others == nil ? 0 : mostOthers))
    var before = Expression.never
    if others != nil, mostOthers != 0 {
      before = .sequence([
        other,
        .repetition(
          .sequence([comma, other]), minimum: 0, maximum: mostOthers.map { $0 - 1 }),
      ])
    }
    before = try builder.rule("", needsOne ? before : .choice([.empty, before]))
    for member in members.reversed() {
      let first = Expression.sequence([member.body, after])
      let next = Expression.sequence([comma, member.body, after])
      (before, after) = (
        try builder.rule("", member.isRequired ? first : .choice([first, before])),
        try builder.rule("", member.isRequired ? next : .choice([next, after]))
      )
    }
    return .sequence([
      .literal("{"), rules.space, before, rules.space, .literal("}"),
    ])
  }
}

extension SchemaShape {
  /// The schemas that a member must satisfy.
  ///
  /// - Parameters:
  ///   - name: nil = none that a schema mentions.
  ///   - matches: whether it matches a pattern.
  fileprivate func schemas(
    of name: String?, matches: (_ pattern: String) -> Bool
  ) -> [LocatedSchema] {
    objects.flatMap { part in
      let own = part.properties.last { property in
        name.map { ExactString($0) == ExactString(property.name) } ?? false
      }
      let found =
        [own?.schema].compactMap { $0 } + part.patterns.filter { matches($0.pattern) }.map(\.schema)
      return found.isEmpty ? [part.additional].compactMap { $0 } : found
    }
  }
}
