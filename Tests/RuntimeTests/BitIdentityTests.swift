import BlockIO
import Glibc
import ModelConversion
import ModelFormat
import Runtime
import TensorBasics
import TestSupport
import Testing
import WeightLoader

/// The same logits, bit for bit, whatever the budget, back end, threads, chunks, file format and
/// drives.
@Suite struct BitIdentityTests {
  private func randomShape(modelByteCount: Int, using generator: inout SeededGenerator) -> RunShape
  {
    let spare: [Int?] = [0, 1 << 14, modelByteCount / 3, modelByteCount, nil]
    return RunShape(
      backend: [.auto, .uring, .pread, .mmap].randomElement(using: &generator) ?? .auto,
      threadCount: Int.random(in: 1...3, using: &generator),
      maximumChunkLength: Int.random(in: 1...40, using: &generator),
      spareByteCount: spare.randomElement(using: &generator) ?? nil,
      commitStep: [nil, 0, 300, 1 << 13].randomElement(using: &generator) ?? nil)
  }

  @Test(arguments: TinyFamilies.names + TinyFamilies.expertNames + TinyFamilies.factorNames)
  func `Tiny models of every family`(family: String) throws {
    for seed in UInt64(0)..<4 {
      var generator = SeededGenerator(seed: seed)
      var model = TinyFamilies.model(family)
      model.hiddenSize = 256
      model.feedForwardLength = 512
      model.headDim = 64
      model.experts?.feedForwardLength = 256
      if model.experts?.sharedFeedForwardLength != nil {
        model.experts?.sharedFeedForwardLength = 512
      }
      model.matrixTypes = (0..<4).map { _ in
        ElementType.allCases.randomElement(using: &generator) ?? .q8_0
      }
      model.tableType = ElementType.allCases.randomElement(using: &generator) ?? .q8_0
      model.vocabularyCount = 320 + Int.random(in: 0..<40, using: &generator)
      let gguf = model.gguf(seed: seed).bytes()
      let files = StoredModels(gguf: gguf, image: try ImageBuilder.image(of: gguf))
      defer { extendLifetime(files) }
      func token() -> Int32 { Int32(generator.next() % UInt64(model.vocabularyCount)) }
      let prompt = (0..<Int.random(in: 1...40, using: &generator)).map { _ in token() }
      let decoding = (0..<5).map { _ in token() }
      func bits(_ form: StoredModels.Form, _ shape: RunShape) throws -> [[UInt32]] {
        let session = try makeSession(
          files.path(form), mirrors: files.mirrors(form), contextLength: 64,
          promptLength: prompt.count, shape)
        return try logitBits(session, prompt: prompt, decoding: decoding)
      }
      let expected = try bits(.gguf, RunShape())
      for form in StoredModels.Form.allCases + StoredModels.Form.allCases {
        let shape = randomShape(modelByteCount: gguf.count, using: &generator)
        let found = try bits(form, shape)
        #expect(
          found == expected,
          "\(family), seed \(seed), \(form), \(shape), \(model.matrixTypes)")
      }
    }
  }

  /// OPT, of which there are no GGUF files: its image in every form.
  @Test(arguments: [nil, ElementType.q8_0, .q4_0])
  func `OPT from a Hugging Face folder`(quantisation: ElementType?) throws {
    let folder = try ModelSource.open(Self.vectors + "opt")
    let target = TemporaryFolder()
    try Converter(folder, quantisation: quantisation)
      .write(to: target.path + "/model.bin")
    let image = target.read("model.bin")
    let files = StoredModels(gguf: nil, image: image)
    defer { extendLifetime(files) }
    for seed in UInt64(0)..<4 {
      var generator = SeededGenerator(seed: seed)
      let prompt = (0..<Int.random(in: 1...40, using: &generator)).map { _ in
        Int32(generator.next() % 320)
      }
      let decoding = (0..<5).map { _ in Int32(generator.next() % 320) }
      func bits(_ form: StoredModels.Form, _ shape: RunShape) throws -> [[UInt32]] {
        let session = try makeSession(
          files.path(form), mirrors: files.mirrors(form), contextLength: 64,
          promptLength: prompt.count, shape)
        return try logitBits(session, prompt: prompt, decoding: decoding)
      }
      let expected = try bits(.image, RunShape())
      let forms: [StoredModels.Form] = [.image, .stripedOverTwo, .stripedOverThree, .mirroredImage]
      for form in forms + forms {
        let shape = randomShape(modelByteCount: image.count, using: &generator)
        #expect(try bits(form, shape) == expected, "seed \(seed), \(form), \(shape)")
      }
    }
    #expect(throws: RuntimeError.self, "no more positions than the table has") {
      try makeSession(files.path(.image), contextLength: 65, promptLength: 1, RunShape())
    }
  }

  private static var vectors: String {
    let tests = #filePath.split(separator: "/", omittingEmptySubsequences: false).dropLast(2)
    return tests.joined(separator: "/") + "/ModelConversionTests/Vectors/"
  }

  @Test(
    .enabled(
      if: RealModels.smolLM2 != nil, "SmolLM2 is not in the model folder; tools/test fetches it"))
  func `SmolLM2, as it is downloaded and as an image`() throws {
    let path = try #require(RealModels.smolLM2)
    let image = TemporaryFile([])
    defer { extendLifetime(image) }
    try Converter(try ModelSource.open(path)).write(to: image.path)
    var generator = SeededGenerator(seed: 1)
    let prompt = (0..<70).map { _ in Int32(generator.next() % 49152) }
    let decoding = (0..<4).map { _ in Int32(generator.next() % 49152) }
    func bits(_ path: String, _ shape: RunShape) throws -> [[UInt32]] {
      let session = try makeSession(path, contextLength: 96, promptLength: prompt.count, shape)
      return try logitBits(session, prompt: prompt, decoding: decoding)
    }
    let expected = try bits(path, RunShape(threadCount: 2))
    for index in 0..<10 {
      let shape = randomShape(modelByteCount: 96 << 20, using: &generator)
      let found = try bits(index % 2 == 0 ? image.path : path, shape)
      #expect(found == expected, "\(index % 2 == 0 ? "image" : "GGUF"), \(shape)")
    }
  }
}

/// One model in every form it can be stored in.
private struct StoredModels {
  enum Form: CaseIterable {
    case gguf
    case image
    case stripedOverTwo
    case stripedOverThree
    case mirroredGGUF
    case mirroredImage
  }

  private let folder = TemporaryFolder()

  init(gguf: [UInt8]?, image: [UInt8]) {
    if let gguf { for name in ["gguf", "gguf2"] { folder.write(name, gguf) } }
    for name in ["image", "image2", "image3"] { folder.write(name, image) }
    for (count, unitByteCount) in [(2, 8192), (3, 4096)] {
      let names = (0..<count).map { "of\(count)-\($0)" }
      let members = StripeBuilder.members(
        of: image, unitByteCount: unitByteCount, paths: names)
      for (name, bytes) in zip(names, members) { folder.write(name, bytes) }
    }
  }

  func path(_ form: Form) -> String {
    switch form {
    case .gguf, .mirroredGGUF: folder.path + "/gguf"
    case .image, .mirroredImage: folder.path + "/image"
    case .stripedOverTwo: folder.path + "/of2-1"
    case .stripedOverThree: folder.path + "/of3-0"
    }
  }

  func mirrors(_ form: Form) -> [String] {
    switch form {
    case .mirroredGGUF: [folder.path + "/gguf2"]
    case .mirroredImage: [folder.path + "/image2", folder.path + "/image3"]
    default: []
    }
  }
}
