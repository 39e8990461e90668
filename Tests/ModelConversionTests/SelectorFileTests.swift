import Glibc
import ModelConversion
import ModelFormat
import TensorBasics
import TestSupport
import Testing
import WeightLoader

/// Selector files: what they bring into an image, and which are refused.
@Suite struct SelectorFileTests {
  /// A safetensors file being built.
  private struct Selector {
    var metadata: [(String, String)] = []
    var tensors: [(name: String, type: ElementType, shape: [Int])] = []

    init(identity: ModelIdentity, layers: Int = 2, width: Int = 64, length: Int = 96, rank: Int = 6)
    {
      metadata = [
        ("model_identity", identity.description), ("recalls", "[0.9, 0.95]"),
        ("predicted_fractions", "[0.2, 0.25]"), ("active_fractions", "[0.1, 0.125]"),
        ("kept_fraction", "0.25"),
      ]
      for layer in 0..<layers {
        tensors += [
          ("blk.\(layer).ffn_predictor_a.weight", .f16, [rank, width]),
          ("blk.\(layer).ffn_predictor_b.weight", .f32, [length, rank]),
          ("blk.\(layer).ffn_predictor.bias", .f32, [length]),
          ("blk.\(layer).ffn_threshold", .f32, [1]),
        ]
      }
    }

    /// Bytes of a tensor: small numbers that differ.
    static func bytes(_ type: ElementType, _ shape: [Int], _ seed: Int) -> [UInt8] {
      (0..<shape.reduce(1, *)).flatMap { index -> [UInt8] in
        let value = Float((index * 7 + seed * 3) % 64) / 64
        if type == .f32 { return withUnsafeBytes(of: value.bitPattern.littleEndian, Array.init) }
        return withUnsafeBytes(of: Float16(value).bitPattern.littleEndian, Array.init)
      }
    }

    func file() -> [UInt8] {
      var data: [UInt8] = []
      var members = [
        "\"__metadata__\":{"
          + metadata.map { "\"\($0.0)\":\"\($0.1)\"" }.joined(separator: ",") + "}"
      ]
      for (seed, tensor) in tensors.enumerated() {
        let start = data.count
        data += Self.bytes(tensor.type, tensor.shape, seed)
        members.append(
          "\"\(tensor.name)\":{\"dtype\":\"\(tensor.type.name)\",\"shape\":\(tensor.shape),"
            + "\"data_offsets\":[\(start),\(data.count)]}")
      }
      let header = Array(("{" + members.joined(separator: ",") + "}").utf8)
      return withUnsafeBytes(of: UInt64(header.count).littleEndian, Array.init) + header + data
    }
  }

  private func convert(
    _ selector: [UInt8], _ folder: borrowing TemporaryFolder, seed: UInt64 = 1
  ) throws(ConversionError) -> ModelDescription {
    let gguf = folder.write("model.gguf", TinyModel().gguf(seed: seed).bytes())
    let path = folder.write("selector", selector)
    let source: ModelSource
    do { source = try ModelSource.open(gguf) } catch { throw .loader(error) }
    guard let configuration = source.description.configuration else { return ModelDescription() }
    let file = try SelectorFile(path, for: configuration)
    let target = "\(folder.path)/model.bin"
    try Converter(source, bundling: .neurons, selector: file).write(to: target)
    do {
      let image = try ModelSource.open(target)
      try image.verifyExtents()
      return image.description
    } catch { throw .loader(error) }
  }

  private func identity(_ folder: borrowing TemporaryFolder) throws -> ModelIdentity {
    let path = folder.write("model.gguf", TinyModel().gguf(seed: 1).bytes())
    return try #require(try ModelSource.open(path).computeIdentity())
  }

  @Test func `Predictors and thresholds come into the image as they are`() throws {
    let folder = TemporaryFolder()
    defer { extendLifetime(folder) }
    let selector = Selector(identity: try identity(folder))
    let description = try convert(selector.file(), folder)
    let neurons = try #require(description.neurons)
    #expect(neurons.predictor?.ranks == [6, 6] && neurons.predictor?.recalls == [0.9, 0.95])
    #expect(neurons.predictor?.predictedFractions == [0.2, 0.25])
    #expect(neurons.predictor?.activeFractions == [0.1, 0.125])
    #expect(neurons.thresholds?.values == [9.0 / 64, 21.0 / 64])
    #expect(neurons.thresholds?.keptFraction == 0.25)
    let image = folder.read("model.bin")
    let table = try TensorTable(description.tensors)
    for (seed, tensor) in selector.tensors.enumerated() where !tensor.name.contains("threshold") {
      let record = try #require(table[tensor.name])
      let bytes = Selector.bytes(tensor.type, tensor.shape, seed)
      let expected =
        record.rowCount == 1 ? bytes : ImageBuilder.interleaved(bytes, tensor: record)
      #expect(record.type == tensor.type)
      #expect(Array(image[record.offset..<record.offset + record.byteCount]) == expected)
    }
  }

  @Test func `Thresholds alone, and predictors of rank one, are enough`() throws {
    let folder = TemporaryFolder()
    defer { extendLifetime(folder) }
    var selector = Selector(identity: try identity(folder))
    selector.tensors.removeAll { $0.name.contains("predictor") }
    let thresholds = try convert(selector.file(), folder).neurons
    #expect(thresholds?.predictor == nil && thresholds?.thresholds != nil)
    let narrow = Selector(identity: try identity(folder), rank: 1)
    #expect(try convert(narrow.file(), folder).neurons?.predictor?.ranks == [1, 1])
  }

  @Test func `Files of other models and shapes are refused`() throws {
    let folder = TemporaryFolder()
    defer { extendLifetime(folder) }
    let identity = try identity(folder)
    func refuse(_ words: String, _ selector: Selector) {
      do throws(ConversionError) {
        _ = try convert(selector.file(), folder)
        Issue.record("\(words): accepted")
      } catch { #expect(error.description.contains(words), "\(error)") }
    }
    refuse("predictor of another model", Selector(identity: ModelIdentity(identity.number ^ 1)))
    refuse("blk.1.ffn_predictor_a", Selector(identity: identity, layers: 1))
    refuse("no layer", Selector(identity: identity, layers: 3))
    refuse("ffn_predictor_a", Selector(identity: identity, width: 63))
    refuse("ffn_predictor_b", Selector(identity: identity, length: 95))
    refuse("rank", Selector(identity: identity, rank: 65))
    refuse("rank", Selector(identity: identity, rank: 0))
    for key in ["model_identity", "recalls", "active_fractions", "kept_fraction"] {
      var selector = Selector(identity: identity)
      selector.metadata.removeAll { $0.0 == key }
      refuse(key, selector)
    }
    for (key, value) in [
      ("recalls", "[0.9]"), ("recalls", "[2, 0]"), ("predicted_fractions", "x"),
      ("kept_fraction", "nan"), ("model_identity", "+123456789abcdef"),
    ] {
      var selector = Selector(identity: identity)
      selector.metadata.removeAll { $0.0 == key }
      selector.metadata.append((key, value))
      refuse(key == "model_identity" ? "identity" : key, selector)
    }
    var empty = Selector(identity: identity)
    empty.tensors = []
    refuse("neither", empty)
    var half = Selector(identity: identity)
    half.tensors[2].type = .f16
    refuse("bias", half)
  }

  @Test func `An image is not written over the selector that it is made from`() throws {
    let folder = TemporaryFolder()
    defer { extendLifetime(folder) }
    let selector = Selector(identity: try identity(folder)).file()
    let path = folder.write("selector", selector)
    let source = try ModelSource.open(folder.path + "/model.gguf")
    let configuration = try #require(source.description.configuration)
    let converter = try Converter(
      source, bundling: .neurons, selector: try SelectorFile(path, for: configuration))
    link(path, folder.path + "/hard")
    for name in ["selector", "hard"] {
      do throws(ConversionError) {
        try converter.write(to: "\(folder.path)/\(name)")
        Issue.record("\(name) was written over")
      } catch { #expect(error.description.contains(path), "\(error)") }
    }
    #expect(folder.read("selector") == selector)
  }

  @Test func `An identity is that of the model, not of the file`() throws {
    let folder = TemporaryFolder()
    defer { extendLifetime(folder) }
    let identity = try identity(folder)
    let gguf = TinyModel().gguf(seed: 1).bytes()
    let description = try ImageBuilder.description(of: gguf)
    #expect(identity == ImageBuilder.identity(of: gguf, description))
    let other = try ModelSource.open(folder.write("other", TinyModel().gguf(seed: 2).bytes()))
    #expect(try other.computeIdentity() != identity)
    let image = try ModelSource.open(
      folder.write("image", try ImageBuilder.image(of: gguf)))
    #expect(image.description.sourceIdentity == identity)
    // What was quantised or laid out anew is another model itself.
    #expect(try image.computeIdentity() != identity)
    // A weight far from every tensor's first page counts like any other.
    let table = try #require(description.tensors.first { $0.name == "token_embd.weight" })
    var edited = gguf
    edited[table.offset + table.byteCount - 2] ^= 1
    let edition = try ModelSource.open(folder.write("edited", edited))
    #expect(try edition.computeIdentity() != identity)
  }
}
