import Foundation
import Kernels
import TensorBasics
import TestSupport
import Testing

/// Blocks whose values another implementation has computed; `tools/generate-block-vectors` wrote them.
@Suite struct BlockVectorTests {
  private struct Vector: Sendable {
    var bytes: [UInt8]
    var hash: String
  }

  private static let vectors: [String: [Vector]] = {
    let path = URL(filePath: #filePath).deletingLastPathComponent().path + "/Vectors/blocks.tsv"
    guard let text = try? String(contentsOfFile: path, encoding: .utf8) else { return [:] }
    let lines = text.split(separator: "\n").map { $0.split(separator: "\t") }
    return Dictionary(grouping: lines, by: { String($0[0]) }).mapValues { lines in
      lines.map { line in
        let digits = Array(line[1])
        let bytes = stride(from: 0, to: digits.count, by: 2).compactMap {
          UInt8(String(digits[$0...$0 + 1]), radix: 16)
        }
        return Vector(bytes: bytes, hash: String(line[2]))
      }
    }
  }()

  private func hash(_ values: [Float]) -> String {
    Fingerprint.of(
      values.lazy.flatMap { value in
        (0..<4).map { UInt8(truncatingIfNeeded: value.bitPattern >> UInt32(8 * $0)) }
      })
  }

  @Test(arguments: ElementType.allCases.filter(\.isQuantised))
  func `Blocks stand for the values that gguf gives them`(type: ElementType) throws {
    let vectors = try #require(Self.vectors[type.name])
    #expect(vectors.count == 8)
    for (number, vector) in vectors.enumerated() {
      #expect(vector.bytes.count == type.blockByteCount)
      let count = type.blockElementCount
      var values = [Float](repeating: .nan, count: count)
      Dequantisation.row(vector.bytes, type: type, columnCount: count, into: &values)
      #expect(hash(values) == vector.hash, "block \(number)")
      // The same by way of a row group.
      var group = [UInt8](repeating: 0, count: RowGroup.byteCount(type, columnCount: count))
      Interleaving.interleave(
        rows: vector.bytes, rowByteCount: vector.bytes.count, rowCount: 1, type: type,
        columnCount: count, into: &group)
      Dequantisation.row(inGroup: group, row: 0, type: type, columnCount: count, into: &values)
      #expect(hash(values) == vector.hash, "block \(number), interleaved")
      #expect(
        WeightValues.firstNotFinite(vector.bytes, type: type, columnCount: count, rowCount: 1)
          == nil)
    }
  }
}
