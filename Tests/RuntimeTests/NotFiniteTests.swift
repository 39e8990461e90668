import ModelConversion
import ModelFormat
import Runtime
import TensorBasics
import TestSupport
import Testing
import WeightLoader

/// One weight that is infinite or NaN, in every tensor of every family: the run ends with an error that
/// names the place, or the weight was not needed and nothing changes.
@Suite struct NotFiniteTests {
  private enum Poison: CaseIterable {
    case nan
    case infinity
    case negativeInfinity

    var float: Float {
      switch self {
      case .nan: .nan
      case .infinity: .infinity
      case .negativeInfinity: -.infinity
      }
    }
  }

  /// `tensor` with one weight, or the scale of one block, replaced.
  private static func poisoned(
    _ tensor: TinyGGUF.Tensor, _ poison: Poison, using generator: inout SeededGenerator
  ) throws -> TinyGGUF.Tensor {
    let type = try #require(ElementType(rawValue: tensor.type))
    let block = Int.random(in: 0..<tensor.data.count / type.blockByteCount, using: &generator)
    let bytes: [UInt8]
    switch type {
    case .f32: bytes = withUnsafeBytes(of: poison.float.bitPattern.littleEndian) { Array($0) }
    case .bf16:
      let bits = UInt16(truncatingIfNeeded: poison.float.bitPattern >> 16)
      bytes = withUnsafeBytes(of: bits.littleEndian) { Array($0) }
    default:
      bytes = withUnsafeBytes(of: Float16(poison.float).bitPattern.littleEndian) { Array($0) }
    }
    var tensor = tensor
    let first = block * type.blockByteCount + (type.layout.halfOffsets.first ?? 0)
    tensor.data.replaceSubrange(first..<first + bytes.count, with: bytes)
    return tensor
  }

  private static let prompt: [Int32] = [1, 17, 255, 3, 99, 310, 42, 7, 200, 128, 64]

  private static func bits(_ path: String, _ shape: RunShape) throws -> [[UInt32]] {
    let session = try makeSession(path, contextLength: 32, promptLength: prompt.count, shape)
    return try logitBits(session, prompt: prompt, decoding: [5, 300])
  }

  /// Runs `file` with each tensor poisoned in turn.
  private static func tryEachTensor(
    _ file: TinyGGUF, seed: UInt64, _ store: (_ bytes: [UInt8]) throws -> String
  ) throws {
    var generator = SeededGenerator(seed: seed)
    let expected = try bits(try store(file.bytes()), RunShape())
    var refused = 0
    for index in file.tensors.indices {
      for poison in Poison.allCases {
        var broken = file
        broken.tensors[index] = try poisoned(file.tensors[index], poison, using: &generator)
        let name = file.tensors[index].name
        let shape = RunShape(
          threadCount: 1 + index % 3, maximumChunkLength: [512, 4, 1][index % 3],
          spareByteCount: index % 2 == 0 ? nil : 0)
        do {
          let found = try bits(try store(broken.bytes()), shape)
          // An embedding of another token, an expert or a neuron that nobody needed.
          #expect(
            found.elementsEqual(expected),
            "seed \(seed): \(poison) in \(name) changed logits in silence")
        } catch let error as RuntimeError {
          refused += 1
          let layer = name.split(separator: ".").dropFirst().first.flatMap { Int($0) }
          let names = [layer, layer.map { $0 + 1 }].compactMap { $0 }
          #expect(
            layer == nil || names.contains { error.description.contains("blk.\($0)") },
            "seed \(seed): \(poison) in \(name): \(error)")
        }
      }
    }
    #expect(refused > file.tensors.count * 2)
  }

  @Test(arguments: TinyFamilies.names + TinyFamilies.expertNames)
  func `A GGUF file`(family: String) throws {
    for (seed, types) in [[ElementType.q8_0], [.f32, .q4_0], [.f16, .q5_1, .bf16]].enumerated() {
      var model = TinyFamilies.model(family)
      model.layerCount = min(model.layerCount, 2)
      model.matrixTypes = types
      let folder = TemporaryFolder()
      defer { extendLifetime(folder) }
      try Self.tryEachTensor(model.gguf(seed: 4), seed: UInt64(seed)) {
        folder.write("model.gguf", $0)
      }
    }
  }

  @Test func `Blocks of 256 weights`() throws {
    var model = TinyModel()
    (model.hiddenSize, model.feedForwardLength, model.queryHeadCount) = (256, 512, 16)
    model.matrixTypes = [.q2_K, .q3_K, .q4_K, .q5_K, .q6_K]
    let folder = TemporaryFolder()
    defer { extendLifetime(folder) }
    try Self.tryEachTensor(model.gguf(seed: 4), seed: 1) { folder.write("model.gguf", $0) }
  }

  /// ReLU makes 0 of what is not a number where nobody looks.
  @Test(arguments: [[ElementType.f16], [.q8_0]])
  func `An image with bundles of neurons`(types: [ElementType]) throws {
    var model = TinyModel()
    model.hiddenActivation = "relu"
    model.matrixTypes = types
    let folder = TemporaryFolder()
    defer { extendLifetime(folder) }
    try Self.tryEachTensor(model.gguf(seed: 4), seed: 2) {
      folder.write("model.bin", try ImageBuilder.image(of: $0, bundling: .neurons))
    }
  }

  @Test func `A session that met one goes on after a reset`() throws {
    var model = TinyModel()
    model.tiesOutput = false
    let file = model.gguf(seed: 6)
    var broken = file
    let table = try #require(file.tensors.firstIndex { $0.name == "token_embd.weight" })
    // Token 9 is poisoned, no other.
    let rowByteCount = file.tensors[table].data.count / 320
    broken.tensors[table].data[9 * rowByteCount + 1] = 0x7C
    broken.tensors[table].data[9 * rowByteCount] = 1
    let folder = TemporaryFolder()
    defer { extendLifetime(folder) }
    let expected = try Self.bits(folder.write("good.gguf", file.bytes()), RunShape())
    let session = try makeSession(
      folder.write("broken.gguf", broken.bytes()), contextLength: 32,
      promptLength: Self.prompt.count, RunShape())
    #expect {
      _ = try session.prefill([1, 2, 9, 4])
    } throws: { error in
      guard case .notFinite(_, let part)? = error as? RuntimeError else { return false }
      return part.contains("embedding")
    }
    session.reset()
    let again = try logitBits(session, prompt: Self.prompt, decoding: [5, 300])
    #expect(again.elementsEqual(expected))
  }
}
