import BlockIO
import Glibc
import Kernels
import ModelConversion
import ModelFormat
import TensorBasics
import TestSupport
import Testing
import WeightLoader

@Suite struct ConverterTests {
  private func model(_ architecture: String, seed: UInt64) -> TinyModel {
    var generator = SeededGenerator(seed: seed)
    var model = TinyModel(architecture: architecture)
    model.tiesOutput = architecture == "gemma3" || Bool.random(using: &generator)
    let types = ElementType.allCases.filter { $0.blockElementCount <= 32 }
    model.matrixTypes = (0..<3).map { _ in types.randomElement(using: &generator) ?? .q8_0 }
    model.tableType = types.randomElement(using: &generator) ?? .q8_0
    // Rows that do not fill their last group.
    model.vocabularyCount = 320 + Int.random(in: 0..<16, using: &generator)
    return model
  }

  @Test(arguments: ["llama", "qwen2", "qwen3", "gemma3"])
  func `The image is, byte for byte, the one built word by word`(architecture: String) throws {
    for seed in UInt64(0)..<4 {
      let folder = TemporaryFolder()
      defer { extendLifetime(folder) }
      let gguf = model(architecture, seed: seed).gguf(seed: seed).bytes()
      let path = folder.write("model.gguf", gguf)
      for backend in [StorageBackend.auto, .pread, .mmap] {
        let source = try ModelSource.open(path, backend: backend)
        try Converter(source).write(to: "\(folder.path)/model.bin")
        #expect(
          folder.read("model.bin") == (try ImageBuilder.image(of: gguf)),
          "seed \(seed), \(backend)")
      }
      #expect(folder.entries == ["model.bin", "model.gguf"])
      let image = try ModelSource.open("\(folder.path)/model.bin")
      try image.verifyExtents()
      #expect(throws: ConversionError.self) { try Converter(image) }
    }
  }

  @Test func `A conversion that is stopped leaves what was there before`() throws {
    let folder = TemporaryFolder()
    defer { extendLifetime(folder) }
    let path = folder.write("model.gguf", TinyModel().gguf(seed: 1).bytes())
    folder.write("model.bin", [1, 2, 3])
    let flag = CancellationFlag()
    flag.raise()
    let converter = try Converter(try ModelSource.open(path))
    #expect(throws: ConversionError.self) {
      try converter.write(to: "\(folder.path)/model.bin", cancellation: flag)
    }
    #expect(folder.read("model.bin") == [1, 2, 3])
    #expect(folder.entries == ["model.bin", "model.gguf"])
  }

  @Test func `Members of a striped image are, byte for byte, those built byte by byte`() throws {
    for seed in UInt64(0)..<4 {
      let folder = TemporaryFolder()
      defer { extendLifetime(folder) }
      let gguf = model("llama", seed: seed).gguf(seed: seed).bytes()
      let source = try ModelSource.open(folder.write("model.gguf", gguf))
      let names = (0..<Int(seed) + 2).map { "m\($0)" }
      let paths = names.map { "\(folder.path)/\($0)" }
      let unitByteCount = [4096, 12288, 1 << 16, 1 << 20][Int(seed)]
      let striping = try Striping(
        path: paths[0], otherPaths: Array(paths.dropFirst()), unitByteCount: unitByteCount)
      try Converter(source).write(to: paths[0], striping: striping)
      #expect(folder.entries == names + ["model.gguf"])
      let expected = StripeBuilder.members(
        of: try ImageBuilder.image(of: gguf), unitByteCount: unitByteCount, paths: paths)
      for (name, bytes) in zip(names, expected) {
        #expect(folder.read(name) == bytes, "seed \(seed), \(name)")
      }
      let image = try ModelSource.open(paths[1])
      try image.verifyExtents()
      #expect(throws: ConversionError.self) { try Converter(image) }
    }
  }

  @Test func `A striped conversion that stops leaves every path as it was`() throws {
    let folder = TemporaryFolder()
    defer { extendLifetime(folder) }
    let path = folder.write("model.gguf", TinyModel().gguf(seed: 1).bytes())
    folder.write("m0", [1, 2, 3])
    let flag = CancellationFlag()
    flag.raise()
    let converter = try Converter(try ModelSource.open(path))
    for (other, cancellation) in [("m1", flag), ("none/m1", CancellationFlag())] {
      let striping = try Striping(
        path: folder.path + "/m0", otherPaths: ["\(folder.path)/\(other)"])
      #expect(throws: ConversionError.self) {
        try converter.write(
          to: folder.path + "/m0", striping: striping, cancellation: cancellation)
      }
      #expect(folder.read("m0") == [1, 2, 3])
      #expect(folder.entries == ["m0", "model.gguf"])
    }
  }

  @Test func `Stripes that cannot be are refused`() {
    for (others, unitByteCount) in [
      ([], 4096), (["a"], 4096), (["b"], 4095), (["b"], 0), (["b"], 1 << 31), (["b", "b"], 4096),
      ((0..<64).map { "m\($0)" }, 4096), ([String(repeating: "x", count: 4096)], 4096),
    ] {
      #expect(throws: ConversionError.self) {
        try Striping(path: "a", otherPaths: others, unitByteCount: unitByteCount)
      }
    }
  }

  @Test func `A folder that is not there is an error with its path`() throws {
    let folder = TemporaryFolder()
    defer { extendLifetime(folder) }
    let path = folder.write("model.gguf", TinyModel().gguf(seed: 1).bytes())
    let converter = try Converter(try ModelSource.open(path))
    do throws(ConversionError) {
      try converter.write(to: "\(folder.path)/no/model.bin")
      Issue.record("written")
    } catch { #expect(error.description.contains("no/model.bin")) }
  }

  @Test(arguments: [ElementType.q8_0, .q4_0])
  func `Floats are quantised within half a step`(type: ElementType) throws {
    var tiny = TinyModel()
    tiny.matrixTypes = [.f32, .f16, .bf16]
    tiny.tableType = .f16
    let folder = TemporaryFolder()
    defer { extendLifetime(folder) }
    let path = folder.write("model.gguf", tiny.gguf(seed: 3).bytes())
    let source = try ModelSource.open(path)
    try Converter(source, quantisation: type).write(to: "\(folder.path)/model.bin")
    let image = try ModelSource.open("\(folder.path)/model.bin")
    let stored = try TensorTable(source.description.tensors)
    for (number, tensor) in image.description.tensors.enumerated() where tensor.rowCount > 1 {
      #expect(tensor.type == type)
      let original = try #require(stored[tensor.name])
      let number0 = try #require(
        source.description.tensors.firstIndex { $0.name == tensor.name })
      var expected: [Float] = []
      try source.readTensors([number0]) { _, address in
        expected = Self.rows(original, address)
      }
      var found: [Float] = []
      try image.readTensors([number]) { _, address in found = Self.rows(tensor, address) }
      for block in stride(from: 0, to: expected.count, by: 32) {
        let largest = expected[block..<block + 32].map(\.magnitude).max() ?? 0
        // Half a step; the far end of Q4_0's range loses a whole one; scales are f16.
        let bound = largest * (type == .q8_0 ? 0.5 / 127 : 1.0 / 8) * 1.01 + largest * 0x1p-10
        for index in block..<block + 32 {
          #expect((expected[index] - found[index]).magnitude <= bound)
        }
      }
    }
  }

  private static func rows(_ tensor: TensorRecord, _ address: UnsafeRawPointer) -> [Float] {
    var values = [Float](repeating: 0, count: tensor.rowCount * tensor.columnCount)
    values.withUnsafeMutableBufferPointer { output in
      for row in 0..<tensor.rowCount {
        let target = output.baseAddress! + row * tensor.columnCount
        switch tensor.layout {
        case .rowMajor:
          Dequantisation.row(
            address + row * (tensor.byteCount / tensor.rowCount), type: tensor.type,
            columnCount: tensor.columnCount, into: target)
        case .interleaved:
          let group = RowGroup.byteCount(tensor.type, columnCount: tensor.columnCount)
          Dequantisation.row(
            inGroup: address + row / 16 * group, row: row % 16, type: tensor.type,
            columnCount: tensor.columnCount, into: target)
        }
      }
    }
    return values
  }
}
