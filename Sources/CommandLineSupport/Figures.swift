import FoundationEssentials

/// One measured number of a bench, with the limit that it is compared with.
public struct Figure: Encodable, Sendable {
  public var name: String
  public var value: Double
  public var unit: String
  /// What the machine or the data allows at best, in the same unit.
  public var limit: Double?

  public init(_ name: String, _ value: Double, _ unit: String, limit: Double? = nil) {
    self.name = name
    self.value = value
    self.unit = unit
    self.limit = limit
  }
}

/// What a bench prints: lines for people, or with `--json` one object.
public struct FigureReport: Encodable, Sendable {
  public var figures: [Figure]

  public init(_ figures: [Figure]) { self.figures = figures }

  public func print(asJSON: Bool) throws {
    if asJSON {
      let encoder = JSONEncoder()
      encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
      Terminal.print(String(decoding: try encoder.encode(self), as: UTF8.self) + "\n")
      return
    }
    for figure in figures {
      let limit = figure.limit.map { " (limit \(Self.digits($0)))" } ?? ""
      Terminal.print("\(figure.name): \(Self.digits(figure.value)) \(figure.unit)\(limit)\n")
    }
  }

  /// Four significant digits, or a whole number.
  private static func digits(_ value: Double) -> String {
    guard value.isFinite, value.magnitude < 1000 else {
      return value.isFinite && value.magnitude < 9e18 ? String(Int(value.rounded())) : "\(value)"
    }
    var factor = 1.0
    while factor < 1e8, value != 0, value.magnitude * factor < 1000 { factor *= 10 }
    return "\((value * factor).rounded() / factor)"
  }
}
