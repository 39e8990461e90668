import ModelConversion
import ModelFormat
import Runtime
import TensorBasics
import TestSupport
import Testing
import WeightLoader

/// Experts whose types differ from layer to layer, and from matrix to matrix.
@Suite struct MixedExpertTests {
  private static let types: [ElementType] = [
    .q2_K, .q3_K, .q4_K, .q6_K, .q8_0, .iq1_S, .iq2_XXS, .iq3_S, .iq4_XS, .mxfp4, .f16,
  ]

  /// A model of random types; a few layers, so that there are classes of several.
  private func model(using generator: inout SeededGenerator) -> TinyModel {
    var model = TinyFamilies.model(
      TinyFamilies.expertNames.randomElement(using: &generator) ?? "mixtral")
    (model.hiddenSize, model.feedForwardLength, model.headDim) = (256, 256, 64)
    model.layerCount = Int.random(in: 2...5, using: &generator)
    model.experts?.feedForwardLength = 256
    if model.experts?.sharedFeedForwardLength != nil {
      model.experts?.sharedFeedForwardLength = 256
    }
    // No multiple of the tensors of a layer, so that types move from layer to layer.
    model.matrixTypes = (0..<7).map { _ in Self.types.randomElement(using: &generator) ?? .q8_0 }
    return model
  }

  @Test(arguments: 0..<12) func `The same bits under any budget, from a file and its image`(
    seed: UInt64
  ) throws {
    var generator = SeededGenerator(seed: 100 + seed)
    let file = TemporaryFile(model(using: &generator).gguf(seed: seed).bytes())
    let image = TemporaryFile([])
    defer { extendLifetime((file, image)) }
    let source = try ModelSource.open(file.path)
    try Converter(source).write(to: image.path)
    let prompt = (0..<Int32(Int.random(in: 1...30, using: &generator))).map { $0 * 11 % 300 }
    func bits(_ path: String, _ shape: RunShape) throws -> (bits: [[UInt32]], plan: MemoryPlan) {
      let session = try makeSession(
        path, contextLength: 48, promptLength: prompt.count, shape)
      return (try logitBits(session, prompt: prompt, decoding: [3, 250, 3, 17, 4]), session.plan)
    }
    let expected = try bits(file.path, RunShape()).bits
    var classCounts: Set<Int> = []
    for spare in [0, 20 << 10, 200 << 10, 1 << 20, 3 << 20] {
      for path in [file.path, image.path] {
        let found = try bits(
          path,
          RunShape(
            threadCount: 2, maximumChunkLength: Int.random(in: 1...30, using: &generator),
            spareByteCount: spare))
        #expect(found.bits == expected, "seed \(seed), \(spare) bytes to spare")
        classCounts.insert(found.plan.expertSlots?.classes.count ?? 0)
      }
    }
    #expect(classCounts.contains { $0 > 1 } || seed % 3 != 0, "\(classCounts)")
  }

  /// With slots of the longest, memory would hold fewer.
  @Test func `Experts of other types leave no room unused`() throws {
    var tiny = TinyFamilies.model("qwen3moe")
    (tiny.hiddenSize, tiny.headDim, tiny.layerCount) = (256, 64, 6)
    tiny.experts?.feedForwardLength = 256
    // The tensors of a layer are eight matrices: each fourth layer has Q8_0 experts, others Q2_K.
    tiny.matrixTypes = [.q2_K]
    var file = tiny.gguf(seed: 3)
    var generator = SeededGenerator(seed: 4)
    for (index, tensor) in file.tensors.enumerated()
    where tensor.name.hasPrefix("blk.0.") && tensor.name.contains("_exps") {
      let rowCount = Int(tensor.dimensions.dropFirst().reduce(1, *))
      file.tensors[index].type = ElementType.q8_0.rawValue
      file.tensors[index].data = RandomWeights.bytes(
        .q8_0, rowCount: rowCount, columnCount: 256, deviation: 0.06, using: &generator)
    }
    let stored = TemporaryFile(file.bytes())
    defer { extendLifetime(stored) }
    let source = try ModelSource.open(stored.path)
    let experts = source.description.tensors.filter { $0.stack != nil }
    let whole = experts.reduce(0) { $0 + $1.byteCount }
    let session = try makeSession(
      source, contextLength: 16, promptLength: 4, RunShape(spareByteCount: whole * 2 / 3))
    let slots = try #require(session.plan.expertSlots)
    #expect(slots.classes.count == 2)
    let longest = slots.classes[0].slotByteCount
    #expect(slots.slotCount > slots.byteCount / longest * 2)
    #expect(slots.slotCount < session.plan.expertCount)
    // Slots are not much longer than what lies in them.
    let used = slots.classes.reduce(0) { $0 + $1.slotCount * $1.slotByteCount }
    let share = Double(slots.slotCount) / Double(session.plan.expertCount)
    #expect(Double(used) < share * Double(whole) * 1.15 + Double(longest))
    _ = try logitBits(session, prompt: [1, 2, 3, 4], decoding: [5, 6, 7])
  }
}
