import Glibc
import TensorBasics

extension Figure {
  /// A line for people, without its label: `1.60 GB/s ± 0.05, limit 2.10 GB/s`.
  public var text: String {
    guard let value else { return "–" + (reason.map { " (\($0))" } ?? "") }
    var text = unit.text(value, plusMinus: spread?.standardDeviation)
    if let spread { text += " (\(spread.count) times)" }
    if let detail { text += " \(detail)" }
    if let limit { text += ", limit \(unit.text(limit))" }
    return text
  }

  /// The name in words, without the quantity that the unit states.
  public var label: String {
    let parts = name.split(separator: "/", maxSplits: 1)
    var words = Self.words(parts.first.map(String.init) ?? name)
    let suffix = unit.nameSuffix
    if words.count > suffix.count, words.suffix(suffix.count) == suffix[...] {
      words.removeLast(suffix.count)
    }
    let variant = parts.count > 1 ? ["\(parts[1]):"] : []
    return (variant + words).joined(separator: " ")
  }

  /// The words of a name that is spelled in camel case.
  private static func words(_ name: String) -> [String] {
    var words: [String] = []
    for character in name {
      if words.isEmpty || character.isUppercase, !(words.last?.last?.isUppercase ?? false) {
        words.append("")
      }
      words[words.count - 1].append(character)
    }
    return words.map { abbreviations[$0.lowercased()] ?? $0.lowercased() }
  }

  private static let abbreviations = ["kv": "KV", "dram": "DRAM", "cpu": "CPU", "io": "I/O"]
}

extension [Figure] {
  /// Prints a line for each, for people.
  public func printLines() {
    let width = map(\.label.count).max() ?? 0
    for figure in self {
      Terminal.print("\(figure.label.padded(to: width))  \(figure.text)\n")
    }
  }
}

extension FigureUnit {
  /// A number for people, in the multiple of the unit that shows three digits of it: `1.60 GB/s`, `7.34 ms`.
  public func text(_ value: Double, plusMinus deviation: Double? = nil) -> String {
    if self == .bytes {
      let deviation = deviation.map { " ± \(Self.byteCount($0))" } ?? ""
      return Self.byteCount(value) + deviation
    }
    let multiple =
      multiples.first { value.magnitude >= $0.factor } ?? multiples[multiples.count - 1]
    let scaled = value / multiple.factor
    let isCount = (self == .number || self == .tokens) && scaled == scaled.rounded()
    let decimals = isCount ? 0 : scaled.decimals(for: 3)
    let spread = deviation.map { " ± \(($0 / multiple.factor).fixed(decimals))" } ?? ""
    return scaled.fixed(decimals) + spread + multiple.suffix
  }

  /// As budgets are written.
  private static func byteCount(_ value: Double) -> String {
    value.magnitude < 9e18 ? "\(ByteCount(Int(value.rounded())))" : "\(value) B"
  }

  /// What the unit is counted in, the largest first.
  private var multiples: [(factor: Double, suffix: String)] {
    switch self {
    case .bytesPerSecond: [(1e9, " GB/s"), (1e6, " MB/s"), (1e3, " kB/s"), (1, " B/s")]
    case .seconds: Self.durations(1)
    case .milliseconds: Self.durations(1e-3)
    case .microseconds: Self.durations(1e-6)
    case .fraction: [(0.01, " %")]
    case .number: [(1, "")]
    case .perSecond: [(1, " a second")]
    default: [(1, " \(rawValue)")]
    }
  }

  /// - Parameter unit: seconds that a value of 1 stands for.
  private static func durations(_ unit: Double) -> [(factor: Double, suffix: String)] {
    [(1, " s"), (1e-3, " ms"), (1e-6, " µs"), (1e-9, " ns")].map { ($0.0 / unit, $0.1) }
  }

  /// What names of such figures end with, in words.
  fileprivate var nameSuffix: [String] {
    switch self {
    case .bytes: ["bytes"]
    case .bytesPerSecond: ["bytes", "per", "second"]
    case .seconds: ["seconds"]
    case .milliseconds: ["milliseconds"]
    case .microseconds: ["microseconds"]
    case .secondsPerGigabyte: ["seconds", "per", "gigabyte"]
    case .tokensPerSecond: ["tokens", "per", "second"]
    case .perSecond: ["per", "second"]
    case .gigaoperations: ["operations", "per", "second"]
    default: []
    }
  }
}

extension Double {
  /// With so many digits, and all of a larger number's whole part: `0.0731`, `7.31`, `1460`.
  public func significant(_ digits: Int) -> String { fixed(decimals(for: digits)) }

  fileprivate func decimals(for digits: Int) -> Int {
    guard isFinite, self != 0 else { return 0 }
    return Swift.min(12, Swift.max(0, digits - 1 - Int(log10(magnitude).rounded(.down))))
  }

  /// With so many decimals; `–` where it is not finite.
  public func fixed(_ decimals: Int) -> String {
    guard isFinite else { return "–" }
    let scaled = (magnitude * pow(10, Double(decimals))).rounded()
    guard scaled < 9e18 else { return "\(self)" }
    var digits = String(Int(scaled))
    digits = String(repeating: "0", count: Swift.max(0, decimals + 1 - digits.count)) + digits
    if decimals > 0 { digits.insert(".", at: digits.index(digits.endIndex, offsetBy: -decimals)) }
    return (self < 0 && scaled > 0 ? "−" : "") + digits
  }
}

extension String {
  /// With blanks behind it, up to `width` characters; in front of it where `width` is negative.
  public func padded(to width: Int) -> String {
    let blanks = String(repeating: " ", count: Swift.max(0, abs(width) - count))
    return width < 0 ? blanks + self : self + blanks
  }
}
