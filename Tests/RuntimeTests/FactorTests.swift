import ModelConversion
import ModelFormat
import Runtime
import TensorBasics
import TestSupport
import Testing
import WeightLoader

/// Factors in tensors of their own: NVFP4's `blk.0.ffn_up.scale`, which any type may have.
@Suite struct FactorTests {
  private func model(_ family: String, _ type: ElementType) -> TinyModel {
    var model = TinyFamilies.model(family)
    (model.hiddenSize, model.feedForwardLength, model.headDim) = (256, 512, 64)
    model.experts?.feedForwardLength = 256
    if model.experts?.sharedFeedForwardLength != nil {
      model.experts?.sharedFeedForwardLength = 512
    }
    model.matrixTypes = [type]
    return model
  }

  private func bits(_ file: TinyGGUF) throws -> [[UInt32]] {
    let stored = TemporaryFile(file.bytes())
    defer { extendLifetime(stored) }
    let session = try makeSession(
      stored.path, contextLength: 32, promptLength: 20,
      RunShape(threadCount: 2, maximumChunkLength: 7))
    return try logitBits(session, prompt: (0..<20).map { 3 * $0 + 1 }, decoding: [5, 260, 9])
  }

  /// Replaces each factor by a power of two that depends on its place.
  private func setPowers(_ file: inout TinyGGUF) {
    for (number, tensor) in file.tensors.enumerated() where tensor.name.hasSuffix(".scale") {
      file.tensors[number].data = (0..<tensor.data.count / 4).flatMap { place in
        var bytes: [UInt8] = []
        RandomWeights.append(power(number + place), as: .f32, to: &bytes)
        return bytes
      }
    }
  }

  private func power(_ number: Int) -> Float {
    Float(sign: .plus, exponent: number % 3 - 1, significand: 1)
  }

  /// Multiplies the weights by their factors, and leaves these out. Of floats and f16 scales powers of two change
  /// the exponent alone, so no bit of a sum may differ.
  private func withoutFactors(_ file: TinyGGUF) -> TinyGGUF {
    var result = file
    for (number, factor) in file.tensors.enumerated() where factor.name.hasSuffix(".scale") {
      let weight = factor.name.dropLast(".scale".count) + ".weight"
      guard let index = file.tensors.firstIndex(where: { $0.name == weight }),
        let type = ElementType(rawValue: file.tensors[index].type)
      else { continue }
      let expertCount = factor.data.count / 4
      let partByteCount = file.tensors[index].data.count / expertCount
      for place in 0..<expertCount {
        let part = place * partByteCount..<(place + 1) * partByteCount
        scale(&result.tensors[index].data, part, type, exponent: (number + place) % 3 - 1)
      }
    }
    result.tensors.removeAll { $0.name.hasSuffix(".scale") }
    return result
  }

  private func scale(
    _ data: inout [UInt8], _ range: Range<Int>, _ type: ElementType, exponent: Int
  ) {
    // The byte that holds the sign and the upper bits of the exponent, and the one before it.
    let (step, first, shift) =
      type == .f32
      ? (4, 2, 7) : (type.blockByteCount, type.layout.halfOffsets.first ?? 0, 10)
    for block in stride(from: range.lowerBound, to: range.upperBound, by: step) {
      let bits = UInt16(data[block + first]) | UInt16(data[block + first + 1]) << 8
      guard bits & 0x7FFF != 0 else { continue }
      let scaled = UInt16(truncatingIfNeeded: Int(bits) + exponent << shift)
      data[block + first] = UInt8(truncatingIfNeeded: scaled)
      data[block + first + 1] = UInt8(scaled >> 8)
    }
  }

  @Test(arguments: TinyFamilies.factorNames, [ElementType.q8_0, .q4_0, .iq4_NL, .f32])
  func `A power of two beside a matrix is that power in its scales, bit for bit`(
    family: String, type: ElementType
  ) throws {
    var file = model(family, type).gguf(seed: 4)
    setPowers(&file)
    let expected = try bits(withoutFactors(file))
    #expect(try bits(file) == expected)
    // And it is seen at all.
    var others = file
    let index = try #require(others.tensors.firstIndex { $0.name == "blk.1.attn_v.scale" })
    others.tensors[index].data = [0, 0, 0x40, 0x40]  // 3
    #expect(try bits(others) != expected)
  }

  @Test(arguments: TinyFamilies.factorNames)
  func `Images carry the factors of NVFP4`(family: String) throws {
    let file = TemporaryFile(model(family, .nvfp4).gguf(seed: 6).bytes())
    let image = TemporaryFile([])
    defer { extendLifetime((file, image)) }
    let source = try ModelSource.open(file.path)
    try Converter(source).write(to: image.path)
    let stored = try ModelSource.open(image.path).description
    let factors = source.description.tensors.filter { $0.name.hasSuffix(".scale") }
    #expect(factors.count >= 12)
    for factor in factors {
      #expect(stored.tensors.contains { $0.name == factor.name }, "\(factor.name)")
    }
    func bits(_ path: String) throws -> [[UInt32]] {
      let session = try makeSession(path, contextLength: 16, promptLength: 8, RunShape())
      return try logitBits(session, prompt: (0..<8).map { 7 * $0 }, decoding: [1, 2])
    }
    #expect(try bits(image.path) == bits(file.path))
  }

  @Test func `Bundles of neurons have no place for factors, and say so`() throws {
    var model = model("llama factors", .q8_0)
    model.hiddenActivation = "relu"
    let file = TemporaryFile(model.gguf(seed: 6).bytes())
    defer { extendLifetime(file) }
    let source = try ModelSource.open(file.path)
    do throws(ConversionError) {
      _ = try Converter(source, bundling: .neurons)
      Issue.record("bundled")
    } catch { #expect(error.description.contains("ffn_gate.scale")) }
  }

  @Test(arguments: [Float.infinity, .nan]) func `A factor that is not finite is refused`(
    value: Float
  ) throws {
    var file = model("llama factors", .q8_0).gguf(seed: 6)
    let index = try #require(file.tensors.firstIndex { $0.name == "blk.1.ffn_up.scale" })
    file.tensors[index].data = []
    RandomWeights.append(value, as: .f32, to: &file.tensors[index].data)
    #expect(throws: RuntimeError.self) { try bits(file) }
  }
}
