/// A dictionary in the order in which its keys came.
package final class Mapping {
  package enum View { case items, keys, values }

  package let keys: [Value]
  package let values: [Value]
  let depth: Int
  private let index: [HashKey: Int]

  /// The last value of a key counts, at the place of the first.
  ///
  /// - Throws: `JinjaError` for a key that cannot be one, or values that are nested too deep.
  init(_ pairs: [(key: Value, value: Value)], _ meter: Meter) throws(JinjaError) {
    var (keys, values, index) = ([Value](), [Value](), [HashKey: Int]())
    try meter.hold(2 * pairs.count)
    for (key, value) in pairs {
      let hash = try HashKey(key, meter)
      if let place = index[hash] {
        values[place] = value
      } else {
        index[hash] = keys.count
        keys.append(key)
        values.append(value)
      }
    }
    depth = max(try Value.depth(above: keys), try Value.depth(above: values))
    self.keys = keys
    self.values = values
    self.index = index
  }

  /// A dictionary whose keys are texts.
  package convenience init(_ pairs: [(key: MarkedText, value: Value)]) throws(JinjaError) {
    let bytes = pairs.reduce(0) { $0 + $1.key.count + 1 }
    try self.init(
      pairs.map { (.text($0.key), $0.value) },
      Meter(Limits(templateByteCount: 0, inputByteCount: bytes)))
  }

  /// The value of a key.
  subscript(key: HashKey) -> Value? { index[key].map { values[$0] } }

  /// The value of a name.
  package subscript(name: String) -> Value? { self[.text(Array(name.utf8))] }

  var pairs: Zip2Sequence<[Value], [Value]> { zip(keys, values) }

  /// What iterating over a view gives.
  func elements(_ view: View, _ meter: Meter) throws(JinjaError) -> [Value] {
    switch view {
    case .keys: return keys
    case .values: return values
    case .items:
      var items: [Value] = []
      try meter.hold(keys.count)
      items.reserveCapacity(keys.count)
      for (key, value) in zip(keys, values) { items.append(try .tuple(of: [key, value])) }
      return items
    }
  }
}

/// What Python hashes: numbers by value, whatever their type, and texts without their marks.
enum HashKey: Hashable {
  case undefined
  case null
  case integer(Int)
  case wide(String)
  case float(Double)
  case text([UInt8])
  case tuple([HashKey])

  /// - Throws: `JinjaError` for a value that cannot be a key.
  init(_ value: Value, _ meter: Meter) throws(JinjaError) {
    switch value {
    case .undefined: self = .undefined
    case .null: self = .null
    case .bool(let value): self = .integer(value ? 1 : 0)
    case .integer(let value): self = .integer(value)
    case .wide(let value): self = .wide(value.integer.description)
    case .float(let value):
      if let integer = Int(exactly: value) {
        self = .integer(integer)
      } else {
        self = .float(value)
      }
    case .text(let text):
      try meter.step(1 + text.count / 64)
      self = .text(text.bytes)
    case .tuple(let sequence):
      var parts: [HashKey] = []
      for element in sequence.elements {
        try meter.step()
        parts.append(try HashKey(element, meter))
      }
      self = .tuple(parts)
    default: throw JinjaError(.type, "unhashable type: '\(value.typeName)'")
    }
  }
}
