/// Reads tokens into statements, as jinja2's parser does; see `Parser+Statements` and `+Expressions`.
struct Parser {
  private let tokens: [Token]
  private var index = 0
  /// Statements and expressions being read inside each other.
  private var nesting = 0
  /// Loops around that `break` may leave.
  var loops = 0
  /// Whether a filter that does not exist fails only where it is reached: directly inside a condition.
  var isConditional = false
  /// Filters and tests that do not exist, outside conditions.
  var missing: [JinjaError] = []
  /// Names that macros being read use, outermost first.
  var macroReads: [Set<String>] = []
  /// Texts outside tags and in string literals.
  var literals: [[UInt8]] = []
  /// Names in expressions.
  var names: Set<String> = []

  private init(_ tokens: [Token]) { self.tokens = tokens }

  /// - Parameter source: a normalised template.
  static func parse(
    _ source: [UInt8]
  ) throws(JinjaError) -> (body: [Statement], literals: [[UInt8]], names: Set<String>) {
    var parser = Parser(try Lexer.tokens(of: source))
    let body = try parser.statements(until: [])
    if let missing = parser.missing.first { throw missing }
    return (body, parser.literals, parser.names)
  }

  var current: Token { tokens[index] }
  var next: Token { tokens[min(index + 1, tokens.count - 1)] }

  @discardableResult
  mutating func take() -> Token {
    let token = tokens[index]
    if index + 1 < tokens.count { index += 1 }
    return token
  }

  func isSymbol(_ symbol: String) -> Bool { current.kind == .symbol(symbol) }
  func isName(_ name: String) -> Bool { current.kind == .name(name) }

  mutating func skipSymbol(_ symbol: String) -> Bool {
    if isSymbol(symbol) { take() } else { return false }
    return true
  }

  mutating func skipName(_ name: String) -> Bool {
    if isName(name) { take() } else { return false }
    return true
  }

  mutating func expect(_ kind: Token.Kind) throws(JinjaError) {
    guard current.kind == kind else {
      let wanted = Token(kind: kind, offset: 0).description
      throw fail("\(wanted) should be here, not \(current.description)")
    }
    take()
  }

  mutating func expectSymbol(_ symbol: String) throws(JinjaError) { try expect(.symbol(symbol)) }

  mutating func expectName() throws(JinjaError) -> String {
    guard case .name(let name) = current.kind else {
      throw fail("a name should be here, not \(current.description)")
    }
    take()
    return name
  }

  func fail(_ message: String) -> JinjaError {
    JinjaError(.syntax, message, at: current.offset)
  }

  /// Reads something that may hold more of its kind.
  mutating func nested<Result>(
    _ read: (inout Parser) throws(JinjaError) -> Result
  ) throws(JinjaError) -> Result {
    nesting += 1
    defer { nesting -= 1 }
    if nesting > Limits.depth {
      throw JinjaError(
        .limit, "the template is nested more than \(Limits.depth) levels deep",
        at: current.offset)
    }
    return try read(&self)
  }

  /// Reads with another setting of whether filters may be missing.
  mutating func conditionally<Result>(
    _ isConditional: Bool, _ read: (inout Parser) throws(JinjaError) -> Result
  ) throws(JinjaError) -> Result {
    let before = self.isConditional
    self.isConditional = isConditional
    defer { self.isConditional = before }
    return try read(&self)
  }
}
