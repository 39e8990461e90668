import ModelFormat

/// One number that a command found out, with its unit and the limit it is held against.
public struct Figure: Sendable {
  /// In JSON's spelling, with its quantity last: `loadBytesPerSecond`; variants follow a slash.
  public var name: String
  /// Always finite; nil where there is none, for ``reason``.
  public let value: Double?
  public var unit: FigureUnit
  /// What a fraction is of, or what else a reader has to know of the number: `of the time`.
  public var detail: String?
  /// What the machine or the data allows at best, in the same unit.
  public var limit: Double?
  /// How repetitions differ; nil where the figure was found out once.
  public var spread: Spread?
  /// Whether the figure is the same whenever it is found out: a count, or a function of text and model alone.
  public private(set) var isExact = false
  /// Why there is no value.
  public let reason: String?

  /// - Parameter absence: why there is no value, where `value` is not finite.
  public init(
    _ name: String, _ value: Double, _ unit: FigureUnit, _ detail: String? = nil,
    limit: Double? = nil, absence: String? = nil
  ) {
    self.name = name
    self.value = value.isFinite ? value : nil
    self.unit = unit
    self.detail = detail
    self.limit = limit.flatMap { $0.isFinite ? $0 : nil }
    reason = value.isFinite ? nil : absence ?? "the result is not a finite number"
  }

  /// A count.
  public init(_ name: String, _ value: Int, _ unit: FigureUnit, limit: Double? = nil) {
    self.init(name, Double(value), unit, limit: limit)
  }

  /// A quotient, which has no value where the divisor is 0.
  ///
  /// - Parameter divisorName: what the divisor is, for people.
  public init(
    _ name: String, _ dividend: Double, dividedBy divisor: Double, _ divisorName: String,
    _ unit: FigureUnit = .fraction, _ detail: String? = nil, limit: Double? = nil
  ) {
    self.init(
      name, divisor == 0 ? .nan : dividend / divisor, unit, detail, limit: limit,
      absence: divisor == 0 ? "\(divisorName): 0, and nothing can be divided by it" : nil)
  }

  /// The mean of repetitions, and how they differ.
  public init(
    _ name: String, samples: [Double], _ unit: FigureUnit, _ detail: String? = nil,
    limit: Double? = nil
  ) {
    let spread = Spread(samples)
    self.init(
      name, spread?.mean ?? .nan, unit, detail, limit: limit, absence: "nothing was measured")
    self.spread = samples.count > 1 ? spread : nil
  }

  /// The figure as one that has no spread, however often it is found out.
  public var exact: Figure {
    var figure = self
    figure.isExact = true
    return figure
  }

  /// Writes the figure as an object (docs/json.md).
  func write(to json: inout JSONWriter) {
    json.object { json in
      json.text("name", name)
      json.number("value", value)
      json.text("unit", unit.rawValue)
      if let detail { json.text("detail", detail) }
      if let limit { json.number("limit", limit) }
      if let reason { json.text("reason", reason) }
      if isExact { json.flag("exact", true) }
      guard let spread else { return }
      json.object("spread") { json in
        json.number("count", spread.count)
        json.number("min", spread.minimum)
        json.number("max", spread.maximum)
        json.number("median", spread.median)
        json.number("mean", spread.mean)
        json.number("standardDeviation", spread.standardDeviation)
      }
    }
  }
}

/// What a figure counts; raw values are JSON's.
public enum FigureUnit: String, Sendable, CaseIterable {
  case bytes = "B"
  case bytesPerSecond = "B/s"
  case seconds = "s"
  case milliseconds = "ms"
  case microseconds = "µs"
  case secondsPerGigabyte = "s/GB"
  case tokens = "tokens"
  case tokensPerSecond = "tokens/s"
  case perSecond = "1/s"
  case gigaflops = "GFLOP/s"
  /// Operations on integers.
  case gigaoperations = "GOP/s"
  case nats = "nats"
  /// A share, 1 being all.
  case fraction = "fraction"
  /// A number without a unit.
  case number = "1"
}

/// How repetitions of a measurement differ.
public struct Spread: Sendable, Equatable {
  public var count: Int
  public var minimum: Double
  public var maximum: Double
  public var median: Double
  public var mean: Double
  /// Of the sample, with count − 1; 0 for one.
  public var standardDeviation: Double

  /// Nil without samples, or where one is not finite.
  public init?(_ samples: [Double]) {
    guard !samples.isEmpty, samples.allSatisfy(\.isFinite) else { return nil }
    let sorted = samples.sorted()
    count = sorted.count
    minimum = sorted[0]
    maximum = sorted[count - 1]
    median = (sorted[(count - 1) / 2] + sorted[count / 2]) / 2
    let mean = samples.reduce(0, +) / Double(count)
    self.mean = mean
    let squares = samples.reduce(0) { $0 + ($1 - mean) * ($1 - mean) }
    standardDeviation = (squares / Double(max(1, count - 1))).squareRoot()
  }
}
