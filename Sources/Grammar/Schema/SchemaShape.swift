import ModelFormat

/// What a value must be, all schemas that apply to it taken together, but for alternatives and references.
struct SchemaShape {
  /// One schema's own part of an object: what it says of other members depends on those that it names itself.
  struct ObjectPart {
    var properties: [(name: String, schema: LocatedSchema)] = []
    var patterns: [(pattern: String, schema: LocatedSchema)] = []
    var additional: LocatedSchema?
  }

  struct ArrayPart {
    var first: [LocatedSchema] = []
    var others: LocatedSchema?
  }

  /// How many there may be.
  struct Counts {
    var minimum = 0
    /// nil = any number.
    var maximum: Int?

    var isImpossible: Bool { minimum > maximum ?? .max }
    /// Whether any number is right.
    var isFree: Bool { minimum == 0 && maximum == nil }

    func contains(_ count: Int) -> Bool { count >= minimum && count <= maximum ?? .max }

    mutating func raise(to count: Int) { minimum = max(minimum, count) }
    mutating func lower(to count: Int) { maximum = min(maximum ?? .max, count) }
  }

  struct Bound {
    var value: DecimalBound
    var relations: DecimalBound.Relation
  }

  private(set) var types = SchemaTypes.all
  /// The only values; nil = any.
  private(set) var values: [JSONValue]?
  private(set) var patterns: [ByteAutomaton] = []
  private(set) var lengths = Counts()
  private(set) var bounds: [Bound] = []
  private(set) var divisors: [Int] = []
  private(set) var itemCounts = Counts()
  private(set) var arrays: [ArrayPart] = []
  private(set) var objects: [ObjectPart] = []
  private(set) var required: [String] = []
  private(set) var memberCounts = Counts()
  private(set) var memberNames: [LocatedSchema] = []
  /// Whether no value can be right.
  private(set) var isImpossible = false
  /// Where it is written, for errors.
  let place: LocatedSchema
  /// Types that a keyword was there for.
  private var implied: SchemaTypes = []

  private static let annotations: Set<String> = [
    "title", "description", "default", "examples", "example", "deprecated", "readOnly", "writeOnly",
    "$schema", "$id", "id", "$comment", "$anchor", "$dynamicAnchor", "$defs", "definitions",
    "contentEncoding", "contentMediaType", "$ref", "allOf", "anyOf", "oneOf",
  ]

  /// - Throws: ``GrammarError`` at what is not supported or wrong.
  init(_ parts: [LocatedSchema], place: LocatedSchema) throws(GrammarError) {
    self.place = place
    var isStated = false
    for part in parts {
      if part.isFalse { isImpossible = true }
      if part.value.bool != nil { continue }
      guard let members = part.value.members else {
        throw part.error("a schema must be an object, true or false, not \(part.value.found)")
      }
      isStated =
        isStated || part.member("type") != nil || part.member("enum") != nil
        || part.member("const") != nil
      for member in members {
        var isKnown = try readCommon(member, part)
        if !isKnown { isKnown = try readText(member, part) }
        if !isKnown { isKnown = try readNumber(member, part) }
        if !isKnown { isKnown = try readArray(member, part) }
        if !isKnown { isKnown = try readObject(member, part) }
        if !isKnown, !Self.annotations.contains(member.key), !member.key.hasPrefix("x-") {
          throw part.error("'\(member.key.prefix(100))' is not supported")
        }
      }
      readPart(part)
    }
    // People who bound strings mean strings.
    if !isStated, !implied.isEmpty { types.formIntersection(implied) }
  }

  private mutating func readCommon(
    _ member: JSONMember, _ part: LocatedSchema
  ) throws(GrammarError) -> Bool {
    switch member.key {
    case "type": types.formIntersection(try SchemaTypes(member.value, in: part))
    case "const": restrict(to: [member.value])
    case "enum":
      guard let values = member.value.array, !values.isEmpty else {
        throw part.error("'enum' must be a list that is not empty")
      }
      restrict(to: values)
    default: return false
    }
    return true
  }

  private mutating func restrict(to list: [JSONValue]) {
    values = values.map { $0.filter { value in list.contains { $0.equals(value) } } } ?? list
  }

  private mutating func readText(
    _ member: JSONMember, _ part: LocatedSchema
  ) throws(GrammarError) -> Bool {
    switch member.key {
    case "minLength":
      lengths.raise(to: try Self.count(member, part))
    case "maxLength":
      lengths.lower(to: try Self.count(member, part))
    case "pattern":
      guard let pattern = member.value.string else { throw part.error("'pattern' must be a text") }
      do { patterns.append(try ByteAutomaton(PatternParser.contained(pattern))) } catch {
        throw error.moved(to: part.pointer + "/pattern")
      }
    case "format":
      guard let name = member.value.string, let format = TextFormats.pattern(of: name) else {
        throw part.error("the format \(member.value.found) is not supported")
      }
      do { patterns.append(try ByteAutomaton(PatternParser.whole(format))) } catch {
        throw error.moved(to: part.pointer + "/format")
      }
    default: return false
    }
    implied.insert(.string)
    return true
  }

  private mutating func readNumber(
    _ member: JSONMember, _ part: LocatedSchema
  ) throws(GrammarError) -> Bool {
    let relations: DecimalBound.Relation
    switch member.key {
    case "minimum":
      relations = part.member("exclusiveMinimum")?.bool == true ? .greater : [.greater, .equal]
    case "maximum":
      relations = part.member("exclusiveMaximum")?.bool == true ? .less : [.less, .equal]
    case "exclusiveMinimum", "exclusiveMaximum":
      // Draft 4 has flags beside the bounds.
      if member.value.bool != nil { return true }
      relations = member.key == "exclusiveMinimum" ? .greater : .less
    case "multipleOf":
      guard let divisor = member.value.integer ?? Self.whole(member.value),
        (1...2000).contains(divisor)
      else { throw part.error("'multipleOf' is supported for whole numbers from 1 to 2000") }
      divisors.append(divisor)
      implied.formUnion(.number)
      return true
    default: return false
    }
    guard let bound = DecimalBound(member.value) else {
      throw part.error("'\(member.key)' must be a number of at most 400 digits")
    }
    bounds.append(Bound(value: bound, relations: relations))
    implied.formUnion(.number)
    return true
  }

  private mutating func readArray(
    _ member: JSONMember, _ part: LocatedSchema
  ) throws(GrammarError) -> Bool {
    switch member.key {
    case "minItems": itemCounts.raise(to: try Self.count(member, part))
    case "maxItems": itemCounts.lower(to: try Self.count(member, part))
    case "items", "prefixItems": break
    case "additionalItems":
      guard part.member("items")?.array != nil else { return true }
    case "uniqueItems":
      guard member.value.bool == false else { throw part.error("'uniqueItems' is not supported") }
    default: return false
    }
    implied.insert(.array)
    return true
  }

  private mutating func readObject(
    _ member: JSONMember, _ part: LocatedSchema
  ) throws(GrammarError) -> Bool {
    switch member.key {
    case "properties", "patternProperties":
      guard member.value.members != nil else {
        throw part.error("'\(member.key)' must be an object")
      }
    case "additionalProperties": break
    case "propertyNames": memberNames.append(part.child("propertyNames", value: member.value))
    case "minProperties": memberCounts.raise(to: try Self.count(member, part))
    case "maxProperties": memberCounts.lower(to: try Self.count(member, part))
    case "required":
      // Draft 3 has flags.
      guard let names = member.value.array else { throw part.error("'required' must be a list") }
      for name in names {
        guard let name = name.string else { throw part.error("'required' must list texts") }
        if !required.contains(where: { ExactString($0) == ExactString(name) }) {
          required.append(name)
        }
      }
    default: return false
    }
    implied.insert(.object)
    return true
  }

  /// Takes in what one schema says of the members and elements of a value.
  private mutating func readPart(_ part: LocatedSchema) {
    var object = ObjectPart()
    for member in part.member("properties")?.members ?? [] {
      object.properties.append(
        (member.key, part.child("properties", member.key, value: member.value)))
    }
    for member in part.member("patternProperties")?.members ?? [] {
      object.patterns.append(
        (member.key, part.child("patternProperties", member.key, value: member.value)))
    }
    object.additional = part.member("additionalProperties").map {
      part.child("additionalProperties", value: $0)
    }
    if !object.properties.isEmpty || !object.patterns.isEmpty || object.additional != nil {
      objects.append(object)
    }
    var array = ArrayPart()
    let items = part.member("items")
    let isTuple = items?.array != nil
    let firstName = isTuple ? "items" : "prefixItems"
    for (index, value) in (part.member(firstName)?.array ?? []).enumerated() {
      array.first.append(part.child(firstName, "\(index)", value: value))
    }
    let othersName = isTuple ? "additionalItems" : "items"
    array.others = part.member(othersName).map { part.child(othersName, value: $0) }
    if !array.first.isEmpty || array.others != nil { arrays.append(array) }
  }

  private static func count(_ member: JSONMember, _ part: LocatedSchema) throws(GrammarError) -> Int
  {
    guard let count = member.value.integer ?? whole(member.value), count >= 0 else {
      throw part.error("'\(member.key)' must be a whole number of 0 or more")
    }
    return count
  }

  /// A whole number that is written with a point.
  private static func whole(_ value: JSONValue) -> Int? {
    value.double.flatMap { $0 == $0.rounded() ? Int(exactly: $0) : nil }
  }
}
