import Glibc
import ModelConversion
import ModelFormat
import TestSupport
import Testing
import WeightLoader

/// Tiny models with experts that transformers wrote and ran (`tools/make-vectors`), converted, and run
/// by the f64 reference.
@Suite struct ExpertVectorTests {
  private static let tokens: [Int32] = [
    1, 17, 255, 3, 99, 310, 42, 42, 7, 200, 128, 64, 5, 300, 11, 12, 13, 250, 77, 9, 160, 31, 2, 88,
  ]

  private static func folder(_ name: String) -> String {
    let tests = #filePath.split(separator: "/", omittingEmptySubsequences: false).dropLast(2)
    return tests.joined(separator: "/") + "/ModelConversionTests/Vectors/" + name
  }

  private static func expected(_ name: String) throws -> [Double] {
    let file = try #require(fopen(folder(name) + "/logits.f32", "r"))
    defer { fclose(file) }
    var values = [Float](repeating: 0, count: tokens.count * 320)
    try #require(fread(&values, 4, values.count, file) == values.count)
    return values.map(Double.init)
  }

  /// The largest difference of logits, in units of the expected ones' spread.
  private static func difference(_ decoder: NaiveDecoder, _ expected: [Double]) -> Double {
    let found = Array(decoder.logits(tokens).joined())
    guard found.count == expected.count else { return .infinity }
    let spread = (expected.reduce(0) { $0 + $1 * $1 } / Double(expected.count)).squareRoot()
    return (zip(found, expected).map { ($0 - $1).magnitude }.max() ?? .infinity) / spread
  }

  private static func image(
    of name: String, _ bundling: Bundling?, in target: TemporaryFolder
  ) throws -> String {
    let folder = try ModelSource.open(folder(name))
    let path = target.path + "/model.bin"
    try Converter(folder, bundling: bundling).write(to: path)
    return path
  }

  /// transformers computes in f32, the reference in f64; what is left is mostly a key or value that
  /// rounds to the other f16 neighbour.
  @Test(arguments: TinyFamilies.expertNames)
  func `The reference's logits are those of transformers`(name: String) throws {
    let expected = try Self.expected(name)
    for bundling in [Bundling.none, .experts] {
      let target = TemporaryFolder()
      defer { extendLifetime(target) }
      let decoder = try NaiveDecoder.reading(Self.image(of: name, bundling, in: target))
      let found = Self.difference(decoder, expected)
      #expect(found < 0.003, "\(bundling): \(found)")
    }
  }

  /// The comparison would notice: each of these changes moves logits far beyond its tolerance.
  @Test func `Every value of the experts counts`() throws {
    typealias Change = (inout DecoderConfiguration) -> Void
    let changes: [(name: String, Change)] = [
      ("mixtral", { $0.experts?.normalisesWeights = false }),
      ("mixtral", { $0.experts?.expertsPerToken = 1 }),
      ("qwen2moe", { $0.experts?.normalisesWeights = true }),
      ("qwen2moe", { $0.experts?.gatesSharedExpert = false }),
      ("qwen2moe", { $0.experts?.sharedFeedForwardLength = nil }),
      ("qwen3moe", { $0.experts?.normalisesWeights = false }),
      ("qwen3moe", { $0.experts?.expertsPerToken = 3 }),
      ("olmoe", { $0.experts?.normalisesWeights = true }),
      ("olmoe", { $0.editLayers { $0.attention?.headNorm = nil } }),
      ("gpt-oss", { $0.experts?.normalisesWeights = false }),
      ("gpt-oss", { $0.experts?.routing.hasBias = false }),
      ("gpt-oss", { $0.activation = .silu }),
      ("gpt-oss", { $0.editLayers { $0.attention?.hasSinks = false } }),
      ("gpt-oss", { $0.editLayers { $0.attention?.window? += 1 } }),
      ("gpt-oss", { $0.ropeMagnitude = 1 }),
      ("glm4moe", { $0.editLayers { $0.experts?.routing.scale = 1 } }),
      ("glm4moe", { $0.editLayers { $0.experts?.routing.hasSelectionBias = false } }),
      ("glm4moe", { $0.editLayers { $0.experts?.routing.score = .softmax } }),
      ("glm4moe", { $0.ropeDimensionCount = 16 }),
      ("minimax-m2", { $0.editLayers { $0.experts?.routing.hasSelectionBias = false } }),
      ("minimax-m2", { $0.editLayers { $0.attention?.headNorm = nil } }),
    ]
    for (index, (name, change)) in changes.enumerated() {
      let target = TemporaryFolder()
      defer { extendLifetime(target) }
      let decoder = try NaiveDecoder.reading(Self.image(of: name, nil, in: target))
      var configuration = decoder.configuration
      change(&configuration)
      let changed = NaiveDecoder(configuration: configuration, tensor: decoder.tensor)
      let found = Self.difference(changed, try Self.expected(name))
      #expect(found > 0.03, "change \(index), \(name): \(found)")
    }
  }
}
