import BlockIO
import KVCache
import ModelFormat
import Runtime
import TensorBasics
import TestSupport
import Testing
import WeightLoader

/// Layers that predict further tokens, which draft for their own model.
@Suite struct PredictionLayerTests {
  private static let families = ["glm4moe", "qwen3next", "qwen35"]

  private static func tiny(_ family: String) -> TinyModel {
    var tiny = TinyModel(architecture: family)
    tiny.predictionLayerCount = 1
    (tiny.matrixTypes, tiny.tableType) = ([.f32], .f32)
    return tiny
  }

  /// The layer of a file, in f64.
  private static func naive(_ rig: EngineRig) throws -> (model: NaiveDecoder, layer: NaiveDecoder) {
    let source = try ModelSource.open(rig.path)
    return (
      try NaiveDecoder.reading(source), try NaiveDecoder.reading(#require(source.predictor))
    )
  }

  /// The largest difference from a reference, in its standard deviations.
  private static func error(_ found: some Sequence<Float>, _ reference: [Double]) -> Double {
    let mean = reference.reduce(0, +) / Double(reference.count)
    let variance =
      reference.reduce(0) { $0 + ($1 - mean) * ($1 - mean) } / Double(reference.count)
    return zip(found, reference).reduce(0) { max($0, (Double($1.0) - $1.1).magnitude) }
      / variance.squareRoot()
  }

  @Test(arguments: families, [ElementType.f32, .q8_0])
  func `A layer's logits and states are those of the f64 graph`(
    family: String, type: ElementType
  ) throws {
    var tiny = Self.tiny(family)
    tiny.matrixTypes = [type]
    // Which of two equal experts is chosen is no matter of precision.
    tiny.experts?.expertsPerToken = 8
    tiny.experts?.routing.groups = nil
    let rig = try EngineRig(tiny)
    let (model, layer) = try Self.naive(rig)
    let path = EngineRig.tokens(25, seed: 7)
    let given = model.hiddenStates(Array(path.dropLast()))
    let expected = layer.hiddenStates(Array(path.dropFirst()), joining: given)
    let source = try #require(try ModelSource.open(rig.path).predictor)
    var request = rig.request(sequenceCount: 1)
    request.draftRowCount = 0
    for chunkLength in [24, 7] {
      let core = try EngineCore(source, #require(source.description.configuration), request)
      let cache = try core.openSequence()
      defer { cache.close() }
      for first in stride(from: 0, to: 24, by: chunkLength) {
        let rows = first..<min(first + chunkLength, 24)
        for (row, state) in given[rows].enumerated() {
          for (column, value) in state.enumerated() {
            core.inputStates[row * state.count + column] = Float(value)
          }
        }
        core.batch.removeAll()
        path[1...].withUnsafeBufferPointer {
          core.batch.append(
            UnsafeBufferPointer(rebasing: $0[rows]), at: first, .read, in: cache,
            logitCount: rows.count, states: .pooling)
        }
        let tolerance = type == .f32 ? 5e-3 : 0.25
        let width = given[0].count
        try core.step(
          continues: true,
          pool: { states in
            for (row, position) in rows.enumerated() {
              let found = UnsafeBufferPointer(start: states + row * width, count: width)
              #expect(Self.error(found, expected[position]) < tolerance)
            }
          },
          { number, logits in
            let count = tiny.vocabularyCount
            for row in 0..<logits.count / count {
              let reference = layer.logits(of: expected[rows.lowerBound + number + row])
              #expect(
                Self.error(logits[row * count..<(row + 1) * count], reference) < tolerance)
            }
          })
      }
    }
  }

  /// What a layer draws after a path, by the f64 graph: each token must be as likely as the likeliest.
  private static func expectGreedy(
    _ tokens: [Int32], after path: [Int32], from first: Int,
    _ naive: (model: NaiveDecoder, layer: NaiveDecoder)
  ) {
    var states = Array(naive.model.hiddenStates(Array(path.dropLast()))[first...])
    var read = Array(path[(first + 1)...])
    for token in tokens {
      let own = naive.layer.hiddenStates(read, joining: states)
      let logits = naive.layer.logits(of: own[own.count - 1])
      #expect(logits[Int(token)] > logits.max()! - 0.02)
      states.append(own[own.count - 1])
      read.append(token)
    }
  }

  private static func give(
    _ drafter: PredictionDrafter, _ states: [[Double]], of positions: Range<Int>
  ) {
    let values = states[positions].flatMap { $0.map(Float.init) }
    values.withUnsafeBufferPointer {
      drafter.take(
        states: $0.baseAddress!, rowCount: positions.count, at: positions.lowerBound)
    }
  }

  @Test(arguments: families)
  func `A layer goes on from the model's states, and then from its own`(family: String) throws {
    var tiny = Self.tiny(family)
    tiny.experts?.expertsPerToken = 8
    tiny.experts?.routing.groups = nil
    let rig = try EngineRig(tiny)
    rig.contextLength = 400
    let naive = try Self.naive(rig)
    var generator = SeededGenerator(seed: 0xE0)
    let model = try DraftModel(
      predictorOf: rig.model, backend: .auto, rig.request(sequenceCount: 2))
    for length in [2, 40, 300] {
      let drafter = PredictionDrafter(model, contextLength: 400, memory: nil)
      var path = EngineRig.tokens(length, seed: UInt64(length))
      var read = 0
      for _ in 0..<3 {
        let end = path.count - 1
        let states = naive.model.hiddenStates(Array(path.dropLast()))
        while read < end {
          let next = min(end, read + Int.random(in: 1...90, using: &generator))
          Self.give(drafter, states, of: read..<next)
          read = next
        }
        var draft = Draft()
        try drafter.propose(
          after: DraftContext(
            path: path, answerStart: length, sampling: SamplingOptions(temperature: 0)),
          into: &draft)
        #expect(draft.tokens.count == Draft.capacity)
        Self.expectGreedy(
          Array(draft.tokens.prefix(5)), after: path, from: max(0, length - 1 - 256), naive)
        // Two are right; states of what is wrong are given too, and taken back.
        path += draft.tokens.prefix(2)
        path.append(Int32.random(in: 0..<320, using: &generator))
        let wrong = [[Double]](repeating: states[0].map { _ in 7 }, count: end + 9)
        Self.give(drafter, wrong, of: end..<end + 9)
      }
    }
  }

  /// Has all that is proposed verified.
  private final class Forced: Drafter {
    private let inner: PredictionDrafter
    init(_ inner: PredictionDrafter) { self.inner = inner }
    func propose(after context: DraftContext, into draft: inout Draft) throws(RuntimeError) {
      draft.isForced = true
      try inner.propose(after: context, into: &draft)
    }
    var wantsStates: Bool { true }
    func take(states: UnsafePointer<Float>, rowCount: Int, at position: Int) {
      inner.take(states: states, rowCount: rowCount, at: position)
    }
    var fallback: (any Drafter)? { inner.fallback }
  }

  private static func forced(_ model: DraftModel) -> DraftChoice {
    DraftChoice { Forced(PredictionDrafter(model, contextLength: $0, memory: $1)) }
  }

  @Test(arguments: families, [0, 0.8] as [Float])
  func `A layer's drafts change no answer, in batches and alone`(
    family: String, temperature: Float
  ) throws {
    var generator = SeededGenerator(seed: 0xE1)
    var tiny = Self.tiny(family)
    tiny.matrixTypes = [.q8_0, .q4_0]
    let rig = try EngineRig(tiny)
    rig.contextLength = 400
    rig.draftRowCount = 9
    for round in 0..<3 {
      let count = [1, 2, 4][round]
      var request = rig.request(
        sequenceCount: count, maximumChunkLength: [13, 512, 40][round])
      let drafter = try DraftModel(predictorOf: rig.model, backend: .auto, request)
      #expect(drafter.byteCount > 0)
      drafter.reserve(in: &request)
      let engine = try Engine(
        try LanguageModel.open(rig.path), request,
        draft: round == 1 ? .model(drafter) : Self.forced(drafter))
      for _ in 0..<2 {
        var requests: [SequenceRequest] = []
        for number in 0..<4 {
          var next = EngineRig.randomRequest(longest: 300, mostTokens: 40, using: &generator)
          next.sampling.temperature = temperature
          if number % 2 == 1 { try next.constrain(using: &generator) }
          requests.append(next)
        }
        try rig.expectAnswersAlone(to: requests, of: engine)
      }
      #expect(round == 1 || engine.statistics().drafts.draftedCount > 0)
      #expect(engine.takeWarnings().isEmpty)
      engine.stop()
    }
  }

  /// A model whose layers add nothing to the embedding of a token, and a layer that passes it on: what it drafts is right.
  private static func passing(_ family: String) throws -> TinyGGUF {
    let tiny = tiny(family)
    var file = tiny.gguf(seed: 5)
    for index in file.tensors.indices {
      let name = file.tensors[index].name
      if [".attn_output.", ".ssm_out.", ".ffn_down"].contains(where: name.contains) {
        file.tensors[index].data = [UInt8](repeating: 0, count: file.tensors[index].data.count)
      }
      let one = withUnsafeBytes(of: Float(1)) { Array($0) }
      if name.hasSuffix("nextn.enorm.weight") {
        file.tensors[index].data = (0..<tiny.hiddenSize).flatMap { _ in one }
      }
      if name.hasSuffix("nextn.eh_proj.weight") {
        file.tensors[index].data = [UInt8](repeating: 0, count: file.tensors[index].data.count)
        for row in 0..<tiny.hiddenSize {
          let place = 4 * (row * 2 * tiny.hiddenSize + row)
          file.tensors[index].data.replaceSubrange(place..<place + 4, with: one)
        }
      }
    }
    return file
  }

  @Test(arguments: families, [0, 0.9] as [Float])
  func `A layer that knows what comes spares sweeps`(family: String, temperature: Float) throws {
    let rig = try EngineRig(bytes: Self.passing(family).bytes())
    rig.contextLength = 200
    let drafter = try DraftModel(
      predictorOf: rig.model, backend: .auto, rig.request(sequenceCount: 1))
    for seed in UInt64(0)..<4 {
      let asked = SequenceRequest(
        tokens: EngineRig.tokens(30, seed: seed), limit: 60,
        sampling: SamplingOptions(temperature: temperature, seed: seed), ignoresEnd: true)
      let expected = try rig.alone(asked)
      let session = try makeSession(
        ModelSource.open(rig.path), contextLength: 200, promptLength: 30,
        RunShape(threadCount: 2, spareByteCount: [0, 1 << 18, 1 << 20, nil][Int(seed)]),
        draftRowCount: 6)
      var options = GenerationOptions(
        prompt: asked.tokens, maximumTokenCount: asked.limit, sampling: asked.sampling,
        ignoresEnd: true)
      options.draft = Self.forced(drafter)
      let result = try TextGenerator(session: session, tokenizer: rig.model.tokenizer)
        .generate(options) { _ in }
      #expect(result.tokens == expected.tokens && result.text == expected.text)
      guard session.plan.draftRowCount == 6 else {
        #expect(seed < 3, "memory has room for all drafts")
        continue
      }
      let drafts = result.drafts
      #expect(drafts.acceptedCount * 10 > drafts.draftedCount * 8, "\(drafts)")
      // One draft at least is verified in each sweep but where a page group ends.
      #expect(result.sweepCount * 10 < result.sampledTokenCount * 7, "\(result.sweepCount)")
    }
  }

  @Test func `Where a layer is broken lookup drafts, which is said once`() throws {
    var file = Self.tiny("glm4moe").gguf(seed: 3)
    let index = try #require(
      file.tensors.firstIndex { $0.name.hasSuffix("nextn.eh_proj.weight") })
    file.tensors[index].data.replaceSubrange(0..<4, with: [0, 0, 0x80, 0x7F])
    let rig = try EngineRig(bytes: file.bytes())
    rig.contextLength = 200
    var request = rig.request(sequenceCount: 2)
    let drafter = try DraftModel(predictorOf: rig.model, backend: .auto, request)
    drafter.reserve(in: &request)
    let engine = try Engine(
      try LanguageModel.open(rig.path), request, draft: .model(drafter))
    var generator = SeededGenerator(seed: 0xE2)
    let requests = (0..<6).map { _ in
      var next = EngineRig.randomRequest(longest: 60, mostTokens: 30, using: &generator)
      (next.stops, next.ignoresEnd, next.limit) = (StopStrings([]), true, 20)
      return next
    }
    try rig.expectAnswersAlone(to: requests, of: engine)
    let warnings = engine.takeWarnings()
    #expect(warnings.count == 1 && warnings[0].contains("go on with lookup alone"), "\(warnings)")
    #expect(warnings[0].contains("nextn.eh_proj"))
  }

  @Test func `Files without such a layer, or with one that cannot draft, are refused by name`()
    throws
  {
    func refusal(_ file: TinyGGUF, budget: Int = 8 << 30) throws -> String {
      let rig = try EngineRig(bytes: file.bytes())
      var request = rig.request(sequenceCount: 1)
      request.budgetByteCount = budget
      do {
        _ = try DraftModel(predictorOf: rig.model, backend: .auto, request)
        return "none"
      } catch { return "\(error)" }
    }
    var file = Self.tiny("glm4moe").gguf(seed: 3)
    #expect(try refusal(file) == "none")
    #expect(try refusal(file, budget: 1 << 18).contains("is too small"))
    #expect(try refusal(TinyModel().gguf(seed: 3)).contains("no layer in it predicts"))
    file.tensors.removeAll { $0.name == "blk.3.nextn.hnorm.weight" }
    #expect(try refusal(file).contains("\"blk.3.nextn.hnorm.weight\" is missing"))
  }
}
