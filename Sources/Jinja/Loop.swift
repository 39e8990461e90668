/// jinja2's `loop`: looks one element ahead only where it is asked to.
package final class Loop {
  let depth: Int
  /// How often the loop called itself.
  let recursion: Int
  /// Renders the loop for other elements, where it is recursive.
  let render: ((Value, Int) throws(JinjaError) -> Value)?

  private let source: Generator
  /// Elements taken from the source before their turn.
  private var ahead: [Value] = []
  private var aheadStart = 0
  /// How many elements there are, where that is known.
  private var total: Int?
  private(set) var index0 = -1
  private(set) var previous: Value?
  private(set) var current: Value?
  private var lastChanged: [Value]?

  init(
    _ source: Generator, total: Int?, recursion: Int,
    render: ((Value, Int) throws(JinjaError) -> Value)?
  ) {
    self.source = source
    self.total = total
    self.recursion = recursion
    self.render = render
    depth = source.depth
  }

  var isEmpty: Bool { total == 0 }

  func advance() throws(JinjaError) -> Value? {
    let next: Value?
    if aheadStart < ahead.count {
      next = ahead[aheadStart]
      aheadStart += 1
    } else {
      next = try source.next()
    }
    guard let next else { return nil }
    index0 += 1
    previous = current
    current = next
    return next
  }

  private func peek() throws(JinjaError) -> Value? {
    if aheadStart == ahead.count {
      guard let next = try source.next() else { return nil }
      ahead.append(next)
    }
    return ahead[aheadStart]
  }

  private func length(_ meter: Meter) throws(JinjaError) -> Int {
    if let total { return total }
    while let next = try source.next() {
      try meter.append(next)
      ahead.append(next)
    }
    let length = index0 + 1 + ahead.count - aheadStart
    total = length
    return length
  }

  /// The value of `loop.name`.
  func attribute(_ name: String, _ meter: Meter) throws(JinjaError) -> Value? {
    switch name {
    case "index0": return .integer(index0)
    case "index": return .integer(index0 + 1)
    case "first": return .bool(index0 == 0)
    case "last": return .bool(try peek() == nil)
    case "length": return .integer(try length(meter))
    case "revindex": return .integer(try length(meter) - index0)
    case "revindex0": return .integer(try length(meter) - index0 - 1)
    case "previtem": return index0 == 0 ? .undefined("there is no previous item") : previous
    case "nextitem": return try peek() ?? .undefined("there is no next item")
    case "depth": return .integer(recursion + 1)
    case "depth0": return .integer(recursion)
    case "cycle", "changed": return .method(receiver: .loop(self), name: name)
    default: return nil
    }
  }

  /// Whether the values differ from those of the last call.
  func changed(_ values: [Value], _ meter: Meter) throws(JinjaError) -> Bool {
    defer { lastChanged = values }
    guard let last = lastChanged else { return true }
    return try !Value.areEqual(last, values, meter)
  }
}
