import BlockIO
import Glibc
import ModelConversion
import ModelFormat
import Runtime
import TensorBasics
import TestSupport
import Testing
import WeightLoader

/// FFNs in bundles of neurons: the same bits as the dense model where skipping is exact, and the bytes that
/// the formula says.
@Suite struct NeuronTests {
  private static func model(_ types: [ElementType], activation: String? = "relu") -> TinyModel {
    var model = TinyModel.wide()
    model.hiddenActivation = activation
    model.tiesOutput = true
    model.matrixTypes = types
    return model
  }

  private static func session(
    _ path: String, _ options: NeuronOptions = NeuronOptions(), shape: RunShape = RunShape()
  ) throws -> Session {
    try makeSession(path, contextLength: 64, promptLength: 40, shape, neurons: options)
  }

  /// The converter's image; it can also requantise columns.
  private static func image(_ gguf: [UInt8], _ bundling: Bundling) throws -> TemporaryFile {
    let (source, image) = (TemporaryFile(gguf), TemporaryFile([]))
    defer { extendLifetime(source) }
    try Converter(try ModelSource.open(source.path), bundling: bundling).write(to: image.path)
    return image
  }

  private func randomRun(_ generator: inout SeededGenerator) -> (RunShape, Int?) {
    let spare: [Int?] = [0, 1 << 16, 1 << 19, nil]
    let shape = RunShape(
      backend: [.auto, .uring, .pread, .mmap].randomElement(using: &generator) ?? .auto,
      threadCount: Int.random(in: 1...3, using: &generator),
      maximumChunkLength: Int.random(in: 1...40, using: &generator),
      spareByteCount: spare.randomElement(using: &generator) ?? nil)
    return (shape, [nil, 1, 1 << 17].randomElement(using: &generator) ?? nil)
  }

  private static let prompt = (0..<23).map { Int32($0 * 37 % 300) }
  private static let decoding = (0..<8).map { Int32($0 * 53 % 300) }

  private func bits(_ session: Session) throws -> [[UInt32]] {
    try logitBits(session, prompt: Self.prompt, decoding: Self.decoding)
  }

  @Test(arguments: [
    [ElementType.f32], [.f16], [.bf16], [.q8_0], [.q4_0], [.q4_K, .q6_K], [.q5_1],
  ])
  func `Exact selection gives the bits of all neurons`(types: [ElementType]) throws {
    for (seed, bundling) in [Bundling.neurons, .singleNeurons].enumerated() {
      var generator = SeededGenerator(seed: UInt64(seed))
      let gguf = Self.model(types).gguf(seed: UInt64(seed)).bytes()
      let image = try Self.image(gguf, bundling)
      defer { extendLifetime(image) }
      let expected = try bits(Self.session(image.path, NeuronOptions(selector: .all)))
      for _ in 0..<8 {
        let (shape, window) = randomRun(&generator)
        let selector: NeuronSelector = Bool.random(using: &generator) ? .exact : .all
        let session = try Self.session(
          image.path, NeuronOptions(selector: selector, windowByteCount: window), shape: shape)
        #expect(
          try bits(session) == expected,
          "\(types), \(bundling), \(selector), \(shape), window \(window ?? 0)")
      }
    }
  }

  @Test(arguments: [[ElementType.q8_0], [.q4_0], [.q4_K], [.q5_1, .q8_0]])
  func `Groups of a quant block give the bits of the file they come from`(
    types: [ElementType]
  ) throws {
    let gguf = Self.model(types).gguf(seed: 3).bytes()
    let file = TemporaryFile(gguf)
    let image = TemporaryFile(try ImageBuilder.image(of: gguf, bundling: .neurons))
    defer { extendLifetime((file, image)) }
    let expected = try bits(Self.session(file.path))
    #expect(try bits(Self.session(image.path)) == expected)
    #expect(try bits(Self.session(image.path, NeuronOptions(selector: .all))) == expected)
  }

  @Test func `Bytes are what was active and not in the window, times a bundle`() throws {
    for bundling in [Bundling.neurons, .singleNeurons] {
      let gguf = Self.model([.q8_0]).gguf(seed: 1).bytes()
      let image = try Self.image(gguf, bundling)
      defer { extendLifetime(image) }
      for selector in [NeuronSelector.exact, .all] {
        let session = try Self.session(
          image.path, NeuronOptions(selector: selector, windowByteCount: 1 << 16),
          shape: RunShape(spareByteCount: 1 << 20))
        let shape = try #require(session.stream.source.description.neurons?.layers.first)
        let reading = try #require(session.plan.neurons?.reading)
        _ = try session.prefill(Self.prompt)
        let device = session.stream.source.device
        for token in Self.decoding {
          let (before, bytesBefore) = (session.stream.neuronStatistics, device.statistics)
          _ = try session.decode(token)
          let statistics = session.stream.neuronStatistics - before
          let read = statistics.reads
          #expect(read - statistics.readsAhead <= statistics.uses - statistics.hits)
          #expect(statistics.bytesRead == read * reading.readByteCount(shape))
          #expect(statistics.requests <= read, "at most one request for a bundle")
          #expect(
            device.statistics.since(bytesBefore).bytesRead >= statistics.bytesRead,
            "and the device counts them")
        }
      }
    }
  }

  @Test func `A window of everything reads each active bundle once`() throws {
    let gguf = Self.model([.f16]).gguf(seed: 1).bytes()
    let image = TemporaryFile(try ImageBuilder.image(of: gguf, bundling: .neurons))
    defer { extendLifetime(image) }
    let session = try Self.session(image.path)
    for _ in 0..<3 {
      session.reset()
      _ = try bits(session)
    }
    let all = 3 * 512
    #expect(session.stream.neuronStatistics.reads <= all)
    #expect(session.stream.neuronStatistics.evictions == 0)
  }

  @Test func `Parts read apart and no window change no bit`() throws {
    let gguf = Self.model([.f16]).gguf(seed: 2).bytes()
    let image = TemporaryFile(try ImageBuilder.image(of: gguf, bundling: .neurons))
    defer { extendLifetime(image) }
    let expected = try bits(Self.session(image.path))
    let session = try Self.session(
      image.path,
      NeuronOptions(selector: .exact, retention: NeuronReading.Retention.none))
    #expect(try bits(session) == expected)
    #expect(session.stream.neuronStatistics.hits == 0)
  }

  @Test func `A selector that the image cannot serve is refused by name`() throws {
    let relu = TemporaryFile(
      try ImageBuilder.image(of: Self.model([.q8_0]).gguf(seed: 1).bytes(), bundling: .neurons))
    let silu = TemporaryFile(
      try ImageBuilder.image(
        of: Self.model([.q8_0], activation: nil).gguf(seed: 1).bytes(), bundling: .neurons))
    let dense = TemporaryFile(Self.model([.q8_0]).gguf(seed: 1).bytes())
    defer { extendLifetime((relu, silu, dense)) }
    func refusal(_ path: String, _ selector: NeuronSelector?) -> String {
      do { _ = try Self.session(path, NeuronOptions(selector: selector)) } catch {
        return "\(error)"
      }
      return ""
    }
    #expect(refusal(relu.path, .predictor).contains("the image holds none; all, exact can be used"))
    #expect(refusal(silu.path, nil).contains("the activation is silu"))
    #expect(refusal(silu.path, .exact).contains("makes no neuron zero"))
    #expect(refusal(dense.path, .exact).contains("do not lie in bundles"))
    #expect(refusal(silu.path, .all) == "")
  }

  @Test func `Types that no kernel takes are refused before anything is computed`() throws {
    let image = try Self.image(Self.model([.f16]).gguf(seed: 1).bytes(), .neurons)
    defer { extendLifetime(image) }
    func refusal(_ change: (inout ModelDescription) -> Void) throws -> String {
      let source = try ModelSource.open(image.path)
      var description = source.description
      change(&description)
      let configuration = try #require(description.configuration)
      do {
        _ = try Session(
          ModelSource(path: image.path, description: description, device: source.device),
          configuration,
          MemoryPlan.Request(
            budgetByteCount: 1 << 30, contextLength: 8, promptLength: 1, threadCount: 1))
      } catch { return "\(error)" }
      return ""
    }
    #expect(try refusal { _ in } == "")
    #expect(
      try refusal { $0.neurons?.layers[1].parts[1].type = .q4_K }
        .contains("columns of single neurons in Q4_K"))
    #expect(
      try refusal {
        $0.tensors[$0.tensors.count - 1].name = "blk.0.ffn_predictor_b.weight"
        $0.tensors[$0.tensors.count - 1].type = .q8_0
      }.contains("predictors are floats"))
  }

  @Test(arguments: [ElementType.q8_0, .f16])
  func `A flipped bit in any bundle is found when the bundle is needed`(type: ElementType) throws {
    let gguf = Self.model([type]).gguf(seed: 1).bytes()
    let bytes = try ImageBuilder.image(of: gguf, bundling: .neurons)
    let layout = try #require(try ImageBuilder.description(of: bytes).neurons)
    var generator = SeededGenerator(seed: 4)
    for layer in layout.layers {
      var damaged = bytes
      let bundle = Int.random(in: 0..<layer.bundleCount, using: &generator)
      let place = Int.random(in: 0..<layer.byteCount, using: &generator)
      damaged[layer.offset + bundle * layer.byteStride + place] ^= 4
      let image = TemporaryFile(damaged)
      defer { extendLifetime(image) }
      let session = try Self.session(image.path, NeuronOptions(selector: .all))
      #expect {
        try bits(session)
      } throws: { error in
        "\(error)".contains("not what was written")
      }
    }
  }
}
