import Glibc

/// Python's arithmetic: integers of any size, and floats.
struct Arithmetic {
  private let meter: Meter

  init(_ meter: Meter) { self.meter = meter }

  func negative(_ value: Value) throws(JinjaError) -> Value {
    try value.requireDefined()
    switch value.number {
    case .float(let value)?: return .float(-value)
    case let number?: return .integer(-(number.wide ?? WideInteger(0)))
    case nil: throw JinjaError(.type, "a value of type '\(value.typeName)' has no negative")
    }
  }

  func positive(_ value: Value) throws(JinjaError) -> Value {
    try value.requireDefined()
    switch value.number {
    case .float(let value)?: return .float(value)
    case let number?: return .integer(number.wide ?? WideInteger(0))
    case nil: throw JinjaError(.type, "'+' does not take a value of type '\(value.typeName)'")
    }
  }

  func apply(
    _ symbol: String, _ left: Value.Number, _ right: Value.Number
  ) throws(JinjaError) -> Value {
    guard symbol != "/", let a = left.wide, let b = right.wide else {
      return .float(try apply(symbol, left.double, right.double))
    }
    try meter.step(1 + a.digitCount * b.digitCount)
    switch symbol {
    case "+": return .integer(a + b)
    case "-": return .integer(a - b)
    case "*": return .integer(a * b)
    case "//", "%":
      if b.isZero { throw JinjaError(.value, "division by zero") }
      try meter.step(30 * a.digitCount * (b.digitCount + 1))
      let (quotient, remainder) = a.floorDivided(by: b)
      return .integer(symbol == "%" ? remainder : quotient)
    default:
      if b.isNegative { return .float(try apply(symbol, left.double, right.double)) }
      return .integer(try power(a, b))
    }
  }

  private func power(_ base: WideInteger, _ exponent: WideInteger) throws(JinjaError) -> WideInteger
  {
    if base == WideInteger(0) || base == WideInteger(1) {
      return exponent.isZero ? WideInteger(1) : base
    }
    guard var rest = exponent.small, rest < 1_000_000 else {
      throw JinjaError(.limit, "the power is too large")
    }
    var (result, factor) = (WideInteger(1), base)
    while rest > 0 {
      try meter.step(factor.digitCount * (factor.digitCount + result.digitCount))
      if rest & 1 == 1 { result = result * factor }
      rest >>= 1
      if rest > 0 { factor = factor * factor }
    }
    return result
  }

  private func apply(_ symbol: String, _ a: Double, _ b: Double) throws(JinjaError) -> Double {
    switch symbol {
    case "+": return a + b
    case "-": return a - b
    case "*": return a * b
    case "**":
      if a == 0, b < 0 { throw JinjaError(.value, "zero to a negative power") }
      if a < 0, b != b.rounded() { throw JinjaError(.unsupported, "complex numbers") }
      let result = pow(a, b)
      if result.isInfinite, a.isFinite, b.isFinite {
        throw JinjaError(.value, "the power overflows")
      }
      return result
    default:
      if b == 0 { throw JinjaError(.value, "division by zero") }
      if symbol == "/" { return a / b }
      var remainder = fmod(a, b)
      if remainder != 0 {
        if (b < 0) != (remainder < 0) { remainder += b }
      } else {
        remainder = b < 0 ? -0.0 : 0.0
      }
      if symbol == "%" { return remainder }
      let quotient = (a - remainder) / b
      let floor = quotient.rounded(.down)
      return quotient - floor > 0.5 ? floor + 1 : floor
    }
  }
}
