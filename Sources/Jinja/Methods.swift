/// Methods of Python's types that a template may call.
enum Methods {
  private static let text: Set<String> = [
    "capitalize", "casefold", "center", "count", "encode", "endswith", "expandtabs", "find",
    "format", "format_map", "index", "isalnum", "isalpha", "isascii", "isdecimal", "isdigit",
    "isidentifier", "islower", "isnumeric", "isprintable", "isspace", "istitle", "isupper", "join",
    "ljust", "lower", "lstrip", "maketrans", "partition", "removeprefix", "removesuffix", "replace",
    "rfind", "rindex", "rjust", "rpartition", "rsplit", "rstrip", "split", "splitlines",
    "startswith", "strip", "swapcase", "title", "translate", "upper", "zfill",
  ]

  static func names(of value: Value) -> Set<String> {
    switch value {
    case .text: text
    case .dictionary: ["items", "keys", "values", "get", "copy", "fromkeys"]
    case .list: ["count", "index", "copy"]
    case .tuple, .range: ["count", "index"]
    default: []
    }
  }

  /// Those that would change the value.
  static func forbidden(of value: Value) -> Set<String> {
    switch value {
    case .dictionary: ["clear", "pop", "popitem", "setdefault", "update"]
    case .list: ["append", "clear", "extend", "insert", "pop", "remove", "reverse", "sort"]
    default: []
    }
  }
}

extension Interpreter {
  /// Calls a method.
  func call(_ name: String, of receiver: Value, _ passed: Passed) throws(JinjaError) -> Value {
    switch receiver {
    case .text(let text): return try call(name, of: text, passed)
    case .dictionary(let mapping): return try call(name, of: mapping, passed)
    case .list(let sequence), .tuple(let sequence):
      if name == "copy" {
        _ = try passed.bound(to: [], of: name)
        return receiver
      }
      return try search(sequence.elements, name, passed)
    case .range: return try search(elements(of: receiver), name, passed)
    case .function:
      let arguments = try passed.bound(to: ["iterable", "value"], of: name, least: 1)
      let keys = try elements(of: arguments[0] ?? .null)
      return .dictionary(try Mapping(keys.map { ($0, arguments[1] ?? .null) }, meter))
    case .loop(let loop):
      if name == "changed" { return .bool(try loop.changed(passed.positional, meter)) }
      if passed.positional.isEmpty { throw JinjaError(.type, "'cycle' needs items") }
      return passed.positional[loop.index0 % passed.positional.count]
    case .cycler(let cycler):
      _ = try passed.bound(to: [], of: name)
      if name == "next" { return cycler.next() }
      cycler.reset()
      return .null
    default: throw JinjaError(.type, "a value of type '\(receiver.typeName)' has no methods")
    }
  }

  private func call(
    _ name: String, of mapping: Mapping, _ passed: Passed
  ) throws(JinjaError) -> Value {
    switch name {
    case "get":
      if !passed.named.isEmpty { throw JinjaError(.type, "'get' takes no named arguments") }
      let arguments = try passed.bound(to: ["key", "default"], of: name, least: 1)
      guard let key = arguments[0] else { return .null }
      return mapping[try HashKey(key, meter)] ?? arguments[1] ?? .null
    case "fromkeys":
      return try call(name, of: .function(.dict), passed)
    default: break
    }
    _ = try passed.bound(to: [], of: name)
    switch name {
    case "items": return .view(.items, mapping)
    case "keys": return .view(.keys, mapping)
    case "values": return .view(.values, mapping)
    default: return .dictionary(mapping)
    }
  }

  /// `count` and `index` of a sequence.
  private func search(
    _ elements: [Value], _ name: String, _ passed: Passed
  ) throws(JinjaError) -> Value {
    let arguments = try passed.bound(
      to: name == "count" ? ["value"] : ["value", "start", "stop"], of: name, least: 1)
    guard let value = arguments[0] else { return .null }
    if name == "count" {
      var number = 0
      for element in elements where try element.isEqual(to: value, meter) { number += 1 }
      return .integer(number)
    }
    func clamp(_ index: Int) -> Int {
      min(max(index < 0 ? index + elements.count : index, 0), elements.count)
    }
    let start = clamp(arguments[1]?.index ?? 0)
    let stop = max(start, clamp(arguments[2]?.index ?? elements.count))
    for index in start..<stop where try elements[index].isEqual(to: value, meter) {
      return .integer(index)
    }
    throw JinjaError(.value, "the value is not in the sequence")
  }
}
