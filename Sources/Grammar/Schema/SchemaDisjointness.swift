import ModelFormat

/// Whether no value satisfies two schemas: what `oneOf` asks of its alternatives, and what a grammar cannot check later.
struct SchemaDisjointness {
  private let source: SchemaSource
  private var work = 0
  private static let workLimit = 200_000
  private static let depthLimit = 8

  /// - Throws: ``GrammarError`` that names two alternatives that may hold at the same time.
  static func check(
    _ branches: [LocatedSchema], of part: LocatedSchema, in source: SchemaSource
  ) throws(GrammarError) {
    var search = SchemaDisjointness(source: source)
    for (index, left) in branches.enumerated() {
      for (other, right) in branches.enumerated().dropFirst(index + 1) {
        guard try search.areDisjoint(left, right, depth: 0), search.work < workLimit else {
          throw part.error(
            "the alternatives \(index) and \(other) of 'oneOf' may hold at the same time, which is not "
              + "supported: use 'anyOf', or tell them apart by a required member with 'const'")
        }
      }
    }
  }

  private init(source: SchemaSource) { self.source = source }

  private mutating func areDisjoint(
    _ left: LocatedSchema, _ right: LocatedSchema, depth: Int
  ) throws(GrammarError) -> Bool {
    work += 1
    guard depth < Self.depthLimit, work < Self.workLimit else { return false }
    if left.isFalse || right.isFalse { return true }
    for (one, other) in [(left, right), (right, left)] {
      if let reference = one.member("$ref"),
        try areDisjoint(source.resolve(reference, in: one), other, depth: depth + 1)
      {
        return true
      }
      for (index, branch) in (one.member("allOf")?.array ?? []).enumerated()
      where try areDisjoint(one.child("allOf", "\(index)", value: branch), other, depth: depth + 1)
      {
        return true
      }
      for name in ["anyOf", "oneOf"] {
        guard let list = one.member(name)?.array, !list.isEmpty else { continue }
        var all = true
        for (index, branch) in list.enumerated() where all {
          all = try areDisjoint(
            one.child(name, "\(index)", value: branch), other, depth: depth + 1)
        }
        if all { return true }
      }
    }
    let (leftTypes, rightTypes) = (try types(of: left), try types(of: right))
    let common = leftTypes.intersection(rightTypes)
    if common.isEmpty || haveDifferentValues(left, right) { return true }
    if common.isSubset(of: .number), liesBelow(left, right) || liesBelow(right, left) {
      return true
    }
    guard common == .object else { return false }
    return try objectsAreDisjoint(left, right, depth: depth)
  }

  private func values(of part: LocatedSchema) -> [JSONValue]? {
    part.member("const").map { [$0] } ?? part.member("enum")?.array
  }

  private func types(of part: LocatedSchema) throws(GrammarError) -> SchemaTypes {
    var result = SchemaTypes.all
    if let type = part.member("type") { result = try SchemaTypes(type, in: part) }
    if let values = values(of: part) {
      result.formIntersection(SchemaTypes(values.map { SchemaTypes(of: $0) }))
    }
    // As `SchemaShape` takes schemas that name no type.
    let isObject = ["properties", "required", "additionalProperties"].contains {
      part.member($0) != nil
    }
    if part.member("type") == nil, values(of: part) == nil, isObject { return .object }
    return result
  }

  private func haveDifferentValues(_ left: LocatedSchema, _ right: LocatedSchema) -> Bool {
    guard let left = values(of: left), let right = values(of: right) else { return false }
    return !left.contains { value in right.contains { $0.equals(value) } }
  }

  private func liesBelow(_ left: LocatedSchema, _ right: LocatedSchema) -> Bool {
    let high = left.member("maximum")?.double ?? .infinity
    let open = left.member("exclusiveMaximum")?.double ?? .infinity
    let low = right.member("minimum")?.double ?? -.infinity
    let openLow = right.member("exclusiveMinimum")?.double ?? -.infinity
    return high < low || open <= low || high <= openLow || open <= openLow
  }

  private mutating func objectsAreDisjoint(
    _ left: LocatedSchema, _ right: LocatedSchema, depth: Int
  ) throws(GrammarError) -> Bool {
    for (one, other) in [(left, right), (right, left)] {
      for name in one.member("required")?.array ?? [] {
        guard let name = name.string else { continue }
        let theirs = property(name, of: other)
        if let theirs, let ours = property(name, of: one),
          try areDisjoint(ours, theirs, depth: depth + 1)
        {
          return true
        }
        if theirs == nil, other.member("additionalProperties")?.bool == false,
          other.member("patternProperties") == nil
        {
          return true
        }
      }
    }
    return false
  }

  private func property(_ name: String, of part: LocatedSchema) -> LocatedSchema? {
    part.member("properties")?.members?.last { $0.key == name }.map {
      part.child("properties", name, value: $0.value)
    }
  }
}
