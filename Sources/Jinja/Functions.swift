import Glibc

/// What templates may call without anything before it.
package enum Function: String, CaseIterable {
  case range, dict, namespace, cycler, joiner, lipsum
  case raiseException = "raise_exception"
  case strftimeNow = "strftime_now"
}

/// The time that templates are told.
package struct Clock: Sendable {
  /// Seconds since 1970.
  package let seconds: Int

  package init(seconds: Int) { self.seconds = seconds }

  /// Reads a local time, `2026-01-31` or `2026-01-31T18:30:00`, or seconds since 1970.
  package init?(_ text: String) {
    if let seconds = Int(text) {
      self.init(seconds: seconds)
      return
    }
    let parts = text.split { "-T: ".contains($0) }.map { Int($0) ?? -1 }
    guard [3, 5, 6].contains(parts.count), parts.allSatisfy({ (0...9999).contains($0) }),
      (1...12).contains(parts[1]), (1...31).contains(parts[2])
    else { return nil }
    var time = tm()
    (time.tm_year, time.tm_mon, time.tm_mday) = (
      Int32(parts[0] - 1900), Int32(parts[1] - 1), Int32(parts[2])
    )
    if parts.count > 3 { (time.tm_hour, time.tm_min) = (Int32(parts[3]), Int32(parts[4])) }
    if parts.count > 5 { time.tm_sec = Int32(parts[5]) }
    time.tm_isdst = -1
    let seconds = mktime(&time)
    // The system makes 2 March of 30 February, and the next day of 25 o'clock.
    guard time.tm_mday == Int32(parts[2]), parts.count == 3 || time.tm_hour == Int32(parts[3])
    else {
      return nil
    }
    self.init(seconds: seconds)
  }

  /// The present time.
  package static var now: Clock { Clock(seconds: time(nil)) }

  /// Python's `datetime.now().strftime(format)`: local time, with names in English and no zone.
  func text(_ format: [UInt8]) -> [UInt8] {
    var (plain, index) = ([UInt8](), 0)
    while index < format.count {
      let next = index + 1 < format.count ? format[index + 1] : 0
      if format[index] == UInt8(ascii: "%"), next != 0 {
        switch next {
        case UInt8(ascii: "f"): plain += "000000".utf8
        case UInt8(ascii: "z"), UInt8(ascii: "Z"): break
        default: plain += [format[index], next]
        }
        index += 2
      } else {
        plain.append(format[index])
        index += 1
      }
    }
    var seconds = time_t(self.seconds)
    var parts = tm()
    localtime_r(&seconds, &parts)
    // No directive writes more than 64 bytes.
    let size = plain.count * 64 + 1
    let text = [UInt8](unsafeUninitializedCapacity: size) { buffer, count in
      count = buffer.withMemoryRebound(to: CChar.self) { characters in
        guard let address = characters.baseAddress else { return 0 }
        let terminated = plain.prefix { $0 != 0 }.map { CChar(bitPattern: $0) } + [0]
        return strftime(address, size, terminated, &parts)
      }
    }
    return text
  }
}

extension Interpreter {
  func call(_ function: Function, _ passed: Passed) throws(JinjaError) -> Value {
    switch function {
    case .range: return try range(passed)
    case .dict: return .dictionary(try Mapping(pairs(passed, of: "dict"), meter))
    case .namespace:
      let namespace = try newNamespace()
      for (key, value) in try pairs(passed, of: "namespace") {
        try meter.hold(1)
        guard case .text(let name) = key else {
          throw JinjaError(.type, "names of a namespace must be strings")
        }
        try namespace.set(name.string, to: value, isData: !name.data.isEmpty)
      }
      return .namespace(namespace)
    case .cycler:
      if passed.positional.isEmpty { throw JinjaError(.type, "'cycler' needs items") }
      try meter.hold(passed.positional.count)
      return .cycler(try Cycler(passed.positional))
    case .joiner:
      let separator = try passed.bound(to: ["sep"], of: "joiner")[0] ?? .text(", ")
      return .joiner(Joiner(try separator.softString(meter)))
    case .raiseException:
      let message = try passed.bound(to: ["message"], of: function.rawValue, least: 1)[0]
      throw JinjaError(.raised, String(try (message?.string(meter).string ?? "").prefix(1000)))
    case .strftimeNow:
      guard
        case .text(let format)? = try passed.bound(
          to: ["format"], of: function.rawValue, least: 1)[0]
      else { throw JinjaError(.type, "'strftime_now' needs a string") }
      try meter.copy(format.count * 64)
      return .text(MarkedText(clock.text(format.bytes), isData: !format.data.isEmpty))
    case .lipsum: throw JinjaError(.unsupported, "'lipsum' is not supported")
    }
  }

  private func range(_ passed: Passed) throws(JinjaError) -> Value {
    var bounds: [Int] = []
    for value in passed.positional {
      try value.requireDefined()
      guard let index = value.index else {
        throw JinjaError(.type, "'range' needs integers, not '\(value.typeName)'")
      }
      bounds.append(index)
    }
    guard passed.named.isEmpty, (1...3).contains(bounds.count) else {
      throw JinjaError(.type, "'range' takes one to three arguments")
    }
    return .range(
      bounds.count == 1
        ? try StepRange(0, bounds[0], 1)
        : try StepRange(bounds[0], bounds[1], bounds.count == 3 ? bounds[2] : 1))
  }

  /// What Python's `dict(…)` makes of its arguments.
  private func pairs(
    _ passed: Passed, of function: String
  ) throws(JinjaError) -> [(key: Value, value: Value)] {
    var pairs: [(key: Value, value: Value)] = []
    if passed.positional.count > 1 {
      throw JinjaError(.type, "'\(function)' takes at most one argument without a name")
    }
    if case .dictionary(let mapping)? = passed.positional.first {
      pairs = Array(mapping.pairs)
    } else if let value = passed.positional.first {
      for item in try elements(of: value) {
        try meter.list(2)
        let pair = try elements(of: item)
        guard pair.count == 2 else {
          throw JinjaError(.value, "'\(function)' needs pairs of keys and values")
        }
        pairs.append((pair[0], pair[1]))
      }
    }
    return pairs + passed.named.map { (key: passed.text(of: $0.name), value: $0.value) }
  }
}
