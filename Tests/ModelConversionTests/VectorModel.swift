import Glibc
import ModelFormat
import Runtime
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

  static func expectedLogits(_ name: String) throws -> [Float] {
    let bytes = try read(folder(name) + "/logits.f32")
    return bytes.withUnsafeBytes { Array($0.bindMemory(to: Float.self)) }
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
