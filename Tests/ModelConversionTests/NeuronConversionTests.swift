import Kernels
import ModelConversion
import ModelFormat
import TensorBasics
import TestSupport
import Testing
import WeightLoader

/// Models whose FFNs are put in bundles of neurons.
@Suite struct NeuronConversionTests {
  private func model(_ types: [ElementType]) -> TinyModel {
    var model = TinyModel()
    model.hiddenActivation = "relu"
    model.matrixTypes = types
    if types.contains(where: { $0.blockElementCount == 256 }) {
      model.hiddenSize = 256
      model.feedForwardLength = 512
      model.queryHeadCount = 16
    }
    return model
  }

  /// Buffers so small that every layer takes several slices and chunks.
  private func narrow(_ converter: Converter) -> Converter {
    var converter = converter
    converter.neuronBuffers.sliceByteCount = 4000
    converter.neuronBuffers.chunkByteCount = 20000
    return converter
  }

  @Test(
    arguments: [
      [ElementType.f32], [.f16], [.bf16], [.f16, .f32, .bf16], [.q8_0], [.q4_0], [.q5_1],
      [.q8_0, .q4_0, .q5_1], [.q4_K], [.q6_K, .q4_K],
    ])
  func `The image is, byte for byte, the one built byte by byte`(types: [ElementType]) throws {
    let folder = TemporaryFolder()
    defer { extendLifetime(folder) }
    let gguf = model(types).gguf(seed: 3).bytes()
    let source = try ModelSource.open(folder.write("model.gguf", gguf))
    let expected = try ImageBuilder.image(of: gguf, bundling: .neurons)
    let converter = try Converter(source, bundling: .neurons)
    for (number, converter) in [converter, narrow(converter)].enumerated() {
      let report = try converter.write(to: "\(folder.path)/model.bin")
      #expect(report.columnError == nil)
      #expect(folder.read("model.bin") == expected, "buffers \(number)")
      try ModelSource.open("\(folder.path)/model.bin").verifyExtents()
    }
    let image = try ModelSource.open("\(folder.path)/model.bin")
    #expect(image.description.sourceIdentity == (try source.computeIdentity()))
    #expect(throws: ConversionError.self) { try Converter(image, bundling: .neurons) }
  }

  @Test(arguments: [ElementType.q8_0, .q4_0, .q5_0, .q4_K])
  func `Columns of quantised matrices are quantised along their own length`(
    type: ElementType
  ) throws {
    let folder = TemporaryFolder()
    defer { extendLifetime(folder) }
    let gguf = model([type]).gguf(seed: 5).bytes()
    let source = try ModelSource.open(folder.write("model.gguf", gguf))
    let converter = try Converter(source, bundling: .singleNeurons)
    let report = try narrow(converter).write(to: "\(folder.path)/model.bin")
    let image = folder.read("model.bin")
    try converter.write(to: "\(folder.path)/again.bin")
    #expect(image == folder.read("again.bin"))
    let layers = try #require(try ImageBuilder.description(of: image).neurons?.layers)
    let table = try TensorTable(source.description.tensors)
    var (error, norm) = (0.0, 0.0)
    for (number, layer) in layers.enumerated() {
      #expect(layer.neuronsPerBundle == 1 && layer.parts.map(\.type) == [type, .q8_0, type])
      let down = try #require(table["blk.\(number).ffn_down.weight"])
      let (part, place) = try #require(layer.part(.down))
      let rows = (0..<down.rowCount).map { row in values(gguf, down, row) }
      for neuron in 0..<layer.bundleCount {
        let column = rows.map { $0[neuron] }
        var expected = [UInt8](repeating: 0, count: part.byteCount)
        expected.withUnsafeMutableBytes {
          Quantisation.row(
            column, type: .q8_0, columnCount: column.count, into: $0.baseAddress.unsafelyUnwrapped)
        }
        let start = layer.offset + neuron * layer.byteStride
        #expect(Array(image[start + place..<start + place + part.byteCount]) == expected)
        var again = [Float](repeating: 0, count: column.count)
        expected.withUnsafeBytes {
          Dequantisation.row(
            $0.baseAddress.unsafelyUnwrapped, type: .q8_0, columnCount: column.count, into: &again)
        }
        for (new, old) in zip(again, column) {
          error += Double(old - new) * Double(old - new)
          norm += Double(old) * Double(old)
        }
        for role in [NeuronBundles.Role.gate, .up] {
          let tensor = try #require(table[role.tensorName(layer: number)])
          let count = tensor.byteCount / tensor.rowCount
          let (_, place) = try #require(layer.part(role))
          #expect(
            image[start + place..<start + place + count].elementsEqual(
              gguf[tensor.offset + neuron * count..<tensor.offset + (neuron + 1) * count]))
        }
      }
    }
    let reported = try #require(report.columnError)
    #expect(abs(reported - (error / norm).squareRoot()) < 1e-9 && reported < 0.01 && reported > 0)
  }

  private func values(_ gguf: [UInt8], _ tensor: TensorRecord, _ row: Int) -> [Float] {
    var values = [Float](repeating: 0, count: tensor.columnCount)
    gguf.withUnsafeBytes { bytes in
      Dequantisation.row(
        bytes.baseAddress.unsafelyUnwrapped + tensor.offset
          + row * (tensor.byteCount / tensor.rowCount),
        type: tensor.type, columnCount: tensor.columnCount, into: &values)
    }
    return values
  }

  @Test func `Float matrices are quantised on request, columns along their own length`() throws {
    let folder = TemporaryFolder()
    defer { extendLifetime(folder) }
    let gguf = model([.f16]).gguf(seed: 5).bytes()
    let source = try ModelSource.open(folder.write("model.gguf", gguf))
    for type in [ElementType.q8_0, .q4_0] {
      let converter = try Converter(source, quantisation: type, bundling: .neurons)
      #expect(try converter.write(to: "\(folder.path)/model.bin").columnError == nil)
      let image = folder.read("model.bin")
      let layer = try #require(try ImageBuilder.description(of: image).neurons?.layers[0])
      #expect(layer.neuronsPerBundle == 1 && layer.parts.allSatisfy { $0.type == type })
      let table = try TensorTable(source.description.tensors)
      let down = try #require(table["blk.0.ffn_down.weight"])
      let (part, place) = try #require(layer.part(.down))
      let column = (0..<down.rowCount).map { values(gguf, down, $0)[7] }
      var expected = [UInt8](repeating: 0, count: part.byteCount)
      expected.withUnsafeMutableBytes {
        Quantisation.row(
          column, type: type, columnCount: column.count, into: $0.baseAddress.unsafelyUnwrapped)
      }
      let start = layer.offset + 7 * layer.byteStride + place
      #expect(Array(image[start..<start + part.byteCount]) == expected)
    }
  }

  @Test func `A striped image of neurons is the same image`() throws {
    let folder = TemporaryFolder()
    defer { extendLifetime(folder) }
    let gguf = model([.f16]).gguf(seed: 1).bytes()
    let source = try ModelSource.open(folder.write("model.gguf", gguf))
    let paths = ["m0", "m1"].map { "\(folder.path)/\($0)" }
    let striping = try Striping(path: paths[0], otherPaths: [paths[1]], unitByteCount: 12288)
    try Converter(source, bundling: .neurons).write(to: paths[0], striping: striping)
    let expected = StripeBuilder.members(
      of: try ImageBuilder.image(of: gguf, bundling: .neurons), unitByteCount: 12288,
      paths: paths)
    #expect(folder.read("m0") == expected[0] && folder.read("m1") == expected[1])
    try ModelSource.open(paths[1]).verifyExtents()
  }

  @Test func `What cannot be in bundles of neurons is refused`() throws {
    let folder = TemporaryFolder()
    defer { extendLifetime(folder) }
    let experts = TinyModel(architecture: "olmoe").gguf(seed: 1).bytes()
    let dense = TinyModel().gguf(seed: 1).bytes()
    for (bytes, words) in [(experts, "has experts"), (dense, "exact only with relu")] {
      let source = try ModelSource.open(folder.write("model.gguf", bytes))
      for bundling in [Bundling.neurons, .singleNeurons] {
        do throws(ConversionError) {
          _ = try Converter(source, bundling: bundling)
          Issue.record("\(words): planned")
        } catch { #expect(error.description.contains(words), "\(error)") }
      }
    }
    let mixed = try ModelSource.open(
      folder.write("model.gguf", model([.f16, .f16, .f16, .f16, .q8_0]).gguf(seed: 1).bytes()))
    let downs = mixed.description.tensors.filter { $0.name.hasSuffix("ffn_down.weight") }
    if Set(downs.map(\.type)).count > 1 {
      #expect(throws: ConversionError.self) { try Converter(mixed, bundling: .neurons) }
      try Converter(mixed, bundling: .singleNeurons).write(to: "\(folder.path)/model.bin")
    }
  }
}
