extension Interpreter {
  /// How a statement ended.
  enum Flow { case normal, leave, skip }

  func execute(_ body: [Statement], _ scope: Scope) throws(JinjaError) -> Flow {
    for statement in body {
      let flow = try nested(at: statement.offset) { () throws(JinjaError) in
        try execute(statement, scope)
      }
      if flow != .normal { return flow }
    }
    return .normal
  }

  private func execute(_ statement: Statement, _ scope: Scope) throws(JinjaError) -> Flow {
    switch statement.kind {
    case .text(let text): try emit(text)
    case .output(let values):
      for value in values { try emit(try evaluate(value, scope).string(meter)) }
    case .loop(let loop): return try run(loop, scope)
    case .branch(let branches):
      for (condition, body) in branches {
        if let condition, try !evaluate(condition, scope).isTrue { continue }
        return try execute(body, scope)
      }
    case .set(let target, let value): try assign(try evaluate(value, scope), to: target, scope)
    case .setBlock(let target, let filter, let body):
      let (text, flow) = try render(body, Scope(parent: scope), filter)
      if flow != .normal { return flow }
      try assign(text, to: target, scope)
    case .filterBlock(let filter, let body):
      let (text, flow) = try render(body, Scope(parent: scope), filter)
      if flow != .normal { return flow }
      try emit(text.string(meter))
    case .macro(let definition):
      scope.set(definition.name, to: .macro(try closure(definition, in: scope)))
    case .call(let definition, let callee, let arguments):
      let caller = Value.macro(try closure(definition, in: scope))
      let value = try call(callee, arguments, scope, caller: caller)
      try emit(value.string(meter))
    case .with(let values, let body):
      let inner = Scope(parent: scope)
      for (target, value) in values { try assign(try evaluate(value, scope), to: target, inner) }
      return try execute(body, inner)
    case .scope(let body): return try execute(body, Scope(parent: scope))
    case .leave: return .leave
    case .skip: return .skip
    case .refused(let error): throw error
    }
    return .normal
  }

  /// Renders a body into a text, through filters.
  private func render(
    _ body: [Statement], _ scope: Scope, _ filter: Expression?
  ) throws(JinjaError) -> (Value, Flow) {
    var flow = Flow.normal
    let text = try captured { () throws(JinjaError) in flow = try execute(body, scope) }
    guard let filter, flow == .normal else { return (.text(try text.counted(meter)), flow) }
    return (try evaluate(filter, scope, around: .text(text)), flow)
  }

  func assign(_ value: Value, to target: Target, _ scope: Scope) throws(JinjaError) {
    switch target {
    case .name(let name): scope.set(name, to: value)
    case .attribute(let name, let attribute):
      guard case .namespace(let namespace)? = scope[name] else {
        throw JinjaError(.type, "'\(name)' is no namespace, so '\(attribute)' cannot be set")
      }
      try namespace.set(attribute, to: value)
    case .tuple(let targets):
      let values = try elements(of: value)
      guard values.count == targets.count else {
        throw JinjaError(.value, "\(values.count) values for \(targets.count) names")
      }
      for (target, value) in zip(targets, values) { try assign(value, to: target, scope) }
    }
  }

  // MARK: Loops

  private func run(_ loop: LoopStatement, _ scope: Scope) throws(JinjaError) -> Flow {
    let elements = try evaluate(loop.elements, scope)
    return try run(loop, over: elements, scope, recursion: 0)
  }

  private func run(
    _ statement: LoopStatement, over elements: Value, _ scope: Scope, recursion: Int
  ) throws(JinjaError) -> Flow {
    let (source, total) = try source(statement, elements, scope)
    var render: ((Value, Int) throws(JinjaError) -> Value)?
    if statement.isRecursive {
      render = { [unowned self] (elements, recursion) throws(JinjaError) in
        .text(
          try captured { () throws(JinjaError) in
            _ = try called { () throws(JinjaError) in
              try run(statement, over: elements, scope, recursion: recursion)
            }
          })
      }
    }
    let loop = Loop(source, total: total, recursion: recursion, render: render)
    while let element = try loop.advance() {
      try meter.step()
      let inner = Scope(parent: scope)
      inner.set("loop", to: .loop(loop))
      try assign(element, to: statement.target, inner)
      if try execute(statement.body, inner) == .leave { break }
    }
    if loop.index0 < 0 { return try execute(statement.otherwise, Scope(parent: scope)) }
    return .normal
  }

  /// What a loop runs over, and how many elements that has, where it is known.
  private func source(
    _ statement: LoopStatement, _ elements: Value, _ scope: Scope
  ) throws(JinjaError) -> (Generator, Int?) {
    let source = try generator(over: elements)
    guard let condition = statement.condition else { return (source, try? length(of: elements)) }
    let filtered = try Generator(above: source.depth) {
      [unowned self] () throws(JinjaError) -> Value? in
      while let element = try source.next() {
        try meter.step()
        let inner = Scope(parent: scope)
        try assign(element, to: statement.target, inner)
        if try evaluate(condition, inner).isTrue { return element }
      }
      return nil
    }
    return (filtered, nil)
  }
}
