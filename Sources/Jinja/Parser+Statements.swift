extension Parser {
  /// Reads statements up to a tag that begins with one of `ends`, or to the end of the template.
  mutating func statements(until ends: [String]) throws(JinjaError) -> [Statement] {
    try nested { (parser) throws(JinjaError) in
      var result: [Statement] = []
      while true {
        let offset = parser.current.offset
        switch parser.current.kind {
        case .data(let bytes):
          parser.take()
          parser.literals.append(bytes)
          result.append(Statement(kind: .text(MarkedText(bytes)), offset: offset))
        case .variableBegin:
          parser.take()
          let value = try parser.tupleOrExpression()
          try parser.expect(.variableEnd)
          result.append(Statement(kind: .output([value]), offset: offset))
        case .blockBegin:
          parser.take()
          if case .name(let name) = parser.current.kind, ends.contains(name) { return result }
          if let kind = try parser.statement() {
            result.append(Statement(kind: kind, offset: offset))
          }
          try parser.expect(.blockEnd)
        default:
          if ends.isEmpty { return result }
          throw parser.fail("the template ends before '\(ends.joined(separator: "' or '"))'")
        }
      }
    }
  }

  /// Reads the rest of a tag and statements up to one of `ends`, which it takes and returns.
  private mutating func body(
    until ends: [String]
  ) throws(JinjaError) -> (body: [Statement], end: String) {
    _ = skipSymbol(":")
    try expect(.blockEnd)
    let body = try statements(until: ends)
    return (body, try expectName())
  }

  /// Reads a body that has names of its own.
  private mutating func innerBody(
    until end: String, isFunction: Bool = false
  ) throws(JinjaError) -> [Statement] {
    let loops = self.loops
    if isFunction { self.loops = 0 }
    defer { self.loops = loops }
    return try conditionally(false) { (parser) throws(JinjaError) in
      try parser.body(until: [end]).body
    }
  }

  /// Reads a statement after `{%`.
  private mutating func statement() throws(JinjaError) -> Statement.Kind? {
    let offset = current.offset
    guard case .name(let tag) = current.kind else {
      throw fail("a tag should begin with a name, not \(current.description)")
    }
    take()
    switch tag {
    case "for": return .loop(try loop())
    case "if": return .branch(try branches())
    case "set": return try assignment()
    case "macro": return .macro(try macro())
    case "call": return try callBlock()
    case "filter":
      let filter = try filters(of: nil, isFirst: true)
      return .filterBlock(filter, try innerBody(until: "endfilter"))
    case "with": return try with()
    case "print": return try output()
    case "generation": return .scope(try innerBody(until: "endgeneration", isFunction: true))
    case "block": return try block()
    case "break", "continue":
      if loops == 0 { throw JinjaError(.syntax, "'\(tag)' outside a loop", at: offset) }
      return tag == "break" ? .leave : .skip
    case "include", "import", "from", "extends":
      while current.kind != .blockEnd, current.kind != .end { take() }
      return .refused(JinjaError(.type, "there are no other templates to \(tag)", at: offset))
    case "autoescape":
      throw JinjaError(.unsupported, "'autoescape' is not supported", at: offset)
    default: throw JinjaError(.syntax, "unknown tag '\(tag)'", at: offset)
    }
  }

  private mutating func output() throws(JinjaError) -> Statement.Kind {
    var values: [Expression] = []
    while current.kind != .blockEnd {
      if !values.isEmpty { try expectSymbol(",") }
      values.append(try expression())
    }
    return .output(values)
  }

  private mutating func block() throws(JinjaError) -> Statement.Kind {
    let name = try expectName()
    _ = skipName("scoped")
    _ = skipName("required")
    let body = try innerBody(until: "endblock", isFunction: true)
    _ = skipName(name)
    return .scope(body)
  }

  private mutating func loop() throws(JinjaError) -> LoopStatement {
    let target = try self.target(isLoop: true)
    guard skipName("in") else { throw fail("'in' should be here, not \(current.description)") }
    let elements = try tupleOrExpression(allowsCondition: false, ends: ["recursive"])
    var condition: Expression?
    if skipName("if") {
      condition = try conditionally(false) { (parser) throws(JinjaError) in
        try parser.expression()
      }
    }
    let isRecursive = skipName("recursive")
    loops += 1
    let (body, end) = try conditionally(false) { (parser) throws(JinjaError) in
      try parser.body(until: ["endfor", "else"])
    }
    loops -= 1
    let otherwise = end == "else" ? try innerBody(until: "endfor") : []
    return LoopStatement(
      target: target, elements: elements, condition: condition, isRecursive: isRecursive,
      body: body, otherwise: otherwise)
  }

  private mutating func branches() throws(JinjaError) -> [(Expression?, [Statement])] {
    try conditionally(true) { (parser) throws(JinjaError) in
      var branches: [(Expression?, [Statement])] = []
      while true {
        let condition = try parser.tupleOrExpression(allowsCondition: false)
        let (body, end) = try parser.body(until: ["elif", "else", "endif"])
        branches.append((condition, body))
        if end == "elif" { continue }
        if end == "else" { branches.append((nil, try parser.body(until: ["endif"]).body)) }
        return branches
      }
    }
  }

  private mutating func assignment() throws(JinjaError) -> Statement.Kind {
    let target = try self.target(allowsAttributes: true)
    if skipSymbol("=") { return .set(target, try tupleOrExpression()) }
    let filter = isSymbol("|") ? try filters(of: nil) : nil
    return .setBlock(target, filter: filter, try innerBody(until: "endset"))
  }

  private mutating func with() throws(JinjaError) -> Statement.Kind {
    var values: [(Target, Expression)] = []
    while current.kind != .blockEnd {
      if !values.isEmpty { try expectSymbol(",") }
      let target = try self.target()
      try expectSymbol("=")
      values.append((target, try expression()))
    }
    return .with(values, try innerBody(until: "endwith"))
  }

  // MARK: Macros

  private mutating func macro() throws(JinjaError) -> MacroDefinition {
    let name = try assignableName()
    return try definition(name, try signature(), until: "endmacro")
  }

  private mutating func callBlock() throws(JinjaError) -> Statement.Kind {
    let parameters = isSymbol("(") ? try signature() : []
    let offset = current.offset
    guard case .call(let callee, let arguments) = try expression().kind else {
      throw JinjaError(.syntax, "a call should be here", at: offset)
    }
    return .call(try definition("caller", parameters, until: "endcall"), callee, arguments)
  }

  private mutating func definition(
    _ name: String, _ parameters: [(String, Expression?)], until end: String
  ) throws(JinjaError) -> MacroDefinition {
    macroReads.append([])
    let body = try innerBody(until: end, isFunction: true)
    let reads = macroReads.removeLast()
    return MacroDefinition(
      name: name, parameters: parameters, body: body,
      reads: reads.subtracting(parameters.map(\.0)))
  }

  private mutating func signature() throws(JinjaError) -> [(String, Expression?)] {
    var parameters: [(String, Expression?)] = []
    try expectSymbol("(")
    while !isSymbol(")") {
      if !parameters.isEmpty { try expectSymbol(",") }
      let name = try assignableName()
      if skipSymbol("=") {
        parameters.append((name, try expression()))
      } else if parameters.last?.1 != nil {
        throw fail("a parameter without a default follows one that has one")
      } else {
        parameters.append((name, nil))
      }
    }
    take()
    return parameters
  }

  // MARK: Targets

  private mutating func assignableName() throws(JinjaError) -> String {
    let offset = current.offset
    let name = try expectName()
    if ["true", "false", "none", "True", "False", "None"].contains(name) {
      throw JinjaError(.syntax, "'\(name)' cannot be assigned to", at: offset)
    }
    return name
  }

  /// Reads what is assigned to: a name, an attribute of a namespace, or several with commas.
  private mutating func target(
    isLoop: Bool = false, allowsAttributes: Bool = false
  ) throws(JinjaError) -> Target {
    try nested { (parser) throws(JinjaError) in
      var targets: [Target] = []
      var isTuple = false
      while true {
        let ends =
          parser.current.kind == .blockEnd || parser.isSymbol(")")
          || isLoop && parser.isName("in")
        if ends, isTuple { break }
        targets.append(try parser.oneTarget(isLoop, allowsAttributes))
        guard parser.skipSymbol(",") else { break }
        isTuple = true
      }
      return isTuple ? .tuple(targets) : targets[0]
    }
  }

  private mutating func oneTarget(
    _ isLoop: Bool, _ allowsAttributes: Bool
  ) throws(JinjaError) -> Target {
    if skipSymbol("(") {
      let inner = try target()
      try expectSymbol(")")
      return inner
    }
    if isLoop, isName("loop") { throw fail("a loop cannot assign to 'loop'") }
    let name = try assignableName()
    if allowsAttributes, skipSymbol(".") { return .attribute(of: name, try expectName()) }
    return .name(name)
  }
}
