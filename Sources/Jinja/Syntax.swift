/// An expression and where it begins.
struct Expression {
  indirect enum Kind {
    case constant(Value)
    case name(String)
    case list([Expression])
    case tuple([Expression])
    case dictionary([(key: Expression, value: Expression)])
    case attribute(Expression, String)
    case item(Expression, Expression)
    case slice(Expression, start: Expression?, stop: Expression?, step: Expression?)
    case call(Expression, Arguments)
    /// A filter; of the text around it where there is no expression.
    case filter(Expression?, String, Arguments)
    case test(Expression, String, Arguments)
    case not(Expression)
    case negative(Expression)
    case positive(Expression)
    case binary(String, Expression, Expression)
    case concatenation([Expression])
    case comparison(Expression, [(operation: String, value: Expression)])
    case and(Expression, Expression)
    case or(Expression, Expression)
    case condition(Expression, then: Expression, otherwise: Expression?)
  }

  /// The most levels that an expression may have.
  private static let most = 200

  let kind: Kind
  let offset: Int
  private let depth: Int

  /// - Parameter parts: the expressions that it holds.
  init(_ kind: Kind, at offset: Int, of parts: [Expression?] = []) throws(JinjaError) {
    self.kind = kind
    self.offset = offset
    depth = 1 + parts.reduce(0) { max($0, $1?.depth ?? 0) }
    if depth > Self.most {
      throw JinjaError(.limit, "the expression has more than \(Self.most) levels", at: offset)
    }
  }
}

/// What a call passes.
struct Arguments {
  var positional: [Expression] = []
  var named: [(name: String, value: Expression)] = []
  var rest: Expression?
  var namedRest: Expression?

  var all: [Expression?] { positional + named.map(\.value) + [rest, namedRest] }
}

/// What is assigned to.
indirect enum Target {
  case name(String)
  case attribute(of: String, String)
  case tuple([Target])
}

/// A statement and where it begins.
struct Statement {
  indirect enum Kind {
    case text(MarkedText)
    case output([Expression])
    case loop(LoopStatement)
    case branch([(condition: Expression?, body: [Statement])])
    case set(Target, Expression)
    /// What the body renders, through filters.
    case setBlock(Target, filter: Expression?, [Statement])
    case filterBlock(Expression, [Statement])
    case macro(MacroDefinition)
    case call(MacroDefinition, Expression, Arguments)
    case with([(target: Target, value: Expression)], [Statement])
    case scope([Statement])
    case leave
    case skip
    /// What this interpreter knows and does not do.
    case refused(JinjaError)
  }

  let kind: Kind
  let offset: Int
}

struct LoopStatement {
  let target: Target
  let elements: Expression
  let condition: Expression?
  let isRecursive: Bool
  let body: [Statement]
  let otherwise: [Statement]
}

package final class MacroDefinition {
  let name: String
  let parameters: [(name: String, standard: Expression?)]
  let body: [Statement]
  /// Which of `caller`, `varargs` and `kwargs` the body reads.
  let reads: Set<String>

  init(
    name: String, parameters: [(name: String, standard: Expression?)], body: [Statement],
    reads: Set<String>
  ) {
    self.name = name
    self.parameters = parameters
    self.body = body
    self.reads = reads
  }
}
