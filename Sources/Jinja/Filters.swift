/// jinja2's filters, with `tojson` as transformers defines it.
enum Filter: String {
  case abs, attr, batch, capitalize, center, count, d, `default`, dictsort, e, escape
  case filesizeformat, first, float, forceescape, format, groupby, indent, int, items, join, last
  case length, list, lower, map, max, min, pprint, random, reject, rejectattr, replace, reverse
  case round, safe, select, selectattr, slice, sort, string, striptags, sum, title, tojson, trim
  case truncate, unique, upper, urlencode, urlize, wordcount, wordwrap, xmlattr
}

extension Interpreter {
  func filter(_ name: String, _ value: Value, _ passed: Passed) throws(JinjaError) -> Value {
    guard let filter = Filter(rawValue: name) else {
      throw JinjaError(.syntax, "there is no filter '\(name)'")
    }
    func bound(_ names: [String], least: Int = 0) throws(JinjaError) -> [Value?] {
      try passed.bound(to: names, of: name, least: least)
    }
    switch filter {
    case .map, .select, .reject, .selectattr, .rejectattr, .dictsort, .groupby, .join, .max, .min,
      .sort, .sum, .unique, .batch, .first, .last, .list, .reverse, .items:
      return try sequenceFilter(filter, value, passed)
    case .capitalize, .center, .escape, .e, .forceescape, .format, .indent, .lower, .replace,
      .safe, .string, .title, .trim, .truncate, .upper, .wordcount, .tojson:
      return try textFilter(filter, value, passed)
    case .abs, .float, .int, .round: return try numberFilter(filter, value, passed)
    case .attr:
      guard case .text(let attribute)? = try bound(["name"], least: 1)[0] else {
        throw JinjaError(.type, "'attr' needs a name")
      }
      if case .dictionary = value, !Methods.names(of: value).contains(attribute.string) {
        return .undefined("a dictionary has no attribute '\(attribute.string)'")
      }
      return try self.attribute(attribute.string, of: value)
    case .default, .d:
      let arguments = try bound(["default_value", "boolean"])
      let isMissing =
        value.isUndefined || (arguments[1]?.isTrue ?? false) && !value.isTrue
      return isMissing ? arguments[0] ?? .text("") : value
    case .count, .length:
      _ = try bound([])
      return .integer(try length(of: value))
    case .filesizeformat, .pprint, .random, .slice, .striptags, .urlencode, .urlize, .wordwrap,
      .xmlattr:
      throw JinjaError(.unsupported, "the filter '\(name)' is not supported")
    }
  }

  private func numberFilter(
    _ filter: Filter, _ value: Value, _ passed: Passed
  ) throws(JinjaError) -> Value {
    switch filter {
    case .abs:
      _ = try passed.bound(to: [], of: "abs")
      try value.requireDefined()
      guard let number = value.number else {
        throw JinjaError(.type, "'abs' needs a number, not '\(value.typeName)'")
      }
      if case .float(let value) = number { return .float(value.magnitude) }
      let isNegative = number.wide?.isNegative ?? false
      return try isNegative ? Arithmetic(meter).negative(value) : Arithmetic(meter).positive(value)
    case .float:
      let standard = try passed.bound(to: ["default"], of: "float")[0] ?? .float(0)
      try value.requireDefined()
      return Self.float(value).map { .float($0) } ?? standard
    case .int:
      let arguments = try passed.bound(to: ["default", "base"], of: "int")
      try value.requireDefined()
      return Self.integer(value, base: arguments[1]?.index ?? 10) ?? arguments[0] ?? .integer(0)
    default: return try round(value, passed)
    }
  }

  private func round(_ value: Value, _ passed: Passed) throws(JinjaError) -> Value {
    let arguments = try passed.bound(to: ["precision", "method"], of: "round")
    let method = arguments[1]?.text?.string ?? "common"
    guard let precision = (arguments[0] ?? .integer(0)).index, precision.magnitude < 400,
      ["common", "ceil", "floor"].contains(method)
    else { throw JinjaError(.value, "'round' needs a precision and 'common', 'ceil' or 'floor'") }
    try value.requireDefined()
    guard let number = value.number else {
      throw JinjaError(.type, "'round' needs a number, not '\(value.typeName)'")
    }
    if method == "common" {
      guard case .float(let float) = number else {
        if precision >= 0 { return try Arithmetic(meter).positive(value) }
        throw JinjaError(.unsupported, "rounding integers to tens is not supported")
      }
      return .float(Decimal.rounded(float, precision))
    }
    var factor = 1.0
    for _ in 0..<precision.magnitude { factor *= 10 }
    let scaled = precision < 0 ? number.double / factor : number.double * factor
    let rounded = scaled.rounded(method == "ceil" ? .up : .down)
    return .float(precision < 0 ? rounded * factor : rounded / factor)
  }

  /// Python's `float()`, nil where it raises.
  static func float(_ value: Value) -> Double? {
    if let number = value.number { return number.double }
    guard let text = value.text?.stripped(.both) else { return nil }
    let digits = text.bytes.filter { $0 != 0x5F }
    let string = String(decoding: digits, as: UTF8.self).lowercased()
    if digits.contains(where: { "xXpP()".utf8.contains($0) }) { return nil }
    return Double(string)
  }

  /// Python's `int()`, then `int(float())`, nil where both raise.
  static func integer(_ value: Value, base: Int) -> Value? {
    if let wide = value.number?.wide { return .integer(wide) }
    if let text = value.text?.stripped(.both), (2...36).contains(base) {
      let digits = text.bytes.filter { $0 != 0x5F }
      if base == 10, digits.count < 4300, let wide = WideInteger(digits) { return .integer(wide) }
      var string = String(decoding: digits, as: UTF8.self).lowercased()
      for (prefix, radix) in [("0x", 16), ("0o", 8), ("0b", 2)]
      where radix == base && string.hasPrefix(prefix) {
        string.removeFirst(2)
      }
      if base != 10, let integer = Int(string, radix: base) { return .integer(integer) }
    }
    guard let float = float(value), float.isFinite else { return nil }
    return .integer(WideInteger(exactly: float.rounded(.towardZero)))
  }
}
