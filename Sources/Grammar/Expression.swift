/// What a rule matches.
indirect enum Expression: Sendable {
  case literal([UInt8])
  /// One of these scalars, as UTF-8.
  case scalar(ScalarSet)
  case sequence([Expression])
  case choice([Expression])
  /// - maximum: nil = without end.
  case repetition(Expression, minimum: Int, maximum: Int?)
  /// What the rule of that number matches.
  case rule(Int)
  /// What an automaton accepts.
  case automaton(ByteAutomaton)
  /// What an automaton accepts, as it is written between the quotes of a JSON string.
  case quoted(ByteAutomaton)

  static let empty = Expression.sequence([])
  /// Matches nothing at all.
  static let never = Expression.choice([])

  static func literal(_ text: String) -> Expression { .literal(Array(text.utf8)) }

  static func optional(_ body: Expression) -> Expression {
    .repetition(body, minimum: 0, maximum: 1)
  }

  static func any(_ body: Expression) -> Expression {
    .repetition(body, minimum: 0, maximum: nil)
  }

  /// Whether copying it costs as little as calling a rule.
  var isSmall: Bool {
    switch self {
    case .literal(let bytes): bytes.count <= 2
    case .scalar(let set): set.ranges.last.map { $0.upperBound < 0x80 } ?? true
    case .rule: true
    case .sequence(let parts): parts.isEmpty || parts.count == 1 && parts[0].isSmall
    case .choice, .repetition, .automaton, .quoted: false
    }
  }
}
