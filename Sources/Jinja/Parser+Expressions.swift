extension Parser {
  mutating func expression(allowsCondition: Bool = true) throws(JinjaError) -> Expression {
    try nested { (parser) throws(JinjaError) in
      allowsCondition ? try parser.conditional() : try parser.disjunction()
    }
  }

  /// Reads an expression, or several with commas as a tuple.
  mutating func tupleOrExpression(
    allowsCondition: Bool = true, ends: [String] = [], isInParentheses: Bool = false
  ) throws(JinjaError) -> Expression {
    let offset = current.offset
    var elements: [Expression] = []
    var isTuple = false
    while true {
      if isTupleEnd(ends) { break }
      elements.append(try expression(allowsCondition: allowsCondition))
      guard skipSymbol(",") else { break }
      isTuple = true
    }
    if !isTuple, let element = elements.first { return element }
    if !isTuple, !isInParentheses {
      throw fail("an expression should be here, not \(current.description)")
    }
    return try Expression(.tuple(elements), at: offset, of: elements)
  }

  private func isTupleEnd(_ ends: [String]) -> Bool {
    switch current.kind {
    case .variableEnd, .blockEnd, .symbol(")"): true
    case .name(let name): ends.contains(name)
    default: false
    }
  }

  /// `a if b else c`: a filter in any part may be missing while that part is not reached.
  private mutating func conditional() throws(JinjaError) -> Expression {
    let offset = current.offset
    let missingBefore = missing.count
    var value = try disjunction()
    while skipName("if") {
      let condition = try disjunction()
      var otherwise: Expression?
      if skipName("else") {
        otherwise = try nested { (parser) throws(JinjaError) in try parser.conditional() }
      }
      missing.removeSubrange(missingBefore...)
      value = try Expression(
        .condition(condition, then: value, otherwise: otherwise), at: offset,
        of: [condition, value, otherwise])
    }
    return value
  }

  private mutating func disjunction() throws(JinjaError) -> Expression {
    let offset = current.offset
    var left = try conjunction()
    while skipName("or") {
      let right = try conjunction()
      left = try Expression(.or(left, right), at: offset, of: [left, right])
    }
    return left
  }

  private mutating func conjunction() throws(JinjaError) -> Expression {
    let offset = current.offset
    var left = try negation()
    while skipName("and") {
      let right = try negation()
      left = try Expression(.and(left, right), at: offset, of: [left, right])
    }
    return left
  }

  private mutating func negation() throws(JinjaError) -> Expression {
    let offset = current.offset
    guard skipName("not") else { return try comparison() }
    let value = try nested { (parser) throws(JinjaError) in try parser.negation() }
    return try Expression(.not(value), at: offset, of: [value])
  }

  private mutating func comparison() throws(JinjaError) -> Expression {
    let offset = current.offset
    let first = try sum()
    var others: [(String, Expression)] = []
    while true {
      if case .symbol(let symbol) = current.kind,
        ["==", "!=", "<", "<=", ">", ">="].contains(symbol)
      {
        take()
        others.append((symbol, try sum()))
      } else if skipName("in") {
        others.append(("in", try sum()))
      } else if isName("not"), next.kind == .name("in") {
        take()
        take()
        others.append(("not in", try sum()))
      } else {
        break
      }
    }
    if others.isEmpty { return first }
    return try Expression(
      .comparison(first, others), at: offset, of: [first] + others.map(\.1))
  }

  /// Reads operands with operators of one level between them.
  private mutating func operations(
    _ symbols: [String], _ operand: (inout Parser) throws(JinjaError) -> Expression
  ) throws(JinjaError) -> Expression {
    let offset = current.offset
    var left = try operand(&self)
    while case .symbol(let symbol) = current.kind, symbols.contains(symbol) {
      take()
      let right = try operand(&self)
      left = try Expression(.binary(symbol, left, right), at: offset, of: [left, right])
    }
    return left
  }

  private mutating func sum() throws(JinjaError) -> Expression {
    try operations(["+", "-"]) { (parser) throws(JinjaError) in try parser.concatenation() }
  }

  private mutating func concatenation() throws(JinjaError) -> Expression {
    let offset = current.offset
    var parts = [try product()]
    while skipSymbol("~") { parts.append(try product()) }
    return parts.count == 1
      ? parts[0] : try Expression(.concatenation(parts), at: offset, of: parts)
  }

  private mutating func product() throws(JinjaError) -> Expression {
    try operations(["*", "/", "//", "%"]) { (parser) throws(JinjaError) in
      try parser.operations(["**"]) { (parser) throws(JinjaError) in try parser.unary() }
    }
  }

  private mutating func unary(withFilters: Bool = true) throws(JinjaError) -> Expression {
    let offset = current.offset
    var value: Expression
    if isSymbol("-") || isSymbol("+") {
      let isNegative = take().kind == .symbol("-")
      let inner = try nested { (parser) throws(JinjaError) in
        try parser.unary(withFilters: false)
      }
      value = try Expression(
        isNegative ? .negative(inner) : .positive(inner), at: offset, of: [inner])
    } else {
      value = try primary()
    }
    value = try postfix(value)
    return withFilters ? try filtersAndTests(value) : value
  }

  private mutating func primary() throws(JinjaError) -> Expression {
    let token = current
    switch token.kind {
    case .name(let name):
      take()
      switch name {
      case "true", "True": return try Expression(.constant(.bool(true)), at: token.offset)
      case "false", "False": return try Expression(.constant(.bool(false)), at: token.offset)
      case "none", "None": return try Expression(.constant(.null), at: token.offset)
      default:
        if ["caller", "varargs", "kwargs"].contains(name) {
          for index in macroReads.indices { macroReads[index].insert(name) }
        }
        names.insert(name)
        return try Expression(.name(name), at: token.offset)
      }
    case .string:
      var text: [UInt8] = []
      while case .string(let part) = current.kind {
        text += part
        take()
      }
      literals.append(text)
      return try Expression(.constant(.text(MarkedText(text))), at: token.offset)
    case .integer(let value):
      take()
      return try Expression(.constant(.integer(value)), at: token.offset)
    case .float(let value):
      take()
      return try Expression(.constant(.float(value)), at: token.offset)
    case .symbol("("):
      take()
      let value = try tupleOrExpression(isInParentheses: true)
      try expectSymbol(")")
      return value
    case .symbol("["):
      take()
      let elements = try list(until: "]") { (parser) throws(JinjaError) in
        try parser.expression()
      }
      return try Expression(.list(elements), at: token.offset, of: elements)
    case .symbol("{"):
      take()
      let pairs = try list(until: "}") { (parser) throws(JinjaError) in
        let key = try parser.expression()
        try parser.expectSymbol(":")
        return (key, try parser.expression())
      }
      return try Expression(
        .dictionary(pairs), at: token.offset, of: pairs.flatMap { [$0.0, $0.1] })
    default: throw fail("unexpected \(token.description)")
    }
  }

  /// Reads elements with commas, of which one may be last, and the closing bracket.
  private mutating func list<Element>(
    until end: String, _ element: (inout Parser) throws(JinjaError) -> Element
  ) throws(JinjaError) -> [Element] {
    var elements: [Element] = []
    while !isSymbol(end) {
      if !elements.isEmpty {
        try expectSymbol(",")
        if isSymbol(end) { break }
      }
      elements.append(try element(&self))
    }
    try expectSymbol(end)
    return elements
  }

  // MARK: What follows a value

  private mutating func postfix(_ value: Expression) throws(JinjaError) -> Expression {
    var value = value
    while true {
      if isSymbol(".") {
        value = try attribute(of: value)
      } else if isSymbol("[") {
        value = try subscripted(value)
      } else if isSymbol("(") {
        value = try call(value)
      } else {
        return value
      }
    }
  }

  private mutating func attribute(of value: Expression) throws(JinjaError) -> Expression {
    let offset = take().offset
    switch take().kind {
    case .name(let name): return try Expression(.attribute(value, name), at: offset, of: [value])
    case .integer(let number):
      let index = try Expression(.constant(.integer(number)), at: offset)
      return try Expression(.item(value, index), at: offset, of: [value])
    default: throw JinjaError(.syntax, "a name or a number should follow '.'", at: offset)
    }
  }

  private mutating func subscripted(_ value: Expression) throws(JinjaError) -> Expression {
    let offset = take().offset
    if skipSymbol("]") {
      let nothing = try Expression(.tuple([]), at: offset, of: [])
      return try Expression(.item(value, nothing), at: offset, of: [value, nothing])
    }
    var parts: [Expression?] = []
    var isSlice = false
    if !isSymbol(":") { parts.append(try expression()) } else { parts.append(nil) }
    while parts.count < 3, skipSymbol(":") {
      isSlice = true
      let isOpen = isSymbol(":") || isSymbol("]") || isSymbol(",")
      parts.append(isOpen ? nil : try expression())
    }
    if isSlice {
      if isSymbol(",") { throw JinjaError(.type, "a slice in a tuple", at: offset) }
      try expectSymbol("]")
      parts += [nil, nil]
      return try Expression(
        .slice(value, start: parts[0], stop: parts[1], step: parts[2]), at: offset,
        of: [value] + parts)
    }
    var elements = parts.compactMap { $0 }
    let isTuple = isSymbol(",")
    while skipSymbol(",") { elements.append(try expression()) }
    try expectSymbol("]")
    let index =
      isTuple ? try Expression(.tuple(elements), at: offset, of: elements) : elements[0]
    return try Expression(.item(value, index), at: offset, of: [value, index])
  }

  private mutating func call(_ callee: Expression) throws(JinjaError) -> Expression {
    let offset = current.offset
    let arguments = try self.arguments()
    return try Expression(.call(callee, arguments), at: offset, of: [callee] + arguments.all)
  }

  private mutating func arguments() throws(JinjaError) -> Arguments {
    let offset = current.offset
    try expectSymbol("(")
    var arguments = Arguments()
    var isFirst = true
    while !isSymbol(")") {
      if !isFirst {
        try expectSymbol(",")
        if isSymbol(")") { break }
      }
      isFirst = false
      let isOrdered: Bool
      if skipSymbol("*") {
        isOrdered = arguments.rest == nil && arguments.namedRest == nil
        arguments.rest = try expression()
      } else if skipSymbol("**") {
        isOrdered = arguments.namedRest == nil
        arguments.namedRest = try expression()
      } else if case .name(let name) = current.kind, next.kind == .symbol("=") {
        take()
        take()
        isOrdered = arguments.namedRest == nil && !arguments.named.contains { $0.name == name }
        arguments.named.append((name, try expression()))
      } else {
        isOrdered =
          arguments.rest == nil && arguments.namedRest == nil && arguments.named.isEmpty
        arguments.positional.append(try expression())
      }
      if !isOrdered { throw JinjaError(.syntax, "arguments out of order", at: offset) }
    }
    take()
    return arguments
  }

  private mutating func filtersAndTests(_ value: Expression) throws(JinjaError) -> Expression {
    var value = value
    while true {
      if isSymbol("|") {
        value = try filters(of: value)
      } else if isName("is") {
        value = try test(of: value)
      } else if isSymbol("(") {
        value = try call(value)
      } else {
        return value
      }
    }
  }

  private mutating func dottedName() throws(JinjaError) -> String {
    var name = try expectName()
    while skipSymbol(".") { name += "." + (try expectName()) }
    return name
  }

  /// Reads filters, the first without `|` where `isFirst`.
  mutating func filters(of value: Expression?, isFirst: Bool = false) throws(JinjaError)
    -> Expression
  {
    var (value, isFirst) = (value, isFirst)
    while isFirst || isSymbol("|") {
      if !isFirst { take() }
      isFirst = false
      let offset = current.offset
      let name = try dottedName()
      if !isConditional, Filter(rawValue: name) == nil {
        missing.append(JinjaError(.syntax, "there is no filter '\(name)'", at: offset))
      }
      let arguments = isSymbol("(") ? try self.arguments() : Arguments()
      value = try Expression(
        .filter(value, name, arguments), at: offset, of: [value] + arguments.all)
    }
    guard let value else { throw fail("a filter should be here") }
    return value
  }

  private mutating func test(of value: Expression) throws(JinjaError) -> Expression {
    take()
    let isNegated = skipName("not")
    let offset = current.offset
    let name = try dottedName()
    if !isConditional, Test(rawValue: name) == nil {
      missing.append(JinjaError(.syntax, "there is no test '\(name)'", at: offset))
    }
    var arguments = Arguments()
    if isSymbol("(") {
      arguments = try self.arguments()
    } else if isTestArgument {
      if isName("is") { throw fail("tests cannot be chained") }
      arguments.positional = [
        try nested { (parser) throws(JinjaError) in try parser.postfix(try parser.primary()) }
      ]
    }
    let test = try Expression(
      .test(value, name, arguments), at: offset, of: [value] + arguments.all)
    return isNegated ? try Expression(.not(test), at: offset, of: [test]) : test
  }

  private var isTestArgument: Bool {
    switch current.kind {
    case .name(let name): !["else", "or", "and"].contains(name)
    case .string, .integer, .float, .symbol("["), .symbol("{"): true
    default: false
    }
  }
}
