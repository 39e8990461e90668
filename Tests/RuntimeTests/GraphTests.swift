import Kernels
import ModelFormat
import Runtime
import TensorBasics
import TestSupport
import Testing
import WeightLoader

/// Every family's graph against textbook loops in f64.
@Suite struct GraphTests {
  /// Largest difference of logits after a prompt and decoded tokens, in standard deviations of the
  /// reference's.
  private func error(_ model: TinyModel, seed: UInt64) throws -> Double {
    let file = TemporaryFile(model.gguf(seed: seed).bytes())
    defer { extendLifetime(file) }
    var generator = SeededGenerator(seed: seed)
    let tokens = (0..<24).map { _ in Int32(generator.next() % UInt64(model.vocabularyCount)) }
    let expected = try NaiveDecoder.reading(file.path).logits(tokens)
    let session = try makeSession(
      file.path, contextLength: 24, promptLength: 20,
      RunShape(threadCount: 2, maximumChunkLength: 9))
    let rows = try logitBits(session, prompt: Array(tokens[..<20]), decoding: Array(tokens[20...]))
    var worst = 0.0
    for (row, position) in zip(rows, 19..<24) {
      let reference = expected[position]
      let mean = reference.reduce(0, +) / Double(reference.count)
      let variance =
        reference.reduce(0) { $0 + ($1 - mean) * ($1 - mean) } / Double(reference.count)
      for (bits, value) in zip(row, reference) {
        worst = max(
          worst, (Double(Float(bitPattern: bits)) - value).magnitude / variance.squareRoot())
      }
    }
    return worst
  }

  /// Float weights meet f32 activations. What is left is f32 sums, and keys and values whose f32 and
  /// f64 round to neighbouring f16 numbers: 2^-11 of an element now and then.
  @Test(arguments: TinyFamilies.names + TinyFamilies.expertNames + TinyFamilies.factorNames)
  func `Float models follow the f64 graph closely`(family: String) throws {
    for seed in UInt64(0)..<3 {
      var model = TinyFamilies.model(family)
      model.matrixTypes = [[.f32], [.f16, .bf16], [.f32, .f16]][Int(seed)]
      model.tableType = seed == 1 ? .bf16 : .f32
      let found = try error(model, seed: seed)
      #expect(found < 5e-3, "\(family), seed \(seed): \(found)")
    }
  }

  /// Attention takes heads of a multiple of 16 elements; others are padded.
  @Test(arguments: [4, 8, 20, 100, 120])
  func `Heads of any length follow the f64 graph`(headDim: Int) throws {
    for family in ["llama", "qwen3", "mixtral"] {
      var model = TinyFamilies.model(family)
      model.headDim = headDim
      model.matrixTypes = [.f32]
      model.tableType = .f32
      let found = try error(model, seed: UInt64(headDim))
      #expect(found < 5e-3, "\(family): \(found)")
    }
  }

  /// Quantised weights meet int8 activations with a scale per 32: about 1/254 of a block's largest
  /// value each, averaged over a row, through two to seven layers.
  ///
  /// Of models with experts all experts run: which of two nearly equal ones is chosen is no matter of
  /// precision.
  @Test(arguments: TinyFamilies.names + TinyFamilies.expertNames + TinyFamilies.factorNames)
  func `Quantised models follow the f64 graph`(family: String) throws {
    let types: [[ElementType]] = [
      [.q8_0], [.q4_0, .q5_1], [.q4_1, .q5_0], [.q4_K, .q6_K], [.q2_K, .q3_K, .q5_K],
    ]
    for (seed, matrixTypes) in types.enumerated() {
      var model = TinyFamilies.model(family)
      model.matrixTypes = matrixTypes
      if matrixTypes.contains(where: { $0.blockElementCount == 256 }) {
        model.hiddenSize = 256
        model.feedForwardLength = 256
        model.headDim = 64
        model.experts?.feedForwardLength = 256
        if model.experts?.sharedFeedForwardLength != nil {
          model.experts?.sharedFeedForwardLength = 256
        }
      }
      if let count = model.experts?.expertCount { model.experts?.expertsPerToken = count }
      model.experts?.routing.groups = nil
      let found = try error(model, seed: UInt64(seed))
      #expect(found < 0.25, "\(family), seed \(seed): \(found)")
    }
  }
}
