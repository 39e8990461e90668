import ModelConversion
import ModelFormat
import TensorBasics
import TestSupport
import Testing
import WeightLoader

/// What is infinite or not a number is refused with its tensor, and no image is written.
@Suite struct NotFiniteConversionTests {
  private func refusal(
    of file: TinyGGUF, _ make: (ModelSource) throws -> Converter
  ) throws -> FormatError? {
    let folder = TemporaryFolder()
    defer { extendLifetime(folder) }
    let source = try ModelSource.open(folder.write("model.gguf", file.bytes()))
    var refusal: FormatError?
    do { try make(source).write(to: "\(folder.path)/model.bin") } catch ConversionError.format(
      let error)
    {
      refusal = error
    }
    #expect(throws: (any Error).self, "nothing was written") {
      try ModelSource.open("\(folder.path)/model.bin")
    }
    return refusal
  }

  @Test(arguments: [ElementType.f32, .f16, .bf16, .q8_0, .q4_1, .q5_0])
  func `Converted as it is, quantised, or in bundles`(type: ElementType) throws {
    var model = TinyModel()
    model.hiddenActivation = "relu"
    model.matrixTypes = [type]
    let file = model.gguf(seed: 8)
    for name in ["blk.1.ffn_up.weight", "blk.0.ffn_down.weight", "blk.1.attn_v.weight"] {
      let index = try #require(file.tensors.firstIndex { $0.name == name })
      var broken = file
      // All ones in the exponent, in the second block of the third row.
      let columns = Int(file.tensors[index].dimensions[0])
      let rowByteCount = try #require(type.rowByteCount(columnCount: columns))
      let place = 2 * rowByteCount + type.blockByteCount
      let bytes: [UInt8] =
        type == .f32 ? [0, 0, 0xC0, 0x7F] : type == .bf16 ? [0xC0, 0x7F] : [0, 0xFC]
      broken.tensors[index].data.replaceSubrange(place..<place + bytes.count, with: bytes)
      var ways: [(ModelSource) throws -> Converter] = [
        { try Converter($0) }, { try Converter($0, bundling: .neurons) },
      ]
      if !type.isQuantised { ways.append { try Converter($0, quantisation: .q8_0) } }
      for (way, make) in ways.enumerated() {
        let refusal = try refusal(of: broken, make)
        let message = refusal?.description ?? "converted"
        #expect(message.contains(name), "way \(way): \(message)")
        #expect(message.contains("row 2"), "way \(way): \(message)")
        #expect(message.contains("column \(type.blockElementCount)"), "way \(way): \(message)")
      }
    }
  }

  /// A scale of 16 bits ends at 65504: quantised, larger weights would be infinite.
  @Test(arguments: [ElementType.q8_0, .q4_0, .iq4_NL])
  func `A finite weight that its quantised type cannot hold`(type: ElementType) throws {
    var model = TinyModel()
    model.hiddenActivation = "relu"
    model.matrixTypes = [.f32]
    let file = model.gguf(seed: 8)
    for name in ["blk.1.ffn_up.weight", "blk.0.ffn_down.weight"] {
      let index = try #require(file.tensors.firstIndex { $0.name == name })
      var broken = file
      let large = withUnsafeBytes(of: Float(1e8).bitPattern.littleEndian) { Array($0) }
      broken.tensors[index].data.replaceSubrange(4..<8, with: large)
      let folder = TemporaryFolder()
      defer { extendLifetime(folder) }
      let source = try ModelSource.open(folder.write("model.gguf", broken.bytes()))
      try Converter(source).write(to: "\(folder.path)/plain.bin")
      for bundling in [nil, Bundling.neurons] {
        do {
          try Converter(source, quantisation: type, bundling: bundling)
            .write(to: "\(folder.path)/model.bin")
          Issue.record("\(name) was written as \(type), \(String(describing: bundling))")
        } catch {
          #expect(error.description.contains(name), "\(error)")
        }
        #expect(throws: (any Error).self) { try ModelSource.open("\(folder.path)/model.bin") }
      }
    }
  }
}
