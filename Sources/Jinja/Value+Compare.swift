extension Value {
  /// A number's value: integers, booleans and floats.
  enum Number {
    case integer(Int)
    case wide(WideInteger)
    case float(Double)

    var double: Double {
      switch self {
      case .integer(let value): Double(value)
      case .wide(let value): value.double
      case .float(let value): value
      }
    }

    var wide: WideInteger? {
      switch self {
      case .integer(let value): WideInteger(value)
      case .wide(let value): value
      case .float: nil
      }
    }
  }

  var number: Number? {
    switch self {
    case .integer(let value): .integer(value)
    case .bool(let value): .integer(value ? 1 : 0)
    case .wide(let value): .wide(value.integer)
    case .float(let value): .float(value)
    default: nil
    }
  }

  static func areEqual(
    _ left: [Value], _ right: [Value], _ meter: Meter
  ) throws(JinjaError) -> Bool {
    guard left.count == right.count else { return false }
    for (a, b) in zip(left, right) where try !a.isEqual(to: b, meter) { return false }
    return true
  }

  /// Python's `==`.
  func isEqual(to other: Value, _ meter: Meter) throws(JinjaError) -> Bool {
    try meter.step()
    if let number, let otherNumber = other.number {
      return Self.order(number, otherNumber) == .equal
    }
    switch (self, other) {
    case (.undefined, .undefined), (.null, .null): return true
    case (.text(let a), .text(let b)):
      try meter.step(min(a.count, b.count) / 64)
      return a.bytes == b.bytes
    case (.list(let a), .list(let b)), (.tuple(let a), .tuple(let b)):
      return try Self.areEqual(a.elements, b.elements, meter)
    case (.dictionary(let a), .dictionary(let b)):
      guard a.keys.count == b.keys.count else { return false }
      for (key, value) in a.pairs {
        guard let other = b[try HashKey(key, meter)], try value.isEqual(to: other, meter) else {
          return false
        }
      }
      return true
    case (.range(let a), .range(let b)):
      return a.count == b.count
        && (a.count == 0 || a.start == b.start && (a.count == 1 || a.step == b.step))
    case (.namespace(let a), .namespace(let b)): return a === b
    case (.generator(let a), .generator(let b)): return a === b
    case (.macro(let a), .macro(let b)): return a === b
    case (.loop(let a), .loop(let b)): return a === b
    case (.function(let a), .function(let b)): return a == b
    default: return false
    }
  }

  enum Order { case less, equal, greater, unordered }

  private static func order(_ left: Number, _ right: Number) -> Order {
    switch (left, right) {
    case (.integer(let a), .integer(let b)): return a < b ? .less : a == b ? .equal : .greater
    case (.float(let a), .float(let b)): return order(a, b)
    case (.float(let a), _): return a.isFinite ? orderExactly(a, right) : order(a, 0)
    case (_, .float(let b)): return b.isFinite ? reversed(orderExactly(b, left)) : order(0, b)
    default:
      guard let a = left.wide, let b = right.wide else { return .unordered }
      return a < b ? .less : a == b ? .equal : .greater
    }
  }

  private static func order(_ a: Double, _ b: Double) -> Order {
    a < b ? .less : a == b ? .equal : a > b ? .greater : .unordered
  }

  /// Compares without rounding the integer.
  private static func orderExactly(_ float: Double, _ integer: Number) -> Order {
    guard let b = integer.wide else { return .unordered }
    let floor = float.rounded(.down)
    let a = WideInteger(exactly: floor)
    if a < b { return .less }
    return a == b && floor == float ? .equal : .greater
  }

  private static func reversed(_ order: Order) -> Order {
    switch order {
    case .less: .greater
    case .greater: .less
    default: order
    }
  }

  /// Python's order of two values.
  ///
  /// - Throws: `JinjaError` for values that have none.
  func order(_ other: Value, _ meter: Meter) throws(JinjaError) -> Order {
    try meter.step()
    try requireDefined()
    try other.requireDefined()
    if let number, let otherNumber = other.number { return Self.order(number, otherNumber) }
    switch (self, other) {
    case (.text(let a), .text(let b)):
      try meter.step(min(a.count, b.count) / 64)
      if a.bytes == b.bytes { return .equal }
      return a.bytes.lexicographicallyPrecedes(b.bytes) ? .less : .greater
    case (.list(let a), .list(let b)), (.tuple(let a), .tuple(let b)):
      for (x, y) in zip(a.elements, b.elements) where try !x.isEqual(to: y, meter) {
        return try x.order(y, meter)
      }
      let (m, n) = (a.elements.count, b.elements.count)
      return m < n ? .less : m == n ? .equal : .greater
    default:
      throw JinjaError(
        .type, "values of types '\(typeName)' and '\(other.typeName)' have no order")
    }
  }

  /// Python's `element in self`.
  func contains(_ element: Value, _ meter: Meter) throws(JinjaError) -> Bool {
    switch self {
    case .undefined: return false
    case .text(let text):
      guard case .text(let part) = element else {
        throw JinjaError(
          .type, "'in' of a string needs a string on its left, not '\(element.typeName)'")
      }
      try meter.scan(text.count + part.count)
      return text.bytes.firstIndex(of: part.bytes, in: 0..<text.count) != nil
    case .dictionary(let mapping), .view(.keys, let mapping):
      return mapping[try HashKey(element, meter)] != nil
    case .view(let view, let mapping):
      return try Self.contains(mapping.elements(view, meter), element, meter)
    case .list(let sequence), .tuple(let sequence):
      return try Self.contains(sequence.elements, element, meter)
    case .range(let range):
      if let number = element.index { return range.contains(number) }
      try meter.list(range.count)
      return try Self.contains(range.values, element, meter)
    case .generator(let generator):
      while let next = try generator.next() {
        if try next.isEqual(to: element, meter) { return true }
      }
      return false
    default: throw JinjaError(.type, "a value of type '\(typeName)' contains nothing")
    }
  }

  private static func contains(
    _ elements: [Value], _ element: Value, _ meter: Meter
  ) throws(JinjaError) -> Bool {
    for candidate in elements where try candidate.isEqual(to: element, meter) { return true }
    return false
  }

  /// Sorts by keys, keeping the order of equal ones.
  static func sorted(
    _ elements: [(key: Value, value: Value)], isReversed: Bool, _ meter: Meter
  ) throws(JinjaError) -> [Value] {
    try meter.hold(elements.count)
    var runs = elements.map { [$0] }
    while runs.count > 1 {
      var merged: [[(key: Value, value: Value)]] = []
      for pair in stride(from: 0, to: runs.count, by: 2) {
        guard pair + 1 < runs.count else {
          merged.append(runs[pair])
          continue
        }
        let (left, right) = (runs[pair], runs[pair + 1])
        var (i, j, run) = (0, 0, [(key: Value, value: Value)]())
        while i < left.count, j < right.count {
          let order =
            isReversed
            ? try left[i].key.order(right[j].key, meter)
            : try right[j].key.order(left[i].key, meter)
          if order == .less {
            run.append(right[j])
            j += 1
          } else {
            run.append(left[i])
            i += 1
          }
        }
        merged.append(run + left[i...] + right[j...])
      }
      runs = merged
    }
    return runs.first?.map(\.value) ?? []
  }
}
