import Kernels
import ModelConversion
import ModelFormat
import TensorBasics
import TestSupport
import Testing
import WeightLoader

/// What `--quantize` makes of each tensor.
@Suite struct QuantisedConversionTests {
  private let folder = TemporaryFolder()

  private func source(_ change: (inout TinyModel) -> Void) throws -> ModelSource {
    var model = TinyModel()
    model.matrixTypes = [.f32, .f16, .bf16]
    model.tableType = .f16
    change(&model)
    return try ModelSource.open(folder.write("model.gguf", model.gguf(seed: 3).bytes()))
  }

  /// Each matrix's type in the image, without the layer's number.
  private func types(_ path: String) throws -> [String: Set<ElementType>] {
    var found: [String: Set<ElementType>] = [:]
    for tensor in try ModelSource.open(path).description.tensors where tensor.rowCount > 1 {
      let parts = tensor.name.split(separator: ".")
      found[parts.suffix(2).joined(separator: "."), default: []].insert(tensor.type)
    }
    return found
  }

  @Test(arguments: Converter.quantisedTypes)
  func `Rows of a multiple of 256 become the type asked for, the same bytes with any threads`(
    type: ElementType
  ) throws {
    let source = try source {
      ($0.hiddenSize, $0.feedForwardLength, $0.headDim) = (256, 512, 64)
    }
    let converter = try Converter(source, quantisation: type)
    #expect(converter.quantisationExceptions == [])
    var images: [[UInt8]] = []
    for threadCount in [1, 3] {
      let path = "\(folder.path)/\(threadCount).bin"
      try converter.write(to: path, threadCount: threadCount)
      images.append(folder.read("\(threadCount).bin"))
      let types = try types(path)
      #expect(types.values.allSatisfy { $0 == [type] })
    }
    #expect(images[0] == images[1])
  }

  @Test(arguments: [
    (ElementType.q2_K, ElementType.iq4_NL), (.q3_K, .iq4_NL), (.q4_K, .iq4_NL), (.q5_K, .q8_0),
    (.q6_K, .q8_0),
  ])
  func `Rows of no multiple of 256 become a type of blocks of 32`(
    asked: ElementType, standIn: ElementType
  ) throws {
    let source = try source { ($0.hiddenSize, $0.feedForwardLength, $0.headDim) = (64, 256, 16) }
    let converter = try Converter(source, quantisation: asked)
    let path = "\(folder.path)/model.bin"
    try converter.write(to: path)
    for (name, found) in try types(path) {
      #expect(found == [name == "ffn_down.weight" ? asked : standIn], "\(name)")
    }
    let exceptions = converter.quantisationExceptions
    #expect(exceptions.allSatisfy { $0.type == standIn && $0.length == 64 })
    #expect(exceptions.contains { $0.tensorName == "blk.1.attn_q.weight" })
    #expect(
      !exceptions.contains { $0.tensorName.contains("norm") || $0.tensorName.contains("down") })
    let lines = QuantisationException.lines(exceptions, asked: asked)
    #expect(lines.count == 1)
    #expect(
      lines[0].contains("blk.*.attn_q.weight")
        && lines[0].hasSuffix("stored as \(standIn.name), because 64 is not a multiple of 256"))
  }

  @Test(arguments: Converter.quantisedTypes)
  func `Rows of no multiple of 32 stay floats, and that is said`(type: ElementType) throws {
    let source = try source {
      $0.feedForwardLength = 80
      $0.matrixTypes = [.f32]
    }
    let converter = try Converter(source, quantisation: type)
    let path = "\(folder.path)/model.bin"
    try converter.write(to: path)
    #expect(try types(path)["ffn_down.weight"] == [.f32])
    #expect(
      QuantisationException.lines(converter.quantisationExceptions, asked: type).contains(
        "blk.*.ffn_down.weight: kept as F32, because 80 is not a multiple of 32"))
  }

  @Test func `In bundles of single neurons the length of a column counts`() throws {
    let source = try source {
      ($0.hiddenActivation, $0.matrixTypes) = ("relu", [.f32])
      ($0.hiddenSize, $0.feedForwardLength) = (64, 256)
    }
    let converter = try Converter(source, quantisation: .q6_K, bundling: .neurons)
    try converter.write(to: "\(folder.path)/model.bin")
    let down = converter.quantisationExceptions.first { $0.tensorName.hasSuffix("ffn_down.weight") }
    #expect(down?.type == .q8_0 && down?.length == 64)
  }

  @Test
  func `A weight beyond what any scale reaches is refused, and does not make its block zeros`()
    throws
  {
    var model = TinyModel()
    model.matrixTypes = [.f32]
    for weight in [Float(0x1p28), -1e12, .greatestFiniteMagnitude] {
      var file = model.gguf(seed: 3)
      let index = try #require(file.tensors.firstIndex { $0.name == "blk.0.ffn_up.weight" })
      let bytes = withUnsafeBytes(of: weight.bitPattern.littleEndian, Array.init)
      file.tensors[index].data.replaceSubrange(8..<12, with: bytes)
      let source = try ModelSource.open(folder.write("large.gguf", file.bytes()))
      for type in Converter.quantisedTypes {
        do throws(ConversionError) {
          try Converter(source, quantisation: type).write(to: "\(folder.path)/large.bin")
          Issue.record("\(type.name) took \(weight)")
        } catch {
          #expect(error.description.contains("row 0 of tensor"), "\(error)")
        }
      }
    }
  }

  @Test func `Types that floats are not quantised to are refused with those that they are`() throws
  {
    let source = try source { _ in }
    for type in ElementType.allCases where !Converter.quantisedTypes.contains(type) {
      do throws(ConversionError) {
        _ = try Converter(source, quantisation: type)
        Issue.record("\(type.name) was taken")
      } catch {
        #expect(error.description.contains(type.name) && error.description.contains("Q4_K"))
      }
    }
  }
}
