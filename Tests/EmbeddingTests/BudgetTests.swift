import TensorBasics
import TestSupport
import Testing

/// Twenty uses of a file that is larger than the budget, the same in C, Python and Swift: the process's peak resident set
/// stays within it.
struct BudgetTests {
  private let files = Files()
  private static let tensorCount = 6

  /// Each kind of use with tensors drawn by chance, and some twice, in an order drawn by chance.
  private static func uses(seed: UInt64) -> [String] {
    var generator = SeededGenerator(seed: seed)
    func next(_ count: Int) -> Int { Int.random(in: 0..<count, using: &generator) }
    let kinds = [
      "load", "floats", "pieces", "pieceFloats", "rows", "rowFloats", "into", "prefetch", "abandon",
      "hold", "generate",
    ]
    var uses = (kinds + (kinds.count..<20).map { _ in kinds[next(kinds.count)] }).map {
      "\($0):\(next(tensorCount)):\(1 + next(60))"
    }
    for index in uses.indices.reversed() { uses.swapAt(index, next(index + 1)) }
    return uses
  }

  /// Runs a program, which prints its peak, the budget, and how many uses were refused.
  private func expectWithinBudget(_ program: [String], budget: Int, seed: UInt64) throws {
    // 24 MB each: two or three fit beside each other, not all.
    let large = files.large(tensorCount: Self.tensorCount, rowCount: 300, columnCount: 20_000).path
    let uses = Self.uses(seed: seed)
    let result = try Tool.run(program + [large, files.model, "\(budget)"] + uses)
    #expect(result.status == 0, "\(uses): \(result.errors)")
    let figures = result.output.split(whereSeparator: \.isWhitespace).compactMap { Int($0) }
    try #require(figures.count == 3, "\(result.output)")
    #expect(figures[0] <= figures[1] && figures[1] == budget, "\(uses): \(result.output)")
    // Some are, so that the budget is what bounds the rest.
    #expect((1..<20).contains(figures[2]), "\(uses): \(result.output)")
  }

  @Test(
    .enabled(if: Tool.isInstalled, "the library is not installed: run tools/test"),
    arguments: [1, 2, 3] as [UInt64])
  func `In C`(seed: UInt64) throws {
    let program = files.folder.path + "/budget"
    let compiled = try Tool.compile(Tool.programs + "/budget.c", to: program)
    #expect(compiled.status == 0, "\(compiled.errors)")
    try expectWithinBudget([program], budget: 100 << 20, seed: seed)
  }

  @Test(
    .enabled(if: Tool.hasPython, "there is no Python environment with NumPy: run tools/test"),
    arguments: [1, 2, 3] as [UInt64])
  func `In Python`(seed: UInt64) throws {
    try expectWithinBudget(
      [Tool.python, Tool.programs + "/budget.py"], budget: 140 << 20, seed: seed)
  }

  @Test(
    .enabled(if: Tool.hasExamples, "the Swift examples are not built: run tools/test"),
    arguments: [1, 2, 3] as [UInt64])
  func `In Swift`(seed: UInt64) throws {
    try expectWithinBudget([Tool.swiftExamples + "/budget"], budget: 100 << 20, seed: seed)
  }
}
