/// What a call passes, evaluated.
struct Passed {
  var positional: [Value] = []
  var named: [(name: String, value: Value)] = []
  /// Those of the names that are data.
  var dataNames: Set<String> = []

  /// A name as a text.
  func text(of name: String) -> Value { .text(name, isData: dataNames.contains(name)) }

  /// Assigns them to parameters, nil for those that are not given.
  ///
  /// - Throws: `JinjaError` for too many, unknown or doubled ones.
  func bound(to names: [String], of callee: String, least: Int = 0) throws(JinjaError) -> [Value?] {
    guard positional.count <= names.count else {
      throw JinjaError(.type, "'\(callee)' takes at most \(names.count) arguments")
    }
    var values: [Value?] = positional + Array(repeating: nil, count: names.count - positional.count)
    for (name, value) in named {
      guard let index = names.firstIndex(of: name), values[index] == nil else {
        throw JinjaError(.type, "'\(callee)' takes no argument '\(name)' here")
      }
      values[index] = value
    }
    if let missing = values.prefix(least).firstIndex(where: { $0 == nil }) {
      throw JinjaError(.type, "'\(callee)' needs its argument '\(names[missing])'")
    }
    return values
  }
}

extension Interpreter {
  func passed(_ arguments: Arguments, _ scope: Scope) throws(JinjaError) -> Passed {
    var passed = Passed()
    try meter.list(arguments.positional.count)
    for value in arguments.positional { passed.positional.append(try evaluate(value, scope)) }
    for (name, value) in arguments.named {
      passed.named.append((name, try evaluate(value, scope)))
    }
    if let rest = arguments.rest {
      passed.positional += try elements(of: try evaluate(rest, scope))
    }
    if let rest = arguments.namedRest {
      guard case .dictionary(let mapping) = try evaluate(rest, scope) else {
        throw JinjaError(.type, "what follows '**' must be a dictionary")
      }
      try meter.hold(mapping.keys.count)
      var names = Set(passed.named.map(\.name))
      for (key, value) in mapping.pairs {
        guard case .text(let name) = key else {
          throw JinjaError(.type, "names of arguments must be strings")
        }
        guard names.insert(name.string).inserted else {
          throw JinjaError(.type, "the argument '\(name.string)' is given twice")
        }
        passed.named.append((name.string, value))
        if !name.data.isEmpty { passed.dataNames.insert(name.string) }
      }
    }
    return passed
  }

  /// - Parameter caller: the body of a call block.
  func call(
    _ callee: Expression, _ arguments: Arguments, _ scope: Scope, caller: Value?
  ) throws(JinjaError) -> Value {
    let callee = try evaluate(callee, scope)
    var passed = try passed(arguments, scope)
    if let caller { passed.named.append(("caller", caller)) }
    return try call(callee, passed)
  }

  func call(_ callee: Value, _ passed: Passed) throws(JinjaError) -> Value {
    switch callee {
    case .undefined(let why): throw JinjaError(.undefined, why)
    case .macro(let macro):
      return try called { () throws(JinjaError) in try call(macro, passed) }
    case .function(let function): return try call(function, passed)
    case .method(let receiver, let name): return try call(name, of: receiver, passed)
    case .joiner(let joiner):
      _ = try passed.bound(to: [], of: "joiner")
      return joiner.next()
    case .loop(let loop):
      guard let render = loop.render else {
        throw JinjaError(.type, "the loop is not recursive")
      }
      guard let elements = try passed.bound(to: ["iterable"], of: "loop", least: 1)[0] else {
        return .null
      }
      return try render(elements, loop.recursion + 1)
    default: throw JinjaError(.type, "a value of type '\(callee.typeName)' cannot be called")
    }
  }

  private func call(_ macro: Macro, _ passed: Passed) throws(JinjaError) -> Value {
    let definition = macro.definition
    var named = passed.named
    func take(_ name: String) -> Value? {
      named.firstIndex { $0.name == name }.map { named.remove(at: $0).value }
    }
    let scope = Scope(parent: macro.scope)
    var given: [Value?] = Array(passed.positional.prefix(definition.parameters.count))
    for parameter in definition.parameters.dropFirst(given.count) {
      given.append(take(parameter.name))
    }
    if definition.reads.contains("caller") {
      scope.set("caller", to: take("caller") ?? .undefined("there is no caller"))
    }
    let rest = Array(passed.positional.dropFirst(definition.parameters.count))
    if definition.reads.contains("kwargs") {
      let pairs = named.map { (key: passed.text(of: $0.name), value: $0.value) }
      scope.set("kwargs", to: .dictionary(try Mapping(pairs, meter)))
    } else if let unknown = named.first {
      throw JinjaError(.type, "macro '\(definition.name)' takes no argument '\(unknown.name)'")
    }
    if definition.reads.contains("varargs") {
      try meter.hold(rest.count)
      scope.set("varargs", to: try .tuple(of: rest))
    } else if !rest.isEmpty {
      throw JinjaError(
        .type,
        "macro '\(definition.name)' takes at most \(definition.parameters.count) arguments")
    }
    for (parameter, value) in zip(definition.parameters, given) {
      if let value {
        scope.set(parameter.name, to: value)
      } else if let standard = parameter.standard {
        scope.set(parameter.name, to: try evaluate(standard, scope))
      } else {
        scope.set(parameter.name, to: .undefined("parameter '\(parameter.name)' was not provided"))
      }
    }
    return .text(
      try captured { () throws(JinjaError) in _ = try execute(definition.body, scope) })
  }

  /// Python's `len()`.
  func length(of value: Value) throws(JinjaError) -> Int {
    switch value {
    case .undefined: return 0
    case .text(let text):
      try meter.step(1 + text.count / 16)
      return text.characterCount
    case .list(let sequence), .tuple(let sequence): return sequence.elements.count
    case .dictionary(let mapping), .view(_, let mapping): return mapping.keys.count
    case .range(let range): return range.count
    case .loop(let loop):
      guard case .integer(let length)? = try loop.attribute("length", meter) else { return 0 }
      return length
    default: throw JinjaError(.type, "a value of type '\(value.typeName)' has no length")
    }
  }
}
