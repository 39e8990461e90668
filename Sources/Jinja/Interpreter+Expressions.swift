extension Interpreter {
  /// - Parameter text: what a filter without an expression applies to.
  func evaluate(
    _ expression: Expression, _ scope: Scope, around text: Value? = nil
  ) throws(JinjaError) -> Value {
    try nested(at: expression.offset) { () throws(JinjaError) in
      let value = try meter.making { () throws(JinjaError) in
        try self.value(of: expression, scope, text)
      }
      guard case .text(let text) = value else { return value }
      return .text(try text.counted(meter))
    }
  }

  private func value(
    of expression: Expression, _ scope: Scope, _ text: Value?
  ) throws(JinjaError) -> Value {
    switch expression.kind {
    case .constant(let value): return value
    case .name(let name): return scope[name] ?? .undefined("'\(name)' is undefined")
    case .list(let elements): return try .list(of: try values(elements, scope))
    case .tuple(let elements): return try .tuple(of: try values(elements, scope))
    case .dictionary(let pairs): return try dictionary(pairs, scope)
    case .attribute(let value, let name): return try attribute(name, of: evaluate(value, scope))
    case .item(let value, let index):
      return try item(evaluate(index, scope), of: evaluate(value, scope))
    case .slice(let value, let start, let stop, let step):
      return try slice(
        evaluate(value, scope), optional(start, scope), optional(stop, scope),
        optional(step, scope))
    case .call(let callee, let arguments): return try call(callee, arguments, scope, caller: nil)
    case .filter(let value, let name, let arguments):
      let value = try value.map { (value) throws(JinjaError) in
        try evaluate(value, scope, around: text)
      }
      return try filter(name, value ?? text ?? .null, passed(arguments, scope))
    case .test(let value, let name, let arguments):
      return .bool(try test(name, try evaluate(value, scope), passed(arguments, scope)))
    case .not(let value): return .bool(try !evaluate(value, scope).isTrue)
    case .negative(let value): return try Arithmetic(meter).negative(evaluate(value, scope))
    case .positive(let value): return try Arithmetic(meter).positive(evaluate(value, scope))
    case .binary(let symbol, let left, let right):
      return try binary(symbol, evaluate(left, scope), evaluate(right, scope))
    case .concatenation(let parts): return try concatenation(parts, scope)
    case .comparison(let first, let others): return try comparison(first, others, scope)
    case .and(let left, let right):
      let value = try evaluate(left, scope)
      return value.isTrue ? try evaluate(right, scope) : value
    case .or(let left, let right):
      let value = try evaluate(left, scope)
      return value.isTrue ? value : try evaluate(right, scope)
    case .condition(let condition, let then, let otherwise):
      if try evaluate(condition, scope).isTrue { return try evaluate(then, scope) }
      guard let otherwise else { return .undefined("the condition is false and has no 'else'") }
      return try evaluate(otherwise, scope)
    }
  }

  func values(_ expressions: [Expression], _ scope: Scope) throws(JinjaError) -> [Value] {
    var values: [Value] = []
    try meter.hold(expressions.count)
    for expression in expressions { values.append(try evaluate(expression, scope)) }
    return values
  }

  private func optional(_ expression: Expression?, _ scope: Scope) throws(JinjaError) -> Value? {
    guard let expression else { return nil }
    let value = try evaluate(expression, scope)
    return value.isNull ? nil : value
  }

  private func dictionary(
    _ pairs: [(key: Expression, value: Expression)], _ scope: Scope
  ) throws(JinjaError) -> Value {
    var values: [(key: Value, value: Value)] = []
    for (key, value) in pairs {
      values.append((try evaluate(key, scope), try evaluate(value, scope)))
    }
    return .dictionary(try Mapping(values, meter))
  }

  private func concatenation(
    _ parts: [Expression], _ scope: Scope
  ) throws(JinjaError) -> Value {
    var result = MarkedText()
    for part in parts {
      let text = try evaluate(part, scope).string(meter)
      try meter.copy(text.count)
      result.append(text)
    }
    return .text(result)
  }

  private func comparison(
    _ first: Expression, _ others: [(operation: String, value: Expression)], _ scope: Scope
  ) throws(JinjaError) -> Value {
    var left = try evaluate(first, scope)
    for (operation, expression) in others {
      let right = try evaluate(expression, scope)
      guard try compare(left, operation, right) else { return .bool(false) }
      left = right
    }
    return .bool(true)
  }

  func compare(_ left: Value, _ operation: String, _ right: Value) throws(JinjaError) -> Bool {
    switch operation {
    case "==": return try left.isEqual(to: right, meter)
    case "!=": return try !left.isEqual(to: right, meter)
    case "in": return try right.contains(left, meter)
    case "not in": return try !right.contains(left, meter)
    default:
      let order = try left.order(right, meter)
      switch operation {
      case "<": return order == .less
      case "<=": return order == .less || order == .equal
      case ">": return order == .greater
      default: return order == .greater || order == .equal
      }
    }
  }

  /// Arithmetic, and what Python's operators do to texts and lists.
  private func binary(
    _ symbol: String, _ left: Value, _ right: Value
  ) throws(JinjaError) -> Value {
    try left.requireDefined()
    if symbol == "%", case .text(let format) = left {
      return .text(try PercentFormat(self, format).format(right))
    }
    try right.requireDefined()
    if let a = left.number, let b = right.number {
      return try Arithmetic(meter).apply(symbol, a, b)
    }
    switch (symbol, left, right) {
    case ("+", .text(let a), .text(let b)): return .text(try joined(a, b))
    case ("+", .list(let a), .list(let b)):
      try meter.list(a.elements.count + b.elements.count)
      return try .list(of: a.elements + b.elements)
    case ("+", .tuple(let a), .tuple(let b)):
      try meter.list(a.elements.count + b.elements.count)
      return try .tuple(of: a.elements + b.elements)
    case ("*", _, _):
      if let times = right.index, let value = try repeated(left, times) { return value }
      if let times = left.index, let value = try repeated(right, times) { return value }
    default: break
    }
    throw JinjaError(
      .type, "'\(symbol)' does not take values of types '\(left.typeName)' and '\(right.typeName)'")
  }

  /// Two texts after each other; where one is `Markup`, the other is escaped.
  func joined(_ a: MarkedText, _ b: MarkedText) throws(JinjaError) -> MarkedText {
    let isSafe = a.isSafe || b.isSafe
    var result = isSafe ? try a.escaped(meter) : a
    let other = isSafe ? try b.escaped(meter) : b
    try meter.copy(result.count + other.count)
    result.append(other)
    return result
  }

  private func repeated(_ value: Value, _ times: Int) throws(JinjaError) -> Value? {
    func elements(_ sequence: Value.Sequence) throws(JinjaError) -> [Value] {
      guard times > 0, !sequence.elements.isEmpty else { return [] }
      let (count, overflow) = sequence.elements.count.multipliedReportingOverflow(by: times)
      try meter.list(overflow ? Int.max : count)
      return (0..<times).flatMap { _ in sequence.elements }
    }
    switch value {
    case .text(let text): return .text(try text.repeated(times, meter))
    case .list(let sequence): return try .list(of: elements(sequence))
    case .tuple(let sequence): return try .tuple(of: elements(sequence))
    default: return nil
    }
  }
}
