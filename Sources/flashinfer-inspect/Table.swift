import CommandLineSupport

/// Rows of text in columns, for people.
struct Table {
  private var rows: [[String]]
  private let numbers: Range<Int>

  /// - Parameter numbers: columns of numbers, which end in one line.
  init(columns: [String], numbers: Range<Int> = 0..<0) {
    rows = [columns]
    self.numbers = numbers
  }

  /// Adds a row; what a terminal would obey is escaped.
  mutating func add(_ cells: [String]) { rows.append(cells.map(\.escapingControlCharacters)) }

  func printLines() {
    let widths = rows[0].indices.map { column in rows.map { $0[column].count }.max() ?? 0 }
    for row in rows {
      let cells = row.enumerated().map { column, cell in
        // Text that comes last needs no column.
        guard numbers.contains(column) || column + 1 < row.count else { return cell }
        let blanks = String(repeating: " ", count: widths[column] - cell.count)
        return numbers.contains(column) ? blanks + cell : cell + blanks
      }
      Terminal.print(cells.joined(separator: "  ") + "\n")
    }
  }
}
