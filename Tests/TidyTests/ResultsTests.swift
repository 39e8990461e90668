import Foundation
import Testing

/// What was measured and recorded, and what was drawn of it.
@Suite struct ResultsTests {
  private static let columns = [
    "date", "commit", "machine", "model", "budget", "command", "figure", "value", "unit", "min",
    "max",
    "rounds", "limit", "against", "cache", "validity", "note",
  ]

  @Test func `Every row of results has all columns, and numbers where they belong`() throws {
    let table = try #require(SourceTree.file("benchmarks/results.tsv"))
    #expect(table.lines.first.map { $0.components(separatedBy: "\t") } == Self.columns)
    for (number, line) in table.lines.enumerated().dropFirst() where !line.isEmpty {
      let cells = line.components(separatedBy: "\t")
      #expect(cells.count == Self.columns.count, "line \(number + 1)")
      guard cells.count == Self.columns.count else { continue }
      let row = Dictionary(uniqueKeysWithValues: zip(Self.columns, cells))
      for name in ["min", "max", "rounds", "limit"] {
        let cell = row[name] ?? ""
        #expect(cell.isEmpty || Double(cell) != nil, "line \(number + 1): \(name) \(cell)")
      }
      let value = Double(row["value"] ?? "")
      #expect(value?.isFinite == true, "line \(number + 1)")
      if let value, let least = Double(row["min"] ?? ""), let most = Double(row["max"] ?? "") {
        // They are written with six digits.
        let error = value.magnitude * 1e-5
        #expect(least <= value + error && value - error <= most, "line \(number + 1)")
      }
      let validity = row["validity"] ?? ""
      #expect(
        ["valid", "superseded"].contains(validity) || validity.hasPrefix("stale: "),
        "line \(number + 1): \(validity)")
    }
  }

  @Test func `A figure has one valid row`() throws {
    let table = try #require(SourceTree.file("benchmarks/results.tsv"))
    var seen: Set<[String]> = []
    for line in table.lines.dropFirst() {
      let cells = line.components(separatedBy: "\t")
      guard cells.count == Self.columns.count, cells[15] == "valid" else { continue }
      #expect(seen.insert(Array(cells[2...6])).inserted, "\(line)")
    }
    #expect(seen.count > 300)
  }

  @Test(arguments: ["paper", "2026", "laptop"])
  func `Drawings of simulated drives say that they are simulated`(machine: String) throws {
    let drawing = try #require(SourceTree.file("docs/plots/in-storage-\(machine).svg"))
    #expect(drawing.lines.contains { $0.contains("Simulated, not measured") })
  }
}
