/// An integer of any size, for what does not fit 64 bits.
struct WideInteger: Equatable {
  private static let base: UInt64 = 1_000_000_000
  /// Digits to the base 10⁹, lowest first; none for zero.
  private var digits: [UInt64]
  private(set) var isNegative: Bool

  private init(_ digits: [UInt64], isNegative: Bool) {
    var digits = digits
    while digits.last == 0 { digits.removeLast() }
    self.digits = digits
    self.isNegative = isNegative && !digits.isEmpty
  }

  init(_ value: Int) {
    var (rest, digits) = (UInt64(value.magnitude), [UInt64]())
    while rest > 0 {
      digits.append(rest % Self.base)
      rest /= Self.base
    }
    self.init(digits, isNegative: value < 0)
  }

  /// Reads decimal digits after an optional sign; nil for anything else.
  init?(_ text: some Collection<UInt8>) {
    var rest = Array(text)
    let isNegative = rest.first == UInt8(ascii: "-")
    if isNegative || rest.first == UInt8(ascii: "+") { rest.removeFirst() }
    guard !rest.isEmpty, rest.allSatisfy({ (0x30...0x39).contains($0) }) else { return nil }
    var digits: [UInt64] = []
    while !rest.isEmpty {
      digits.append(rest.suffix(9).reduce(0) { $0 * 10 + UInt64($1 - 0x30) })
      rest.removeLast(min(9, rest.count))
    }
    self.init(digits, isNegative: isNegative)
  }

  /// A float that has no fraction.
  init(exactly value: Double) {
    let magnitude = value.magnitude
    var result: WideInteger
    if magnitude < 0x1p53 {
      result = WideInteger(Int(magnitude))
    } else {
      // The significand as an integer of 53 bits, doubled as often as the exponent says.
      result = WideInteger(Int(magnitude.significand * 0x1p52))
      let shift = Int(magnitude.exponent) - 52
      for _ in 0..<shift / 30 { result = result * WideInteger(1 << 30) }
      result = result * WideInteger(1 << (shift % 30))
    }
    self.init(result.digits, isNegative: value < 0)
  }

  var isZero: Bool { digits.isEmpty }
  /// How much work operations on it are.
  var digitCount: Int { digits.count }

  /// It as a machine integer, where it fits.
  var small: Int? { digits.count > 3 ? nil : Int(description) }

  var double: Double { Double(description) ?? (isNegative ? -.infinity : .infinity) }

  var description: String {
    guard let last = digits.last else { return "0" }
    return digits.dropLast().reversed().reduce((isNegative ? "-" : "") + String(last)) {
      let part = String($1)
      return $0 + String(repeating: "0", count: 9 - part.count) + part
    }
  }

  static func < (left: WideInteger, right: WideInteger) -> Bool {
    if left.isNegative != right.isNegative { return left.isNegative }
    let isLess = isLess(left.digits, right.digits)
    return left.isNegative ? isLess == false && left != right : isLess
  }

  static prefix func - (value: WideInteger) -> WideInteger {
    WideInteger(value.digits, isNegative: !value.isNegative)
  }

  static func + (left: WideInteger, right: WideInteger) -> WideInteger {
    if left.isNegative == right.isNegative {
      return WideInteger(sum(left.digits, right.digits), isNegative: left.isNegative)
    }
    if isLess(left.digits, right.digits) {
      return WideInteger(difference(right.digits, left.digits), isNegative: right.isNegative)
    }
    return WideInteger(difference(left.digits, right.digits), isNegative: left.isNegative)
  }

  static func - (left: WideInteger, right: WideInteger) -> WideInteger { left + -right }

  static func * (left: WideInteger, right: WideInteger) -> WideInteger {
    var digits = [UInt64](repeating: 0, count: left.digits.count + right.digits.count)
    for (i, a) in left.digits.enumerated() {
      var carry: UInt64 = 0
      for (j, b) in right.digits.enumerated() {
        let value = digits[i + j] + a * b + carry
        digits[i + j] = value % base
        carry = value / base
      }
      digits[i + right.digits.count] += carry
    }
    return WideInteger(digits, isNegative: left.isNegative != right.isNegative)
  }

  /// Quotient rounded down, and the remainder, which has the divisor's sign. The divisor is not zero.
  func floorDivided(by divisor: WideInteger) -> (quotient: WideInteger, remainder: WideInteger) {
    let positive = WideInteger(divisor.digits, isNegative: false)
    var quotient = [UInt64](repeating: 0, count: digits.count)
    var rest = WideInteger(0)
    for (index, digit) in digits.enumerated().reversed() {
      rest = WideInteger([digit] + rest.digits, isNegative: false)
      var (low, high) = (UInt64(0), Self.base - 1)
      while low < high {
        let middle = (low + high + 1) / 2
        let isAbove = rest < positive * WideInteger(Int(middle))
        if isAbove { high = middle - 1 } else { low = middle }
      }
      quotient[index] = low
      rest = rest - positive * WideInteger(Int(low))
    }
    var result = WideInteger(quotient, isNegative: isNegative != divisor.isNegative)
    if isNegative { rest = -rest }
    if !rest.isZero, isNegative != divisor.isNegative {
      result = result - WideInteger(1)
      rest = rest + divisor
    }
    return (result, rest)
  }

  private static func isLess(_ left: [UInt64], _ right: [UInt64]) -> Bool {
    if left.count != right.count { return left.count < right.count }
    return left.reversed().lexicographicallyPrecedes(right.reversed())
  }

  private static func sum(_ left: [UInt64], _ right: [UInt64]) -> [UInt64] {
    var (digits, carry) = ([UInt64](), UInt64(0))
    for index in 0..<max(left.count, right.count) {
      let value =
        (index < left.count ? left[index] : 0) + (index < right.count ? right[index] : 0) + carry
      digits.append(value % base)
      carry = value / base
    }
    return digits + [carry]
  }

  /// Of a larger or equal number and another.
  private static func difference(_ left: [UInt64], _ right: [UInt64]) -> [UInt64] {
    var (digits, borrow) = ([UInt64](), UInt64(0))
    for index in left.indices {
      let take = (index < right.count ? right[index] : 0) + borrow
      borrow = left[index] < take ? 1 : 0
      digits.append(left[index] + borrow * base - take)
    }
    return digits
  }
}
