/// A sequence that can be read once, each element made when it is asked for.
package final class Generator {
  let depth: Int
  private let advance: () throws(JinjaError) -> Value?

  /// - Parameter depth: that of what `advance` reads from.
  init(above depth: Int, _ advance: @escaping () throws(JinjaError) -> Value?) throws(JinjaError) {
    self.depth = depth + 1
    self.advance = advance
    if self.depth > Limits.depth {
      throw JinjaError(.limit, "sequences are nested more than \(Limits.depth) levels deep")
    }
  }

  /// Over elements that are all there.
  convenience init(_ elements: [Value], above depth: Int) throws(JinjaError) {
    try self.init(count: elements.count, above: depth) { elements[$0] }
  }

  /// Over so many elements, each known by its place.
  convenience init(
    count: Int, above depth: Int, _ element: @escaping (Int) -> Value
  ) throws(JinjaError) {
    var index = 0
    try self.init(above: depth) { () throws(JinjaError) -> Value? in
      guard index < count else { return nil }
      index += 1
      return element(index - 1)
    }
  }

  func next() throws(JinjaError) -> Value? { try advance() }
}

/// jinja2's `namespace`: what `{% set ns.name = … %}` changes.
package final class Namespace {
  /// In the order in which they were set first.
  private(set) var names: [MarkedText] = []
  private var attributes: [String: Value] = [:]
  private(set) var depth = 1

  subscript(name: String) -> Value? { attributes[name] }

  func set(
    _ name: String, to value: Value, isData: Bool = false
  ) throws(JinjaError) {
    if name.hasPrefix("_") {
      throw JinjaError(.security, "a namespace cannot have an attribute named '\(name)'")
    }
    depth = max(depth, try Value.depth(above: [value]))
    if attributes.updateValue(value, forKey: name) == nil {
      names.append(MarkedText(name, isData: isData))
    }
  }

  /// Lets go of what it holds, which may be itself.
  func clear() { attributes = [:] }
}

/// Names of a template's part, on top of those around it.
final class Scope {
  private var values: [String: Value] = [:]
  private var parent: Scope?

  init(parent: Scope?) { self.parent = parent }

  /// The value of a name here or around.
  subscript(name: String) -> Value? {
    var scope: Scope? = self
    while let current = scope {
      if let value = current.values[name] { return value }
      scope = current.parent
    }
    return nil
  }

  func set(_ name: String, to value: Value) { values[name] = value }

  /// Lets go of what it holds, which may be macros that hold it.
  func clear() {
    values = [:]
    parent = nil
  }
}

/// A macro, or the body of a call block, with the names around it.
package final class Macro {
  let definition: MacroDefinition
  let scope: Scope

  init(_ definition: MacroDefinition, in scope: Scope) {
    self.definition = definition
    self.scope = scope
  }
}

/// `cycler(…)`.
package final class Cycler {
  let items: [Value]
  let depth: Int
  private var position = 0

  init(_ items: [Value]) throws(JinjaError) {
    self.items = items
    depth = try Value.depth(above: items)
  }

  var current: Value { items[position] }

  func next() -> Value {
    defer { position = (position + 1) % items.count }
    return items[position]
  }

  func reset() { position = 0 }
}

/// `joiner(…)`: nothing at its first call, the separator at others.
package final class Joiner {
  private let separator: MarkedText
  private var wasUsed = false

  init(_ separator: MarkedText) { self.separator = separator }

  func next() -> Value {
    defer { wasUsed = true }
    return .text(wasUsed ? separator : MarkedText())
  }
}
