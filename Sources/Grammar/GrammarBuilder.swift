/// Makes one automaton of a grammar's rules: nodes, and edges that read a byte, read nothing or call a rule.
struct GrammarBuilder {
  /// What leads from one node to another.
  struct Edge {
    enum Step: Equatable {
      case bytes(ClosedRange<UInt8>)
      case nothing
      case call(Int)
    }

    var from: Int
    var to: Int
    var step: Step
  }

  struct Rule {
    var name: String
    var start: Int
    var end: Int
    var isDefined = false
  }

  /// Whether what is repeated is copied, and no rules are made of it.
  private let inlines: Bool
  private(set) var edges: [Edge] = []
  private(set) var nodeCount = 0
  private(set) var rules: [Rule] = []

  init(inlines: Bool = false) { self.inlines = inlines }

  mutating func makeNode() -> Int {
    nodeCount += 1
    return nodeCount - 1
  }

  /// A rule that ``define(_:as:)`` says what it matches.
  mutating func declare(_ name: String) throws(GrammarError) -> Int {
    guard rules.count < GrammarLimits.ruleCount else {
      throw GrammarError("it has more than \(GrammarLimits.ruleCount) rules")
    }
    rules.append(Rule(name: name, start: makeNode(), end: makeNode()))
    return rules.count - 1
  }

  mutating func define(_ rule: Int, as body: Expression) throws(GrammarError) {
    rules[rule].isDefined = true
    try add(body, from: rules[rule].start, to: rules[rule].end)
  }

  /// A new rule, as an expression.
  mutating func rule(_ name: String, _ body: Expression) throws(GrammarError) -> Expression {
    let rule = try declare(name)
    try define(rule, as: body)
    return .rule(rule)
  }

  mutating func connect(_ from: Int, _ to: Int, _ step: Edge.Step) throws(GrammarError) {
    guard edges.count < GrammarLimits.edgeCount else {
      throw GrammarError(
        "it needs more than \(GrammarLimits.edgeCount) edges: lower its repetition counts")
    }
    edges.append(Edge(from: from, to: to, step: step))
  }

  /// Adds paths between two nodes that read what `body` matches; no path enters `from` or leaves `to`.
  mutating func add(_ body: Expression, from: Int, to: Int) throws(GrammarError) {
    switch body {
    case .literal(let bytes): try add(bytes.map { $0...$0 }, from: from, to: to)
    case .scalar(let set):
      for sequence in set.byteSequences { try add(sequence, from: from, to: to) }
    case .sequence(let parts):
      var node = from
      for (index, part) in parts.enumerated() {
        let next = index + 1 == parts.count ? to : makeNode()
        try add(part, from: node, to: next)
        node = next
      }
      if parts.isEmpty { try connect(from, to, .nothing) }
    case .choice(let parts):
      for part in parts { try add(part, from: from, to: to) }
    case .repetition(let body, let minimum, let maximum):
      try addRepetition(of: body, minimum, maximum, from: from, to: to)
    case .rule(let rule): try connect(from, to, .call(rule))
    case .automaton(let automaton): try add(automaton, from: from, to: to, isQuoted: false)
    case .quoted(let automaton): try add(automaton, from: from, to: to, isQuoted: true)
    }
  }

  private mutating func add(
    _ sequence: [ClosedRange<UInt8>], from: Int, to: Int
  ) throws(GrammarError) {
    var node = from
    for (index, range) in sequence.enumerated() {
      let next = index + 1 == sequence.count ? to : makeNode()
      try connect(node, next, .bytes(range))
      node = next
    }
    if sequence.isEmpty { try connect(from, to, .nothing) }
  }

  private mutating func addRepetition(
    of body: Expression, _ minimum: Int, _ maximum: Int?, from: Int, to: Int
  ) throws(GrammarError) {
    var body = body
    if !inlines, !body.isSmall, max(minimum, maximum ?? 0) > 1 || maximum == nil && minimum > 0 {
      body = try rule("", body)
    }
    // Before the loop, which may come back to its first node.
    var node = makeNode()
    try connect(from, node, .nothing)
    for _ in 0..<minimum {
      let next = makeNode()
      try add(body, from: node, to: next)
      node = next
    }
    guard let maximum else {
      let loop = makeNode()
      try connect(node, loop, .nothing)
      try add(body, from: loop, to: loop)
      return try connect(loop, to, .nothing)
    }
    for _ in minimum..<max(minimum, maximum) {
      try connect(node, to, .nothing)
      let next = makeNode()
      try add(body, from: node, to: next)
      node = next
    }
    try connect(node, to, .nothing)
  }

  private mutating func add(
    _ automaton: ByteAutomaton, from: Int, to: Int, isQuoted: Bool
  ) throws(GrammarError) {
    let first = nodeCount
    nodeCount += automaton.states.count
    try connect(from, first, .nothing)
    for (index, state) in automaton.states.enumerated() {
      for edge in state.edges {
        if isQuoted {
          try addQuoted(edge.bytes, from: first + index, to: first + edge.to)
        } else {
          try connect(first + index, first + edge.to, .bytes(edge.bytes))
        }
      }
      if state.isAccepting { try connect(first + index, to, .nothing) }
    }
  }

  /// Reads one of these bytes as a JSON string has them.
  private mutating func addQuoted(
    _ bytes: ClosedRange<UInt8>, from: Int, to: Int
  ) throws(GrammarError) {
    var plain: ClosedRange<UInt8>?
    for byte in bytes {
      if let escape = JSONRules.escape(byte) {
        try add(escape.map { $0...$0 }, from: from, to: to)
        if let range = plain { try connect(from, to, .bytes(range)) }
        plain = nil
      } else {
        plain = (plain?.lowerBound ?? byte)...byte
      }
    }
    if let plain { try connect(from, to, .bytes(plain)) }
  }
}
