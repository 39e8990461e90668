import Grammar
import Runtime
import TensorBasics
import TestSupport
import Testing
import Tokenization

/// Answers under grammars: right, and the same ones alone, beside others, continued, forked and after an error.
@Suite struct ConstrainedAnswerTests {
  private static let schema = #"""
    {"type": "object", "properties": {"a": {"enum": [1, 22, "x"]}, "b": {"type": "boolean"}},
     "required": ["a", "b"], "additionalProperties": false}
    """#

  private func request(
    _ grammar: CompiledGrammar?, seed: UInt64, limit: Int = 80, ignoresEnd: Bool = false
  ) -> SequenceRequest {
    var request = SequenceRequest(
      tokens: [5, 6, 7, Int32(seed % 300)], limit: limit,
      sampling: SamplingOptions(temperature: 1, topK: 0, topP: 1, minP: 0, seed: seed),
      ignoresEnd: ignoresEnd)
    request.grammar = grammar
    return request
  }

  @Test(arguments: ["llama", "gemma3", "qwen2moe"])
  func `Answers are JSON of the schema, and end where nothing more may come`(
    family: String
  ) throws {
    let rig = try EngineRig(TinyFamilies.model(family))
    let engine = try rig.engine(sequenceCount: 4)
    let grammar = try CompiledGrammar(jsonSchema: Self.schema)
    let expected = [1, 22].map { "\($0)" } + ["\"x\""]
    for seed in UInt64(1)...12 {
      for ignoresEnd in [false, true] {
        let request = request(grammar, seed: seed, ignoresEnd: ignoresEnd)
        let sequence = try engine.open(request)
        let found = sequence.outcome()
        sequence.cancel()
        #expect(found == (try rig.alone(request)), "seed \(seed)")
        // White space may take all the room that there is.
        guard found.reason == .stop else { continue }
        let text = String(decoding: found.text.filter { $0 > 0x20 }, as: UTF8.self)
        let answers = expected.flatMap { a in
          ["true", "false"].map { "{\"a\":\(a),\"b\":\($0)}" }
        }
        #expect(answers.contains(text), "seed \(seed): \(text)")
      }
    }
  }

  @Test func `The end is drawn only where the answer may end, and no other token without a text`()
    throws
  {
    let rig = try EngineRig()
    let engine = try rig.engine(sequenceCount: 1)
    let ends = rig.model.tokenizer.endTokens
    var request = request(try CompiledGrammar(gbnf: "root ::= [ab]{3,6}"), seed: 0)
    // All that is not the end is made improbable, and the end's own spelling tempting.
    request.sampling.logitBias = ends.map { TokenBias(token: $0, bias: 1000) }
    let sequence = try engine.open(request)
    let found = sequence.outcome()
    #expect(found.reason == .stop && (3...4).contains(found.text.count))
    #expect(found.text.allSatisfy { "ab".utf8.contains($0) })
    #expect(found.tokens.allSatisfy { !ends.contains($0) })
  }

  @Test func `An answer goes on where it was, in the next turn, a fork, or another sequence`()
    throws
  {
    let rig = try EngineRig()
    let engine = try rig.engine(sequenceCount: 3)
    let grammar = try CompiledGrammar(gbnf: "root ::= [ab]{30} \"c\"{5}")
    for seed in UInt64(1)...8 {
      var whole = request(grammar, seed: seed)
      (whole.sampling.presencePenalty, whole.sampling.frequencyPenalty) = (0.3, 0.7)
      let expected = try rig.alone(whole)
      #expect(String(decoding: expected.text.suffix(5), as: UTF8.self) == "ccccc")
      var part = whole
      part.limit = 7
      let sequence = try engine.open(part)
      let first = sequence.outcome().tokens
      let fork = try sequence.fork(stream: whole.sampling.stream)
      // No tokens: the same answer goes on.
      try sequence.append([], limit: 80)
      #expect(first + sequence.outcome().tokens == expected.tokens, "seed \(seed)")
      try fork.append([], limit: 80)
      #expect(first + fork.outcome().tokens == expected.tokens, "seed \(seed)")
      // Cut in the middle of the answer, and answered again from there.
      try sequence.truncate(to: whole.tokens.count + 3)
      try sequence.append([], limit: 80)
      #expect(first.prefix(3) + sequence.outcome().tokens == expected.tokens, "seed \(seed)")
      sequence.cancel()
      // With tokens another answer begins.
      try fork.append([9], limit: 80)
      let next = fork.outcome()
      #expect(String(decoding: next.text.suffix(5), as: UTF8.self) == "ccccc")
      fork.cancel()
      var resumed = whole
      (resumed.tokens, resumed.answeredCount) = (whole.tokens + first, first.count)
      let continued = try engine.open(resumed)
      #expect(first + continued.outcome().tokens == expected.tokens, "seed \(seed)")
      continued.cancel()
    }
  }

  @Test(arguments: [1, 2], [1, 4])
  func `Budgets, threads and neighbours change no token`(threads: Int, count: Int) throws {
    let rig = try EngineRig()
    rig.threadCount = threads
    let engine = try rig.engine(sequenceCount: count, maximumChunkLength: 3)
    let reference = try EngineRig()
    var generator = SeededGenerator(seed: 77)
    var requests: [SequenceRequest] = []
    for _ in 0..<16 {
      var request = EngineRig.randomRequest(longest: 20, mostTokens: 12, using: &generator)
      try request.constrain(using: &generator)
      requests.append(request)
    }
    try reference.expectAnswersAlone(to: requests, of: engine)
  }

  @Test func `A grammar that leads nowhere ends its own sequence alone`() throws {
    let rig = try EngineRig()
    let engine = try rig.engine(sequenceCount: 2)
    let neighbour = try engine.open(request(nil, seed: 4, limit: 20, ignoresEnd: true))
    // An end that no token is allowed to be, where nothing else may come.
    let empty = try CompiledGrammar(gbnf: "root ::= \"\"")
    let sequence = try engine.open(request(empty, seed: 1, ignoresEnd: true))
    #expect(sequence.outcome().error == "\(RuntimeError.sequence(.noTokenFits))")
    #expect(
      neighbour.outcome() == (try rig.alone(request(nil, seed: 4, limit: 20, ignoresEnd: true))))
    let ended = try engine.open(request(empty, seed: 1)).outcome()
    #expect(ended.tokens.isEmpty && ended.reason == .stop)
  }

  @Test func `An identical prompt is answered from stored logits under any grammar`() throws {
    let rig = try EngineRig()
    rig.contextLength = 300
    let folder = TemporaryFolder()
    let engine = try rig.engine(
      sequenceCount: 2, store: Engine.Store(path: folder.path + "/kv"))
    let prompt = (0..<150).map { Int32(1 + $0 * 7 % 300) }
    let texts = [nil, "root ::= [ab]{9}", #"root ::= "x" [0-9]+ "y""#, #"root ::= """#]
    for round in 0..<2 {
      for (number, text) in texts.enumerated() {
        var request = request(
          try text.map { try CompiledGrammar(gbnf: $0) }, seed: UInt64(number), limit: 20)
        request.tokens = prompt
        let sequence = try engine.open(request)
        #expect(sequence.outcome() == (try rig.alone(request)), "\(round), \(text ?? "")")
        sequence.cancel()
        // One that fails at once leaves its place.
        request.grammar = try CompiledGrammar(gbnf: "root ::= \"\"")
        request.ignoresEnd = true
        #expect(try engine.open(request).outcome().error != nil)
      }
    }
  }

  @Test func `An engine that was planned without grammars takes none`() throws {
    let rig = try EngineRig()
    var plan = rig.request(sequenceCount: 1)
    plan.usesGrammars = false
    let engine = try Engine(rig.model, plan)
    #expect(throws: RuntimeError.self) {
      try engine.open(request(try CompiledGrammar(gbnf: "root ::= \"a\""), seed: 1))
    }
    #expect(try engine.open(request(nil, seed: 1, limit: 3)).outcome().error == nil)
  }
}
