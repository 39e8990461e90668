/// jinja2's tests, which `is` calls.
enum Test: String {
  case odd, even, divisibleby, defined, undefined, filter, test, boolean, integer, float
  case lower, upper, string, mapping, number, sequence, iterable, callable, sameas, escaped
  case none, `true`, `false`, `in`, eq, equalto, ne, gt, greaterthan, ge, lt, lessthan, le
  case equals = "=="
  case differs = "!="
  case above = ">"
  case atLeast = ">="
  case below = "<"
  case atMost = "<="
}

extension Interpreter {
  func test(_ name: String, _ value: Value, _ passed: Passed) throws(JinjaError) -> Bool {
    guard let test = Test(rawValue: name) else {
      throw JinjaError(.syntax, "there is no test '\(name)'")
    }
    switch test {
    case .divisibleby, .sameas, .in, .eq, .equalto, .equals, .ne, .differs, .gt, .greaterthan,
      .above, .ge, .atLeast, .lt, .lessthan, .below, .le, .atMost:
      guard let other = try passed.bound(to: ["other"], of: name, least: 1)[0] else { return false }
      return try self.test(test, value, other)
    default:
      _ = try passed.bound(to: [], of: name)
      return try self.test(test, value)
    }
  }

  private func test(_ test: Test, _ value: Value) throws(JinjaError) -> Bool {
    switch test {
    case .defined: return !value.isUndefined
    case .undefined: return value.isUndefined
    case .none: return value.isNull
    case .boolean: if case .bool = value { return true } else { return false }
    case .true: if case .bool(true) = value { return true } else { return false }
    case .false: if case .bool(false) = value { return true } else { return false }
    case .integer:
      switch value {
      case .integer, .wide: return true
      default: return false
      }
    case .float: if case .float = value { return true } else { return false }
    case .number: return value.number != nil
    case .string: return value.text != nil
    case .escaped: return value.text?.isSafe ?? false
    case .mapping: if case .dictionary = value { return true } else { return false }
    case .sequence:
      switch value {
      case .text, .list, .tuple, .dictionary, .range, .undefined: return true
      default: return false
      }
    case .iterable:
      switch value {
      case .text, .list, .tuple, .dictionary, .range, .undefined, .view, .generator, .loop:
        return true
      default: return false
      }
    case .callable:
      switch value {
      case .macro, .method, .function, .joiner, .undefined, .loop: return true
      default: return false
      }
    case .lower, .upper: return try value.string(meter).isCase(upper: test == .upper)
    case .odd, .even:
      try value.requireDefined()
      guard let number = value.number, let two = Value.integer(2).number else {
        throw JinjaError(.type, "'\(test.rawValue)' needs a number, not '\(value.typeName)'")
      }
      let rest = try Arithmetic(meter).apply("%", number, two)
      return try rest.isEqual(to: .integer(test == .odd ? 1 : 0), meter)
    case .filter: return value.text.map { Filter(rawValue: $0.string) != nil } ?? false
    default: return value.text.map { Test(rawValue: $0.string) != nil } ?? false
    }
  }

  /// Python's `is`, but that equal texts and numbers of one type are always one object.
  private func isSame(_ value: Value, _ other: Value) throws(JinjaError) -> Bool {
    switch (value, other) {
    // Each look for what is not there finds another nothing.
    case (.undefined, _): return false
    case (.dictionary(let left), .dictionary(let right)): return left === right
    case (.list(let left), .list(let right)), (.tuple(let left), .tuple(let right)):
      return left.elements.withUnsafeBufferPointer { left in
        right.elements.withUnsafeBufferPointer { $0.baseAddress == left.baseAddress }
      }
    default:
      let isEqual = try value.isEqual(to: other, meter)
      return isEqual && value.typeName == other.typeName
    }
  }

  private func test(
    _ test: Test, _ value: Value, _ other: Value
  ) throws(JinjaError) -> Bool {
    switch test {
    case .divisibleby:
      guard let a = value.number, let b = other.number else {
        throw JinjaError(.type, "'divisibleby' needs numbers")
      }
      return try Arithmetic(meter).apply("%", a, b).isEqual(to: .integer(0), meter)
    case .sameas:
      return try isSame(value, other)
    case .in: return try compare(value, "in", other)
    case .eq, .equalto, .equals: return try compare(value, "==", other)
    case .ne, .differs: return try compare(value, "!=", other)
    case .gt, .greaterthan, .above: return try compare(value, ">", other)
    case .ge, .atLeast: return try compare(value, ">=", other)
    case .lt, .lessthan, .below: return try compare(value, "<", other)
    default: return try compare(value, "<=", other)
    }
  }
}
