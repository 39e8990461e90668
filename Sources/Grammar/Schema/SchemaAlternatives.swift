import ModelFormat

/// Resolves references and alternatives: the lists of plain schemas one of which a value must satisfy whole.
struct SchemaAlternatives {
  private let source: SchemaSource
  private var found: [[LocatedSchema]] = []
  private var work = 0

  /// A schema that is to be taken in, and those that led to it.
  private struct Open {
    var part: LocatedSchema
    var ancestors: [String]
  }

  /// - Throws: ``GrammarError`` for references that lead nowhere, too many combinations, and `oneOf` whose alternatives may
  ///   hold at the same time.
  static func of(
    _ parts: [LocatedSchema], in source: SchemaSource
  ) throws(GrammarError) -> [[LocatedSchema]] {
    var search = SchemaAlternatives(source: source)
    try search.expand(parts.reversed().map { Open(part: $0, ancestors: []) }, [])
    return search.found
  }

  private init(source: SchemaSource) { self.source = source }

  private mutating func expand(_ open: [Open], _ taken: [LocatedSchema]) throws(GrammarError) {
    var (open, taken) = (open, taken)
    while let next = open.popLast() {
      let part = next.part
      work += 1
      guard work < 64 * GrammarLimits.alternativeCount else { throw tooMany(part) }
      // What leads to itself adds nothing that is finite.
      if next.ancestors.contains(part.pointer) { return }
      if part.isFalse { return }
      if part.value.bool == true || taken.contains(where: { $0.pointer == part.pointer }) {
        continue
      }
      taken.append(part)
      let ancestors = next.ancestors + [part.pointer]
      if let reference = part.member("$ref") {
        open.append(Open(part: try source.resolve(reference, in: part), ancestors: ancestors))
      }
      for branch in try branches("allOf", of: part).reversed() {
        open.append(Open(part: branch, ancestors: ancestors))
      }
      var choices: [[LocatedSchema]] = []
      for name in ["anyOf", "oneOf"] {
        let branches = try branches(name, of: part)
        if name == "oneOf" { try SchemaDisjointness.check(branches, of: part, in: source) }
        if !branches.isEmpty { choices.append(branches) }
      }
      guard let first = choices.first else { continue }
      for branch in first {
        let others = choices.dropFirst().first ?? []
        for other in others.isEmpty ? [nil] : others.map(Optional.some) {
          try expand(
            open + [branch, other].compactMap { $0.map { Open(part: $0, ancestors: ancestors) } },
            taken)
        }
      }
      return
    }
    guard found.count < GrammarLimits.alternativeCount else {
      throw tooMany(taken.first ?? source.root)
    }
    found.append(taken)
  }

  private func tooMany(_ part: LocatedSchema) -> GrammarError {
    part.error(
      "its alternatives combine in more than \(GrammarLimits.alternativeCount) ways: nest fewer of them"
    )
  }

  private func branches(
    _ name: String, of part: LocatedSchema
  ) throws(GrammarError) -> [LocatedSchema] {
    guard let value = part.member(name) else { return [] }
    guard let list = value.array, !list.isEmpty else {
      throw part.error("'\(name)' must be a list that is not empty")
    }
    return list.enumerated().map { part.child(name, "\($0.offset)", value: $0.element) }
  }
}
