import Glibc
import Kernels
import ModelFormat
import Runtime
import TensorBasics
import Testing
import WeightLoader

/// The models under `Vectors`, and what they should answer.
enum VectorModel {
  static let tokens: [Int32] = [
    1, 17, 255, 3, 99, 310, 42, 42, 7, 200, 128, 64, 5, 300, 11, 12, 13, 250, 77, 9, 160, 31, 2, 88,
  ]

  static func folder(_ name: String) -> String {
    let tests = #filePath.split(separator: "/", omittingEmptySubsequences: false).dropLast()
    return tests.joined(separator: "/") + "/Vectors/" + name
  }

  static func read(_ path: String) throws -> [UInt8] {
    let file = try #require(fopen(path, "r"), "\(path)")
    defer { fclose(file) }
    fseek(file, 0, SEEK_END)
    var bytes = [UInt8](repeating: 0, count: ftell(file))
    rewind(file)
    try #require(fread(&bytes, 1, bytes.count, file) == bytes.count)
    return bytes
  }

  /// Logits of ``tokens``: a prompt of `promptCount`, then one by one.
  static func logits(
    _ model: ModelSource, _ configuration: DecoderConfiguration, promptCount: Int = 7
  ) throws -> [Float] {
    let session = try Session(
      model, configuration,
      MemoryPlan.Request(
        budgetByteCount: 1 << 30, contextLength: tokens.count, promptLength: promptCount,
        threadCount: 2, logitRowCount: 4))
    var logits: [Float] = []
    try session.score(Array(tokens[..<promptCount])) { _, row in logits.append(contentsOf: row) }
    for token in tokens[promptCount...] { logits.append(contentsOf: try session.decode(token)) }
    return logits
  }

  /// A tensor's values, row by row, of stacked ones matrix by matrix.
  static func values(of model: ModelSource, tensor number: Int) throws -> [Float] {
    let tensor = model.description.tensors[number]
    let part = tensor.part(0)
    var values: [Float] = []
    try model.readTensors([number]) { _, address in
      var row = [Float](repeating: 0, count: part.columnCount)
      for expert in 0..<(tensor.stack?.count ?? 1) {
        let start = address + expert * (tensor.stack?.byteStride ?? 0)
        for index in 0..<part.rowCount {
          if part.layout == .rowMajor {
            Dequantisation.row(
              start + index * (part.byteCount / part.rowCount), type: part.type,
              columnCount: part.columnCount, into: &row)
          } else {
            Dequantisation.row(
              inGroup: start + index / RowGroup.rowCount
                * RowGroup.byteCount(part.type, columnCount: part.columnCount),
              row: index % RowGroup.rowCount, type: part.type, columnCount: part.columnCount,
              into: &row)
          }
          values += row
        }
      }
    }
    return values
  }

  static func expectedLogits(_ name: String) throws -> [Float] {
    let bytes = try read(folder(name) + "/logits.f32")
    return bytes.withUnsafeBytes { Array($0.bindMemory(to: Float.self)) }
  }

  /// The largest difference of log-probabilities, over rows of one logit for each of 320 tokens.
  static func logProbabilityDifference(_ found: [Float], _ expected: [Float]) -> Double {
    guard found.count == expected.count, found.count % 320 == 0 else { return .infinity }
    func logProbabilities(_ row: ArraySlice<Float>) -> [Double] {
      let highest = Double(row.max() ?? 0)
      let sum = row.reduce(0) { $0 + exp(Double($1) - highest) }
      return row.map { Double($0) - highest - log(sum) }
    }
    return stride(from: 0, to: found.count, by: 320).reduce(0) { worst, first in
      zip(
        logProbabilities(found[first..<first + 320]),
        logProbabilities(expected[first..<first + 320])
      )
      .reduce(worst) { max($0, ($1.0 - $1.1).magnitude) }
    }
  }

  /// The largest and the root mean square difference, in units of `expected`'s spread.
  static func difference(
    _ found: [Float], _ expected: [Float]
  ) -> (worst: Float, mean: Float) {
    guard found.count == expected.count else { return (.infinity, .infinity) }
    let count = Float(expected.count)
    let spread = (expected.reduce(0) { $0 + $1 * $1 } / count).squareRoot()
    let errors = zip(found, expected).map { ($0 - $1).magnitude / spread }
    return (errors.max() ?? .infinity, (errors.reduce(0) { $0 + $1 * $1 } / count).squareRoot())
  }
}
