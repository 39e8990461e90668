import ArgumentParser
import CommandLineSupport
import InStorageAttention

/// A computational storage drive on a virtual clock: against published figures, and against the host.
struct InStorageBench: ParsableCommand {
  enum Machine: String, ExpressibleByArgument, CaseIterable {
    case paper
    case year2026 = "2026"
    case laptop

    var model: SystemModel {
      switch self {
      case .paper: SystemModel(system: .paper, drive: .paper)
      case .year2026: SystemModel(system: .year2026, drive: .year2026)
      case .laptop: SystemModel(system: .laptop2026, drive: .year2026)
      }
    }
  }

  static let configuration = CommandConfiguration(
    commandName: "in-storage",
    abstract: "What attention inside a drive would take, by the timing model.",
    discussion: """
      Nothing is measured: drives, host and processor are simulated (docs/in-storage.md). --paper \
      holds the model against the figures that arXiv 2409.04992 prints; --explore sweeps what decides \
      whether attention belongs into the drive, always for host and in-storage, dense and sparse \
      (benchmarks/in_storage.py draws it).

      Examples:
        flashinfer-bench in-storage --paper
        flashinfer-bench in-storage --explore --machine laptop
      """)

  @Flag(help: "Compare the model with the published figures.") var paper = false
  @Flag(help: "Sweep context, batch, channels, link, grouped queries and drives.") var explore =
    false
  @Option(help: "With --explore: paper, 2026, or laptop (the drive of 2026 under a laptop's CPU).")
  var machine = Machine.year2026
  @Flag(help: "Print one JSON object.") var json = false
  @OptionGroup(title: "Output") var messages: OutputOptions

  func validate() throws {
    guard paper != explore else { throw ValidationError("give one of --paper and --explore") }
  }

  func run() throws {
    try reportingErrors {
      if paper {
        let paper = try PaperFigures()
        if json {
          printJSON(paper)
        } else {
          printTable(paper)
          try printCells()
        }
      } else {
        try printSweeps(InStorageSweep.all(machine.model), asJSON: json)
      }
    }
  }

  private func printTable(_ paper: PaperFigures) {
    Terminal.print(
      row("", "figure", "kind", "level", "published", "modelled", "error") + "\n")
    for (index, figure) in paper.figures.enumerated() {
      Terminal.print(
        row(
          String(index + 1), figure.name, figure.kind.rawValue, figure.level.rawValue,
          digits(figure.published), digits(figure.modelled), percent(figure.error)) + "\n")
    }
    let summary = paper.deviceSummary
    Terminal.print(
      "device level, not inputs: \(summary.withinTenPercent) of \(summary.count) within 10 %, "
        + "at most \(percent(summary.largest))\n")
  }

  /// Host and in-storage, dense and sparse, in tokens per second, which the paper does not print.
  private func printCells() throws {
    let model = Machine.paper.model
    let sparse = AttentionMode.sparse(compression: 0.125)
    for batch in [32, 64] {
      let workload = SystemWorkload(
        model: .opt13B, batch: batch, promptLength: 1024, outputLength: 1024)
      let cells: [(String, KeyValuePlacement, AttentionMode)] = [
        ("host dense", .hostStorage(driveCount: 1), .dense),
        ("host sparse", .hostStorage(driveCount: 1), sparse),
        ("in-storage dense", .inStorage(driveCount: 1), .dense),
        ("in-storage sparse", .inStorage(driveCount: 1), sparse),
      ]
      let rates = try cells.map {
        "\($0.0) \(digits(try model.run(workload, $0.1, $0.2).tokensPerSecond))"
      }
      Terminal.print(
        "OPT-13B, batch \(batch), one drive, tokens/s: \(rates.joined(separator: ", "))\n")
    }
  }

  private func row(
    _ number: String, _ name: String, _ kind: String, _ level: String, _ published: String,
    _ modelled: String, _ error: String
  ) -> String {
    padded(number, 3) + " " + padded(name, 50) + padded(kind, 13) + padded(level, 8)
      + padded(published, 11) + padded(modelled, 11) + error
  }

  private func printJSON(_ paper: PaperFigures) {
    var printer = JSONPrinter()
    printer.object { object in
      object.array("figures") { array in
        for figure in paper.figures {
          array.object {
            $0.text("name", utf8: Array(figure.name.utf8))
            $0.text("kind", utf8: Array(figure.kind.rawValue.utf8))
            $0.text("level", utf8: Array(figure.level.rawValue.utf8))
            $0.number("published", figure.published)
            $0.number("modelled", figure.modelled)
          }
        }
      }
    }
    printer.finish()
  }
}

/// `text` with spaces up to `width` characters.
func padded(_ text: String, _ width: Int) -> String {
  text + String(repeating: " ", count: max(0, width - text.count))
}

/// Four significant digits.
func digits(_ value: Double) -> String {
  guard value.isFinite, value != 0 else { return value.isFinite ? "0" : "–" }
  var factor = 1.0
  while factor < 1e6, value.magnitude * factor < 1000 { factor *= 10 }
  let rounded = (value * factor).rounded() / factor
  return rounded == rounded.rounded() && rounded.magnitude < 1e9
    ? String(Int(rounded)) : String(rounded)
}

/// A signed share in percent with one decimal.
private func percent(_ share: Double) -> String {
  (share < 0 ? "−" : "+") + "\((share.magnitude * 1000).rounded() / 10) %"
}
