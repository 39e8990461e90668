import ArgumentParser
import CommandLineSupport
import HostResources
import Kernels
import TensorBasics

/// Speed of products with weights in memory, one type after the other.
struct ProductsBench: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "products",
    abstract: "Speed of products with weights of each type, against what memory gives.",
    discussion: """
      Matrices of random blocks fill the memory, interleaved as decoding has them, and are multiplied \
      one after the other. With one activation row, as a decoded token has, the figure is bytes of \
      weights per second, and its limit what plain reading of the same memory gives in the same run. \
      With more rows it is operations per second: two for each weight and row. No model is needed.

      Examples:
        flashinfer-bench products
        flashinfer-bench products --type IQ2_XXS,Q4_0 --rows 1,4,8,32,64
      """)

  @Option(help: "Types to measure, e.g. Q4_0,IQ2_XXS (default: all quantised ones).")
  var type: String?
  @Option(help: "Numbers of activation rows.") var rows = "1"
  @Option(help: "Memory that the matrices fill, e.g. 64MiB.") var memory = ByteCount(1 << 30)
  @Option(help: "Rows of a matrix, a multiple of 16.") var matrixRows = 4096
  @Option(help: "Columns of a matrix, a multiple of 256.") var columns = 4096
  @Option(
    name: [.customLong("repeat"), .customLong("repeats")],
    help: "How often the matrices of each type are multiplied.")
  var repeats = 3
  @Option(help: "Worker threads (default: one per processor).") var threads: Int?
  @Flag(help: "Print one JSON object.") var json = false
  @OptionGroup(title: "Output") var messages: OutputOptions

  func validate() throws {
    guard [matrixRows, columns, repeats].allSatisfy({ (1...1 << 24).contains($0) }) else {
      throw ValidationError("counts must be between 1 and \(1 << 24)")
    }
    try ResourceOptions.check(threads: threads)
    guard matrixRows % RowGroup.rowCount == 0, columns % 256 == 0 else {
      throw ValidationError("--matrix-rows must be a multiple of 16, --columns of 256")
    }
    for type in try types()
    where ProductMatrices.matrixByteCount(type, rows: matrixRows, columns: columns) > memory.bytes {
      throw ValidationError("--memory \(memory) is less than one matrix of \(type.name)")
    }
    _ = try rowCounts()
  }

  private func types() throws -> [ElementType] {
    let quantised = ElementType.allCases.filter(\.isQuantised)
    guard let names = type else { return quantised }
    return try names.split(separator: ",").map { name in
      guard let type = quantised.first(where: { $0.name == name.uppercased() }) else {
        throw ValidationError(
          "--type: '\(name)' is none of \(quantised.map(\.name).joined(separator: ", "))")
      }
      return type
    }
  }

  private func rowCounts() throws -> [Int] {
    try rows.split(separator: ",", omittingEmptySubsequences: false).map { text in
      guard let count = Int(text), (1...4096).contains(count) else {
        throw ValidationError("--rows: '\(text)' is no number from 1 to 4096")
      }
      return count
    }
  }

  func run() throws {
    Interruption.install()
    Interruption.endProcessAtOnce(true)
    try reportingErrors {
      let (types, counts) = (try types(), try rowCounts())
      let pool = ThreadPool(threadCount: threads ?? HostLimits().defaultThreadCount)
      let matrices = try ProductMatrices(
        memory: memory.bytes, rowCount: matrixRows, columnCount: columns,
        tokenCount: counts.max() ?? 1)
      let figures = Progress.showing("multiplying", total: types.count, unit: .count("types")) {
        progress in
        types.enumerated().flatMap { index, type in
          matrices.fill(with: type)
          defer { progress.update(index + 1) }
          return measure(type, matrices, counts, pool)
        }
      }
      report(figures, asJSON: json)
    }
  }

  private func measure(
    _ type: ElementType, _ matrices: ProductMatrices, _ counts: [Int], _ pool: ThreadPool
  ) -> [Figure] {
    var figures: [Figure] = []
    for count in counts {
      matrices.quantise(tokenCount: count)
      var (seconds, memory): ([Double], [Double]) = ([], [])
      // With many rows arithmetic decides, and a part of the matrices is enough.
      let used = max(1, matrices.count / count)
      for _ in 0..<repeats {
        memory.append(matrices.memoryBytesPerSecond(pool))
        let start = monotonicNanoseconds()
        for matrix in 0..<used { matrices.multiply(matrix, tokenCount: count, on: pool) }
        seconds.append(Double(max(1, monotonicNanoseconds() - start)) / 1e9 / Double(used))
      }
      let name = counts == [1] ? type.name : "\(type.name)/\(count)"
      let weights = Double(matrixRows * columns)
      if count == 1 {
        figures.append(
          Figure(
            "productBytesPerSecond/\(name)",
            samples: seconds.map { Double(matrices.matrixByteCount) / $0 }, .bytesPerSecond,
            limit: memory.reduce(0, +) / Double(repeats)))
      }
      if counts != [1] {
        figures.append(Figure("productSeconds/\(name)", samples: seconds, .seconds))
        figures.append(
          Figure(
            "productOperationsPerSecond/\(name)",
            samples: seconds.map { 2 * weights * Double(count) / $0 / 1e9 }, .gigaoperations))
      }
    }
    return figures
  }
}
