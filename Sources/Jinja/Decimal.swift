import Glibc

/// Floats in decimal, correctly rounded.
enum Decimal {
  /// `printf` with a conversion of one float, such as `e`, and a precision.
  static func text(_ value: Double, _ conversion: Character, _ precision: Int) -> String {
    let format = "%.\(precision)\(conversion)"
    // The largest float has 309 digits.
    let size = 320 + precision
    let characters = [CChar](unsafeUninitializedCapacity: size) { buffer, count in
      let length = withVaList([value]) { vsnprintf(buffer.baseAddress, size, format, $0) }
      count = max(0, min(Int(length), size - 1))
    }
    return String(decoding: characters.map { UInt8(bitPattern: $0) }, as: UTF8.self)
  }

  /// Python's `round`: to so many digits after the point, half to even of the exact value.
  static func rounded(_ value: Double, _ digits: Int) -> Double {
    guard value.isFinite else { return value }
    if digits >= 0 { return Double(text(value, "f", digits)) ?? value }
    guard digits > -309 else { return 0 }
    let factor = pow(10, Double(-digits))
    return (value / factor).rounded(.toNearestOrEven) * factor
  }
}
