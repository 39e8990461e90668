/// A value of a template. All are immutable but namespaces and what counts calls.
package enum Value {
  /// Nothing there, with why not.
  case undefined(String)
  case null
  case bool(Bool)
  case integer(Int)
  case wide(WideNumber)
  case float(Double)
  case text(MarkedText)
  case list(Sequence)
  case tuple(Sequence)
  case dictionary(Mapping)
  /// `items()`, `keys()` or `values()` of a dictionary.
  case view(Mapping.View, Mapping)
  case range(StepRange)
  case generator(Generator)
  case namespace(Namespace)
  case macro(Macro)
  case loop(Loop)
  case cycler(Cycler)
  case joiner(Joiner)
  indirect case method(receiver: Value, name: String)
  case function(Function)

  /// An integer that does not fit 64 bits.
  package struct WideNumber {
    let integer: WideInteger
  }

  /// The elements of a list or a tuple.
  package struct Sequence {
    package let elements: [Value]
    let depth: Int
  }

  package static func text(_ string: String, isData: Bool = false) -> Value {
    .text(MarkedText(string, isData: isData))
  }

  /// - Throws: `JinjaError` where the elements are nested too deep.
  package static func list(of elements: [Value]) throws(JinjaError) -> Value {
    .list(Sequence(elements: elements, depth: try depth(above: elements)))
  }

  static func tuple(of elements: [Value]) throws(JinjaError) -> Value {
    .tuple(Sequence(elements: elements, depth: try depth(above: elements)))
  }

  /// Reads the digits of an integer of any size.
  package static func integer(digits: some Collection<UInt8>) -> Value? {
    WideInteger(digits).map(integer)
  }

  static func integer(_ value: WideInteger) -> Value {
    if let small = value.small { return .integer(small) }
    return .wide(WideNumber(integer: value))
  }

  /// The depth of what holds these values.
  static func depth(above values: [Value]) throws(JinjaError) -> Int {
    let depth = 1 + (values.lazy.map(\.depth).max() ?? 0)
    if depth > Limits.depth {
      throw JinjaError(.limit, "values are nested more than \(Limits.depth) levels deep")
    }
    return depth
  }

  /// How many levels of other values it holds; bounds every recursion over values.
  var depth: Int {
    switch self {
    case .list(let sequence), .tuple(let sequence): sequence.depth
    case .dictionary(let mapping), .view(_, let mapping): mapping.depth
    case .generator(let generator): generator.depth
    case .namespace(let namespace): namespace.depth
    case .loop(let loop): loop.depth
    case .cycler(let cycler): cycler.depth
    case .method(let receiver, _): receiver.depth + 1
    default: 0
    }
  }

  /// What Python calls its type, for errors.
  var typeName: String {
    switch self {
    case .undefined: "Undefined"
    case .null: "NoneType"
    case .bool: "bool"
    case .integer, .wide: "int"
    case .float: "float"
    case .text(let text): text.isSafe ? "Markup" : "str"
    case .list: "list"
    case .tuple: "tuple"
    case .dictionary: "dict"
    case .view(let view, _): "dict_\(view)"
    case .range: "range"
    case .generator: "generator"
    case .namespace: "Namespace"
    case .macro: "Macro"
    case .loop: "LoopContext"
    case .cycler: "Cycler"
    case .joiner: "Joiner"
    case .method: "method"
    case .function: "function"
    }
  }

  var isUndefined: Bool { if case .undefined = self { true } else { false } }
  var isNull: Bool { if case .null = self { true } else { false } }
  var text: MarkedText? { if case .text(let text) = self { text } else { nil } }

  /// Its value as an index or a count: integers and booleans.
  var index: Int? {
    switch self {
    case .integer(let value): value
    case .bool(let value): value ? 1 : 0
    default: nil
    }
  }

  /// The error for using an undefined value.
  func requireDefined() throws(JinjaError) {
    if case .undefined(let why) = self { throw JinjaError(.undefined, why) }
  }

  /// Python's `bool()`.
  var isTrue: Bool {
    switch self {
    case .undefined, .null: false
    case .bool(let value): value
    case .integer(let value): value != 0
    case .float(let value): value != 0
    case .text(let text): !text.isEmpty
    case .list(let sequence), .tuple(let sequence): !sequence.elements.isEmpty
    case .dictionary(let mapping), .view(_, let mapping): !mapping.keys.isEmpty
    case .range(let range): range.count > 0
    case .loop(let loop): !loop.isEmpty
    case .wide, .generator, .namespace, .macro, .cycler, .joiner, .method, .function: true
    }
  }
}

/// Python's `range`.
package struct StepRange {
  let start: Int
  let stop: Int
  let step: Int

  /// - Throws: `JinjaError` where it is longer than the sandbox allows.
  init(_ start: Int, _ stop: Int, _ step: Int) throws(JinjaError) {
    guard step != 0 else { throw JinjaError(.value, "range() arg 3 must not be zero") }
    self.start = start
    self.stop = stop
    self.step = step
    if count > Limits.range {
      throw JinjaError(.limit, "the range is longer than \(Limits.range)")
    }
  }

  var count: Int {
    let (distance, overflow) =
      step > 0 ? stop.subtractingReportingOverflow(start) : start.subtractingReportingOverflow(stop)
    if overflow { return step > 0 ? (stop < start ? 0 : .max) : (start < stop ? 0 : .max) }
    if distance <= 0 { return 0 }
    let size = Int(clamping: step.magnitude)
    return (distance - 1) / size + 1
  }

  subscript(index: Int) -> Int { start &+ index &* step }

  func contains(_ value: Int) -> Bool {
    let (distance, isFar) = value.subtractingReportingOverflow(start)
    let (place, overflow) = distance.dividedReportingOverflow(by: step)
    return !isFar && !overflow && place &* step == distance && (0..<count).contains(place)
  }

  var values: [Value] { (0..<count).map { .integer(self[$0]) } }
}
