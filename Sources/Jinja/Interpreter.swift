/// Runs a template once. See `+Statements`, `+Expressions`, `+Access` and `+Calls`.
final class Interpreter {
  let meter: Meter
  let clock: Clock
  /// What is being rendered: the template's text, or a captured block's.
  var output = MarkedText()
  private var captures = 0
  /// Expressions and statements being evaluated inside each other.
  private var nesting = 0
  private var calls = 0
  /// What may hold itself, to be let go of at the end.
  private var namespaces: [Namespace] = []
  private var scopes: [Scope] = []

  init(_ meter: Meter, _ clock: Clock) {
    self.meter = meter
    self.clock = clock
  }

  deinit {
    for namespace in namespaces { namespace.clear() }
    for scope in scopes { scope.clear() }
  }

  /// Renders a template with variables.
  func render(
    _ body: [Statement], _ variables: [(name: String, value: Value)]
  ) throws(JinjaError) -> MarkedText {
    let globals = Scope(parent: nil)
    for function in Function.allCases { globals.set(function.rawValue, to: .function(function)) }
    let scope = Scope(parent: globals)
    for (name, value) in variables { scope.set(name, to: value) }
    _ = try execute(body, scope)
    return output
  }

  /// Runs what may hold more of its kind.
  @inline(never)
  func nested<Result>(
    at offset: Int, _ run: () throws(JinjaError) -> Result
  ) throws(JinjaError) -> Result {
    nesting += 1
    defer { nesting -= 1 }
    do throws(JinjaError) {
      try meter.step()
      if nesting > Limits.nesting {
        throw JinjaError(.limit, "more than \(Limits.nesting) parts of the template run at once")
      }
      return try run()
    } catch { throw error.at(offset) }
  }

  /// Runs a call of a macro.
  func called<Result>(_ run: () throws(JinjaError) -> Result) throws(JinjaError) -> Result {
    calls += 1
    defer { calls -= 1 }
    if calls > Limits.depth {
      throw JinjaError(.limit, "macros call each other more than \(Limits.depth) times deep")
    }
    return try run()
  }

  /// Appends to what is being rendered.
  func emit(_ text: MarkedText) throws(JinjaError) {
    if captures == 0 {
      try meter.output(output.count + text.count)
    } else {
      try meter.copy(text.count)
    }
    output.append(text)
  }

  /// Renders into a text of its own.
  func captured(_ run: () throws(JinjaError) -> Void) throws(JinjaError) -> MarkedText {
    let before = output
    output = MarkedText()
    captures += 1
    defer {
      captures -= 1
      output = before
    }
    try meter.making(run)
    return output
  }

  func newNamespace() throws(JinjaError) -> Namespace {
    try meter.hold(4)
    let namespace = Namespace()
    namespaces.append(namespace)
    return namespace
  }

  /// A macro that keeps the names around it.
  func closure(
    _ definition: MacroDefinition, in scope: Scope
  ) throws(JinjaError) -> Macro {
    try meter.hold(4)
    scopes.append(scope)
    return Macro(definition, in: scope)
  }

  /// The elements that iterating over a value gives, one after another.
  ///
  /// - Throws: `JinjaError` for a value that cannot be iterated over.
  func generator(over value: Value) throws(JinjaError) -> Generator {
    if case .generator(let generator) = value { return generator }
    if case .loop(let loop) = value {
      return try Generator(above: loop.depth) { () throws(JinjaError) in try loop.advance() }
    }
    if case .range(let range) = value {
      return try Generator(count: range.count, above: 0) { .integer(range[$0]) }
    }
    if case .text(let text) = value { return try characters(of: text) }
    return try Generator(finite(value), above: value.depth)
  }

  /// A text's characters, one after another.
  private func characters(of text: MarkedText) throws(JinjaError) -> Generator {
    var offset = 0
    return try Generator(above: 0) { () throws(JinjaError) -> Value? in
      guard offset < text.count else { return nil }
      let start = offset
      offset += text.bytes.scalar(at: start).length
      return .text(text[start..<offset])
    }
  }

  /// All elements of a value.
  func elements(of value: Value) throws(JinjaError) -> [Value] {
    guard case .generator(let generator) = value else { return try finite(value) }
    var elements: [Value] = []
    while let next = try generator.next() {
      try meter.append(next)
      elements.append(next)
    }
    return elements
  }

  private func finite(_ value: Value) throws(JinjaError) -> [Value] {
    switch value {
    case .undefined: return []
    case .list(let sequence), .tuple(let sequence):
      try meter.step(sequence.elements.count / 64)
      return sequence.elements
    case .dictionary(let mapping):
      try meter.step(mapping.keys.count / 64)
      return mapping.keys
    case .view(let view, let mapping): return try mapping.elements(view, meter)
    case .range(let range):
      try meter.list(range.count)
      return range.values
    case .text(let text):
      try meter.hold(text.count)
      return text.characters.map { .text($0) }
    default: throw JinjaError(.type, "a value of type '\(value.typeName)' cannot be iterated over")
    }
  }
}
