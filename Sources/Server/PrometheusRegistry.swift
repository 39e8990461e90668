public import CoreMetrics
import Synchronization

/// A back end of swift-metrics that keeps what Prometheus asks for, in its text format (version 0.0.4).
public final class PrometheusRegistry: MetricsFactory {
  private enum Kind: String {
    case counter, gauge, summary
  }

  private struct Name: Hashable {
    /// Without what its kind adds.
    var label: String
    var name: String
    /// `{a="b"}`, or nothing.
    var labels: String
  }

  /// One series, whatever its kind.
  private final class Cell: CounterHandler, FloatingPointCounterHandler, MeterHandler,
    RecorderHandler, TimerHandler
  {
    let kind: Kind
    let value = Mutex((sum: 0.0, count: 0))

    init(_ kind: Kind) { self.kind = kind }

    private func add(_ amount: Double) {
      value.withLock { value in
        value.sum += amount
        value.count += 1
      }
    }

    func increment(by amount: Int64) { add(Double(amount)) }
    func increment(by amount: Double) { add(amount) }
    func decrement(by amount: Double) { add(-amount) }
    func set(_ value: Int64) { set(Double(value)) }
    func set(_ value: Double) { self.value.withLock { $0.sum = value } }
    func record(_ value: Int64) { record(Double(value)) }
    func record(_ value: Double) { if kind == .gauge { set(value) } else { add(value) } }
    func recordNanoseconds(_ duration: Int64) { add(Double(duration) / 1e9) }
    func reset() { value.withLock { $0 = (0, 0) } }
  }

  private let cells = Mutex<[Name: Cell]>([:])
  private let helps: [String: String]

  /// - Parameter helps: what the figures of each label are, on one line.
  public init(helps: [String: String] = [:]) { self.helps = helps }

  /// Sets a counter to what somebody else has counted.
  func count(_ label: String, total: Double) {
    cell(.counter, label, [], suffix: "_total").set(total)
  }

  private func cell(
    _ kind: Kind, _ label: String, _ dimensions: [(String, String)], suffix: String = ""
  ) -> Cell {
    let labels = dimensions.map { "\(Self.plain($0.0))=\"\(Self.escaped($0.1))\"" }
    let name = Name(
      label: label, name: Self.plain(label) + suffix,
      labels: labels.isEmpty ? "" : "{\(labels.joined(separator: ","))}")
    return cells.withLock { cells in
      if let known = cells[name] { return known }
      let cell = Cell(kind)
      cells[name] = cell
      return cell
    }
  }

  /// A name of the letters that Prometheus has.
  private static func plain(_ label: String) -> String {
    String(label.map { $0.isASCII && ($0.isLetter || $0.isNumber) ? $0 : "_" })
  }

  private static func escaped(_ value: String) -> String {
    value.reduce(into: "") { text, character in
      switch character {
      case "\\": text += "\\\\"
      case "\"": text += "\\\""
      case "\n": text += "\\n"
      default: text.append(character)
      }
    }
  }

  /// All series, in the order of their names.
  public var text: String {
    let series = cells.withLock { Array($0) }
      .sorted { ($0.key.name, $0.key.labels) < ($1.key.name, $1.key.labels) }
    var (text, last) = ("", "")
    for (name, cell) in series {
      if name.name != last {
        if let help = helps[name.label] { text += "# HELP \(name.name) \(help)\n" }
        text += "# TYPE \(name.name) \(cell.kind.rawValue)\n"
      }
      last = name.name
      let (sum, count) = cell.value.withLock { $0 }
      if cell.kind == .summary {
        text += "\(name.name)_sum\(name.labels) \(Self.number(sum))\n"
        text += "\(name.name)_count\(name.labels) \(count)\n"
      } else {
        text += "\(name.name)\(name.labels) \(Self.number(sum))\n"
      }
    }
    return text
  }

  private static func number(_ value: Double) -> String {
    Int(exactly: value).map(String.init) ?? "\(value)"
  }

  // MARK: - MetricsFactory

  public func makeCounter(label: String, dimensions: [(String, String)]) -> any CounterHandler {
    cell(.counter, label, dimensions, suffix: "_total")
  }

  public func makeFloatingPointCounter(
    label: String, dimensions: [(String, String)]
  ) -> any FloatingPointCounterHandler {
    cell(.counter, label, dimensions, suffix: "_total")
  }

  public func makeMeter(label: String, dimensions: [(String, String)]) -> any MeterHandler {
    cell(.gauge, label, dimensions)
  }

  public func makeRecorder(
    label: String, dimensions: [(String, String)], aggregate: Bool
  ) -> any RecorderHandler {
    cell(aggregate ? .summary : .gauge, label, dimensions)
  }

  public func makeTimer(label: String, dimensions: [(String, String)]) -> any TimerHandler {
    cell(.summary, label, dimensions, suffix: "_seconds")
  }

  // A series stays for as long as the process, as Prometheus expects of counters; a gauge of what is gone goes.
  public func destroyCounter(_ handler: any CounterHandler) {}
  public func destroyFloatingPointCounter(_ handler: any FloatingPointCounterHandler) {}
  public func destroyMeter(_ handler: any MeterHandler) {}
  public func destroyRecorder(_ handler: any RecorderHandler) {
    guard let cell = handler as? Cell, cell.kind == .gauge else { return }
    cells.withLock { cells in cells = cells.filter { $0.value !== cell } }
  }
  public func destroyTimer(_ handler: any TimerHandler) {}
}
