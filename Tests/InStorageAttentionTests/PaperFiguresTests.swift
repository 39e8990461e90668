import InStorageAttention
import Testing

/// The one parameter set against arXiv 2409.04992; `docs/in-storage.md` explains the rows that miss.
@Suite struct PaperFiguresTests {
  @Test func deviceFiguresAreNear() throws {
    let summary = try PaperFigures().summary(of: .device, within: 0.1)
    #expect(summary.count >= 18)
    #expect(Double(summary.nearCount) >= 0.8 * Double(summary.count))
    #expect(summary.furthest.magnitude <= 0.25)
  }

  @Test func `The furthest figure of a level keeps its sign`() throws {
    let paper = try PaperFigures()
    for level in [PublishedFigure.Level.device, .system] {
      let errors = paper.figures.filter { $0.level == level && $0.kind != .input }.map(\.error)
      let summary = paper.summary(of: level, within: 0.1)
      #expect(errors.contains(summary.furthest) && summary.count == errors.count)
      #expect(errors.allSatisfy { $0.magnitude <= summary.furthest.magnitude })
    }
    #expect(paper.summary(of: .device, within: 0.1).furthest < 0)
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
