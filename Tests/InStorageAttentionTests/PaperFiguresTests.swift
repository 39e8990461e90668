import InStorageAttention
import Testing

/// The one parameter set against arXiv 2409.04992; `docs/in-storage.md` explains the rows that miss.
@Suite struct PaperFiguresTests {
  @Test func deviceFiguresAreNear() throws {
    let summary = try PaperFigures().deviceSummary
    #expect(summary.count >= 18)
    #expect(Double(summary.withinTenPercent) >= 0.8 * Double(summary.count))
    #expect(summary.largest <= 0.25)
  }

  @Test func inputsAreTheParameters() throws {
    for figure in try PaperFigures().figures where figure.kind == .input {
      // The paper rounds the accuracy of its emulation.
      #expect(figure.error.magnitude < 1e-3, "\(figure.name)")
    }
  }

  @Test func systemRatiosAreNearButForRecomputation() throws {
    for figure in try PaperFigures().figures
    where figure.level == .system && !figure.name.contains("recomputation") {
      #expect(figure.error.magnitude <= 0.25, "\(figure.name)")
    }
  }
}
