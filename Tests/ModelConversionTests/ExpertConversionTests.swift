import ModelConversion
import ModelFormat
import TensorBasics
import TestSupport
import Testing
import WeightLoader

/// Models with experts, from GGUF files to images.
@Suite struct ExpertConversionTests {
  private static let families = ["mixtral", "qwen2moe", "qwen3moe", "olmoe"]

  private func model(_ family: String, seed: Int) -> TinyModel {
    var model = TinyModel.withExperts(family)
    model.matrixTypes = [[.q8_0], [.q4_0, .q5_1, .f16], [.f32, .bf16]][seed]
    model.experts?.expertCount = 5 + seed
    // Experts whose rows do not fill their last group.
    if seed == 2 { model.experts?.feedForwardLength = 41 }
    return model
  }

  @Test(arguments: families)
  func `The image is, byte for byte, the one built word by word`(family: String) throws {
    for seed in 0..<3 {
      let folder = TemporaryFolder()
      defer { extendLifetime(folder) }
      let gguf = model(family, seed: seed).gguf(seed: UInt64(seed)).bytes()
      let path = folder.write("model.gguf", gguf)
      for bundling in [nil] + [Bundling.none, .experts] {
        let source = try ModelSource.open(path)
        try Converter(source, bundling: bundling).write(to: "\(folder.path)/model.bin")
        #expect(
          folder.read("model.bin") == (try ImageBuilder.image(of: gguf, bundling: bundling)),
          "seed \(seed), \(bundling.map { "\($0)" } ?? "default")")
        try ModelSource.open("\(folder.path)/model.bin").verifyExtents()
      }
      #expect(
        try ImageBuilder.image(of: gguf) == ImageBuilder.image(of: gguf, bundling: .experts))
    }
  }

  /// The rows of a plain interleaved matrix, word by word as `docs/format.md` gives their places.
  private func rows(_ image: [UInt8], _ tensor: TensorRecord, rowByteCount: Int) -> [UInt8] {
    let blockByteCount = RowGroup.blockByteCount(tensor.type)
    let (lone, count) = (tensor.type.layout.loneOffset, tensor.type.layout.loneByteCount)
    let groupByteCount = tensor.byteCount / ((tensor.rowCount + 15) / 16)
    var rows: [UInt8] = []
    for row in 0..<tensor.rowCount {
      for byte in 0..<rowByteCount {
        let (block, place) = (byte / blockByteCount, byte % blockByteCount)
        let start = tensor.offset + row / 16 * groupByteCount + block * 16 * blockByteCount
        if (lone..<lone + count).contains(place) {
          rows.append(image[start + row % 16 * count + place - lone])
        } else {
          let inWords = place > lone ? place - count : place
          let word = inWords / 4 * 16 + row % 16
          rows.append(image[start + 16 * count + word * 4 + inWords % 4])
        }
      }
    }
    return rows
  }

  @Test(arguments: families, [Bundling.none, .experts])
  func `Undoing the permutation gives the source's bytes`(
    family: String, bundling: Bundling
  ) throws {
    for seed in 0..<3 {
      let folder = TemporaryFolder()
      defer { extendLifetime(folder) }
      let gguf = model(family, seed: seed).gguf(seed: 7).bytes()
      let source = try ModelSource.open(folder.write("model.gguf", gguf))
      try Converter(source, bundling: bundling).write(to: "\(folder.path)/model.bin")
      let image = folder.read("model.bin")
      let table = try TensorTable(try ImageBuilder.description(of: image).tensors)
      var count = 0
      for original in source.description.tensors {
        let tensor = try #require(table[original.name])
        guard tensor.layout == .interleaved else { continue }
        #expect(tensor.isBundled == (bundling == .experts && original.stack != nil))
        for number in 0..<(original.stack?.count ?? 1) {
          let part = original.part(number)
          let expected = gguf[part.offset..<part.offset + part.byteCount]
          let found = rows(
            image, tensor.part(number), rowByteCount: original.byteCount / original.rowCount)
          #expect(found == Array(expected), "seed \(seed), \(original.name), part \(number)")
          count += 1
        }
      }
      #expect(count > 6 * (5 + seed))
    }
  }

  @Test func `A dense model is not bundled`() throws {
    let folder = TemporaryFolder()
    defer { extendLifetime(folder) }
    let source = try ModelSource.open(
      folder.write("model.gguf", TinyModel().gguf(seed: 1).bytes()))
    do throws(ConversionError) {
      _ = try Converter(source, bundling: .experts)
      Issue.record("planned")
    } catch { #expect(error.description.contains("no experts")) }
  }

  @Test func `Routers are not quantised, experts are`() throws {
    var model = TinyModel.withExperts("qwen2moe")
    model.matrixTypes = [.f16]
    let folder = TemporaryFolder()
    defer { extendLifetime(folder) }
    let source = try ModelSource.open(folder.write("model.gguf", model.gguf(seed: 1).bytes()))
    let converter = try Converter(source, quantisation: .q8_0)
    try converter.write(to: "\(folder.path)/model.bin")
    let image = try ModelSource.open("\(folder.path)/model.bin")
    try image.verifyExtents()
    let table = try TensorTable(image.description.tensors)
    #expect(table["blk.0.ffn_gate_inp.weight"]?.type == .f32)
    #expect(table["blk.0.ffn_gate_inp.weight"]?.layout == .interleaved)
    #expect(table["blk.0.ffn_down_exps.weight"]?.type == .q8_0)
    #expect(table["blk.0.ffn_down_shexp.weight"]?.type == .q8_0)
  }

  @Test func `A striped image with experts is the same image`() throws {
    let folder = TemporaryFolder()
    defer { extendLifetime(folder) }
    let gguf = TinyModel.withExperts("qwen3moe").gguf(seed: 1).bytes()
    let source = try ModelSource.open(folder.write("model.gguf", gguf))
    let paths = ["m0", "m1"].map { "\(folder.path)/\($0)" }
    let striping = try Striping(path: paths[0], otherPaths: [paths[1]], unitByteCount: 12288)
    try Converter(source).write(to: paths[0], striping: striping)
    let expected = StripeBuilder.members(
      of: try ImageBuilder.image(of: gguf), unitByteCount: 12288, paths: paths)
    #expect(folder.read("m0") == expected[0] && folder.read("m1") == expected[1])
    try ModelSource.open(paths[1]).verifyExtents()
  }
}
