/// A number of bytes, as people write and read it: `200MiB`, `1.5 GiB`, `4096`.
public struct ByteCount: Equatable, Comparable, Sendable, CustomStringConvertible {
  public var bytes: Int

  public init(_ bytes: Int) { self.bytes = bytes }

  private static let units: [(suffix: String, bytes: Int)] = [
    ("tib", 1 << 40), ("gib", 1 << 30), ("mib", 1 << 20), ("kib", 1 << 10),
    ("tb", 1_000_000_000_000), ("gb", 1_000_000_000), ("mb", 1_000_000), ("kb", 1_000),
    ("t", 1 << 40), ("g", 1 << 30), ("m", 1 << 20), ("k", 1 << 10), ("b", 1),
  ]

  /// Parses a number with an optional unit (`KiB`, `MB`, `G`, …; a letter alone is binary).
  public init?(_ text: String) {
    let lowered = text.lowercased().filter { $0 != " " }
    let unit = Self.units.first { lowered.hasSuffix($0.suffix) }
    let digits = lowered.dropLast(unit?.suffix.count ?? 0)
    guard !digits.isEmpty, digits.allSatisfy({ $0.isASCII && ($0.isNumber || $0 == ".") }),
      let value = Double(String(digits)), value >= 0
    else { return nil }
    let bytes = value * Double(unit?.bytes ?? 1)
    guard bytes < 9e18 else { return nil }
    self.bytes = Int(bytes)
  }

  public static func < (left: Self, right: Self) -> Bool { left.bytes < right.bytes }

  /// Binary units with at most two decimals, e.g. `31.25 MiB`.
  public var description: String {
    for (suffix, unit) in [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)]
    where abs(bytes) >= unit {
      let hundredths = (Double(bytes) / Double(unit) * 100).rounded()
      let whole = Int(hundredths) / 100
      let fraction = abs(Int(hundredths) % 100)
      if fraction == 0 { return "\(whole) \(suffix)" }
      let digits = fraction < 10 ? "0\(fraction)" : "\(fraction)"
      return "\(whole).\(fraction % 10 == 0 ? String(digits.dropLast()) : digits) \(suffix)"
    }
    return "\(bytes) B"
  }
}
