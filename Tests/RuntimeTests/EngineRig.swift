import Grammar
import HostResources
import KVCache
import Runtime
import TensorBasics
import TestSupport
import Testing
import Tokenization

/// A tiny model, and what it answers where nothing else is answered.
final class EngineRig {
  /// Where the model is.
  let path: String
  private let file: TemporaryFile?
  let model: LanguageModel
  var threadCount = 2
  var contextLength = 96
  var keyValues = KeyValueOptions()
  /// Drafts of a sweep; answers alone are drawn without any.
  var draftRowCount = 6
  /// States are kept often, whatever they take.
  var stateDistance = 128

  init(_ tiny: TinyModel = TinyModel(), seed: UInt64 = 3) throws {
    let file = TemporaryFile(tiny.gguf(seed: seed).bytes())
    (self.file, path) = (file, file.path)
    model = try LanguageModel.open(path)
  }

  init(bytes: [UInt8]) throws {
    let file = TemporaryFile(bytes)
    (self.file, path) = (file, file.path)
    model = try LanguageModel.open(path)
  }

  private init(folder: String) throws {
    (file, path) = (nil, folder)
    model = try LanguageModel.open(path)
  }

  /// A tiny model of the family; of one of which there are no GGUF files, a folder.
  static func of(_ family: String) throws -> EngineRig {
    try ["gla", "based"].contains(family)
      ? EngineRig(folder: FolderTests.folder(family)) : EngineRig(TinyFamilies.model(family))
  }

  func request(sequenceCount: Int, maximumChunkLength: Int? = nil) -> MemoryPlan.Request {
    var request = MemoryPlan.Request(
      budgetByteCount: 8 << 30, contextLength: contextLength, promptLength: contextLength,
      threadCount: threadCount, maximumChunkLength: maximumChunkLength)
    request.assumedProcessByteCount = 0
    request.sequenceCount = sequenceCount
    request.usesGrammars = true
    request.keyValues = keyValues
    request.draftRowCount = draftRowCount
    (request.stateDistance, request.stateShare) = (stateDistance, 1000)
    return request
  }

  func engine(
    sequenceCount: Int, maximumChunkLength: Int? = nil, store: Engine.Store? = nil
  ) throws -> Engine {
    // A model of its own: each engine's device is its own.
    try Engine(
      try LanguageModel.open(path),
      request(sequenceCount: sequenceCount, maximumChunkLength: maximumChunkLength), store: store)
  }

  /// What a sequence brings.
  struct Outcome: Equatable {
    var tokens: [Int32] = []
    var text: [UInt8] = []
    var reason: FinishReason?
    var stop: String?
    var error: String?
  }

  /// The answer to `request` alone.
  func alone(_ request: SequenceRequest) throws -> Outcome {
    var alone = self.request(sequenceCount: 1)
    alone.draftRowCount = 0
    let session = try Session(model.source, model.configuration, alone)
    var outcome = Outcome()
    var options = GenerationOptions(
      prompt: request.tokens, maximumTokenCount: request.limit, sampling: request.sampling,
      ignoresEnd: request.ignoresEnd)
    (options.stops, options.grammar) = (request.stops, request.grammar)
    do {
      let result = try TextGenerator(session: session, tokenizer: model.tokenizer)
        .generate(options) { outcome.text += $0 }
      (outcome.tokens, outcome.reason) = (result.tokens, result.finishReason)
    } catch { outcome.error = "\(error)" }
    return outcome
  }

  /// Has `engine` answer all requests at once, and expects of each what it is answered alone.
  func expectAnswersAlone(to requests: [SequenceRequest], of engine: Engine) throws {
    let open = try requests.map { try engine.open($0, whenFull: .queue) }
    for (request, sequence) in zip(requests, open) {
      var found = sequence.outcome(stops: request.stops)
      sequence.cancel()
      found.stop = nil
      #expect(found == (try alone(request)))
    }
  }

  /// Random tokens.
  static func tokens(_ count: Int, seed: UInt64) -> [Int32] {
    var generator = SeededGenerator(seed: seed)
    return (0..<count).map { _ in Int32.random(in: 0..<320, using: &generator) }
  }

  /// The tokens of a sequence's turn, and how many of its context were not computed.
  static func take(_ sequence: TokenSequence) -> (tokens: [Int32], reused: Int) {
    var (tokens, reused) = ([Int32](), -1)
    while let event = sequence.next() {
      switch event {
      case .token(let id, _, _): tokens.append(id)
      case .finished(let finish): reused = finish.usage.reusedTokenCount
      case .failed(let error): Issue.record("\(error)")
      case .queued, .reading: break
      }
    }
    return (tokens, reused)
  }

  /// Random prompts, limits and ways to draw.
  static func randomRequest(
    longest: Int, mostTokens: Int, vocabularyCount: Int32 = 320,
    using generator: inout SeededGenerator
  ) -> SequenceRequest {
    let length = Int.random(in: 1...longest, using: &generator)
    return SequenceRequest(
      tokens: (0..<length).map { _ in Int32.random(in: 0..<vocabularyCount, using: &generator) },
      limit: Int.random(in: 1...mostTokens, using: &generator),
      sampling: SamplingOptions(
        temperature: [0, 0.7, 1.5].randomElement(using: &generator)!,
        topK: [0, 5, 40].randomElement(using: &generator)!,
        repetitionPenalty: [1, 1.2].randomElement(using: &generator)!,
        seed: generator.next(), stream: UInt32.random(in: 0...3, using: &generator)),
      stops: StopStrings([["a"], [], ["th", "xy"], ["zzzz"]].randomElement(using: &generator)!),
      ignoresEnd: Bool.random(using: &generator))
  }
}

extension SequenceRequest {
  /// Grammars that tiny models can follow: finite, endless, and of characters of several bytes.
  private static let grammars = [
    #"root ::= "yes" | "no" | [a-f]{2,9}"#, "root ::= (\"(\" root \")\")? [x-zé]",
    "root ::= [a-zäöü ]* \".\"?", #"root ::= "{" ([a-c] ":" [0-9]+ ("," | "}"))*"#,
  ]

  /// Gives it a grammar, a bias and penalties, or some of them.
  mutating func constrain(using generator: inout SeededGenerator) throws {
    if Int.random(in: 0..<4, using: &generator) > 0 {
      let text = Self.grammars.randomElement(using: &generator)!
      grammar = try CompiledGrammar(gbnf: text)
    }
    if Bool.random(using: &generator) {
      for _ in 0..<3 {
        sampling.logitBias.append(
          TokenBias(
            token: Int32.random(in: 0..<320, using: &generator),
            bias: Float.random(in: -5...5, using: &generator)))
      }
    }
    sampling.presencePenalty = [0, 0.5].randomElement(using: &generator)!
    sampling.frequencyPenalty = [0, 1.25, -0.5].randomElement(using: &generator)!
  }
}

extension TokenSequence {
  /// Takes all events of the turn.
  func outcome(stops: StopStrings = []) -> EngineRig.Outcome {
    var outcome = EngineRig.Outcome()
    var text = AnswerText(engine.tokenizer, stops: stops)
    while let event = next() {
      text.append(event, to: &outcome.text)
      switch event {
      case .queued, .reading: break
      case .token(let id, _, _): outcome.tokens.append(id)
      case .finished(let finish): (outcome.reason, outcome.stop) = (finish.reason, finish.stop)
      case .failed(let error): outcome.error = "\(error)"
      }
    }
    return outcome
  }
}

/// Does something on a thread of its own.
final class TestThread: BackgroundWork {
  private let work: () -> Void
  private var thread: BackgroundThread?

  init(_ work: @escaping () -> Void) throws {
    self.work = work
    thread = try BackgroundThread(self)
  }

  func run() { work() }
  func join() { thread?.join() }
}
