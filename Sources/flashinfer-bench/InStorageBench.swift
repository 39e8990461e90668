import ArgumentParser
import CommandLineSupport
import InStorageAttention
import ModelFormat

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
      (tools/plots draws it).

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
        let sweeps = try InStorageSweep.all(machine.model)
        if json { printJSON(sweeps) } else { printLines(sweeps) }
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
    for (level, bound) in [(PublishedFigure.Level.device, 0.1), (.system, 0.25)] {
      let summary = paper.summary(of: level, within: bound)
      Terminal.print(
        "\(level.rawValue) level, inputs left out: \(summary.nearCount) of \(summary.count) within "
          + "±\((bound * 100).fixed(0)) %; the furthest is \(percent(summary.furthest))\n")
    }
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
    number.padded(to: 3) + " " + name.padded(to: 50) + kind.padded(to: 13) + level.padded(to: 8)
      + published.padded(to: -9) + modelled.padded(to: -11) + error.padded(to: -10)
  }

  private func printJSON(_ paper: PaperFigures) {
    report([], asJSON: true) { json in
      json.flag("simulated", true)
      json.array("comparisons", of: paper.figures) { list, figure in
        list.object { json in
          json.text("name", figure.name)
          json.text("kind", figure.kind.rawValue)
          json.text("level", figure.level.rawValue)
          json.number("published", figure.published)
          json.number("modelled", figure.modelled)
          json.number("error", figure.error)
        }
      }
    }
  }
}

/// Four significant digits, without zeros at the end.
func digits(_ value: Double) -> String {
  let text = value.significant(4)
  guard text.contains(".") else { return text }
  return String(text.reversed().drop { $0 == "0" }.drop { $0 == "." }.reversed())
}

/// A signed share in percent with one decimal.
private func percent(_ share: Double) -> String {
  (share < 0 ? "" : "+") + "\((share * 100).fixed(1)) %"
}
