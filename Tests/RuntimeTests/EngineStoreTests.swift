import Glibc
import KVCache
import Kernels
import Runtime
import TensorBasics
import TestSupport
import Testing

/// Sequences that take their beginnings from a store, and leave their contexts there, answer as those without one.
@Suite struct EngineStoreTests {
  private let folder = TemporaryFolder()
  private var store: Engine.Store { Engine.Store(path: folder.path, byteLimit: 1 << 30) }

  private func makeRig(
    _ family: String = "llama", type: KeyValueType = .f16, contextLength: Int = 900
  ) throws -> EngineRig {
    let rig = try EngineRig(TinyFamilies.model(family))
    rig.contextLength = contextLength
    rig.keyValues.type = type
    // Sweeps are counted.
    rig.draftRowCount = 0
    return rig
  }

  private func request(_ tokens: [Int32], limit: Int = 12) -> SequenceRequest {
    SequenceRequest(
      tokens: tokens, limit: limit,
      sampling: SamplingOptions(temperature: 1, seed: UInt64(tokens.count)), ignoresEnd: true)
  }

  /// Families with windows and experts among them; budgets that keep all in memory, and that spill.
  @Test(
    arguments: [
      "llama", "gemma3", "qwen2moe", "llama relu", "qwen3next", "qwen35", "granitehybrid",
      "nemotron_h", "lfm2", "falcon-h1",
    ], KeyValueType.allCases)
  func `Sequences with stored beginnings answer as those that computed them`(
    family: String, type: KeyValueType
  ) throws {
    let rig = try makeRig(family, type: type)
    let shared = EngineRig.tokens(300, seed: 1)
    var requests: [SequenceRequest] = []
    for number in 0..<6 {
      let begin = shared.prefix([300, 300, 140, 260, 0, 299][number])
      requests.append(request(begin + EngineRig.tokens(40 + 70 * number, seed: UInt64(number) + 2)))
    }
    let expected = try requests.map { try rig.alone($0).tokens }
    let shape = KeyValueShape(
      rig.model.configuration, contextLength: rig.contextLength, type: type)
    for round in 0..<3 {
      rig.keyValues.budgetByteCount =
        round == 1
        ? KeyValuePlan.minimumByteCount(shape, sequenceCount: 3, chunkLength: 130) : nil
      let engine = try rig.engine(
        sequenceCount: 3, maximumChunkLength: [512, 130, 60][round], store: store)
      let open = try requests.map { try engine.open($0, whenFull: .queue) }
      var reused = 0
      for (number, sequence) in open.enumerated() {
        let found = EngineRig.take(sequence)
        sequence.cancel()
        #expect(found.tokens == expected[number], "\(family), round \(round), request \(number)")
        reused += found.reused
      }
      engine.stop()
      #expect(engine.takeWarnings().isEmpty)
      // In the first round the early ones may have left something for the others.
      #expect(round == 0 || reused >= 5 * 128, "\(family), round \(round): \(reused)")
    }
  }

  @Test(arguments: ["llama", "qwen3next", "granitehybrid"], KeyValueType.allCases)
  func `A conversation that another engine goes on with is the one that never stopped`(
    family: String, type: KeyValueType
  ) throws {
    let rig = try makeRig(family, type: type)
    let turns = (0..<4).map { EngineRig.tokens(90 + 60 * $0, seed: 20 + UInt64($0)) }
    let whole = try rig.engine(sequenceCount: 1)
    let first = try whole.open(request(turns[0]))
    var (path, expected) = (turns[0], [EngineRig.take(first).tokens])
    for turn in turns.dropFirst() {
      try first.append(turn, limit: 12)
      expected.append(EngineRig.take(first).tokens)
    }
    // The sampling is that of the first turn's request.
    let sampling = request(turns[0]).sampling
    for (number, turn) in turns.enumerated() {
      if number > 0 { path += turn }
      let engine = try rig.engine(sequenceCount: 2, store: store)
      var next = request(path)
      next.sampling = sampling
      let found = EngineRig.take(try engine.open(next))
      #expect(found.tokens == expected[number], "turn \(number)")
      if number > 0 {
        // An entry has a whole page group at least.
        let known = path.count - turn.count - 1
        let least = known < 128 ? 0 : known
        #expect(found.reused >= least, "turn \(number)")
      }
      path += found.tokens
      engine.stop()
      #expect(engine.takeWarnings().isEmpty)
    }
  }

  @Test func `Turns, cuts and forks of one engine leave what they have to the next`() throws {
    let rig = try makeRig()
    let (start, more) = (EngineRig.tokens(300, seed: 40), EngineRig.tokens(200, seed: 41))
    let paths: [[Int32]]
    do {
      let engine = try rig.engine(sequenceCount: 2, store: store)
      let sequence = try engine.open(request(start))
      let answer = EngineRig.take(sequence).tokens
      // Long enough between turns for the context to be kept.
      _ = engine.ready(timeout: .milliseconds(50))
      let fork = try sequence.fork(stream: 1)
      try sequence.truncate(to: 200)
      try sequence.append(more, limit: 5)
      let cut = EngineRig.take(sequence).tokens
      try fork.append(more, limit: 5)
      let forked = EngineRig.take(fork).tokens
      paths = [start.prefix(200) + more + cut, start + answer + more + forked]
      engine.stop()
      #expect(engine.takeWarnings().isEmpty)
    }
    for (number, path) in paths.enumerated() {
      let expected = try rig.alone(request(path)).tokens
      let engine = try rig.engine(sequenceCount: 1, store: store)
      let found = EngineRig.take(try engine.open(request(path)))
      #expect(found.tokens == expected, "path \(number)")
      #expect(found.reused >= (number == 0 ? 128 : 256), "path \(number): \(found.reused)")
    }
  }

  @Test func `What is damaged in the store is computed again, and said`() throws {
    let rig = try makeRig()
    let tokens = EngineRig.tokens(500, seed: 50)
    let expected = try rig.alone(request(tokens)).tokens
    do {
      let engine = try rig.engine(sequenceCount: 1, store: store)
      #expect(EngineRig.take(try engine.open(request(tokens))).tokens == expected)
    }
    let entry = try #require(folder.entries.first)
    var bytes = folder.read(entry)
    bytes[bytes.count / 2] ^= 1
    folder.write(entry, bytes)
    let engine = try rig.engine(sequenceCount: 2, store: store)
    let other = try engine.open(request(EngineRig.tokens(40, seed: 51)))
    let sequence = try engine.open(request(tokens))
    #expect(EngineRig.take(sequence).tokens == expected)
    _ = EngineRig.take(other)
    engine.stop()
    let warnings = engine.takeWarnings()
    #expect(warnings.count == 1 && warnings[0].contains("damaged"), "\(warnings)")
    let again = try rig.engine(sequenceCount: 1, store: store)
    // The prompt was read again together with what was answered: there are no logits between them.
    #expect(EngineRig.take(try again.open(request(tokens))).reused == 499)
  }

  @Test func `States that are damaged are computed again, and that is said`() throws {
    let rig = try makeRig("qwen35")
    let tokens = EngineRig.tokens(500, seed: 52)
    let expected = try rig.alone(request(tokens)).tokens
    do {
      let engine = try rig.engine(sequenceCount: 1, store: store)
      #expect(EngineRig.take(try engine.open(request(tokens))).tokens == expected)
    }
    let entry = try #require(folder.entries.first)
    var bytes = folder.read(entry)
    // Whichever states are used.
    let count = Int(bytes[3752])
    #expect(count >= 3)
    for index in 0..<count {
      let place = 3760 + 24 * index + 8
      let offset = bytes[place..<place + 8].reversed().reduce(0) { $0 << 8 | Int($1) }
      bytes[offset + 100] ^= 1
    }
    folder.write(entry, bytes)
    let engine = try rig.engine(sequenceCount: 1, store: store)
    #expect(EngineRig.take(try engine.open(request(tokens))) == (expected, 0))
    engine.stop()
    let warnings = engine.takeWarnings()
    #expect(warnings.count == 1 && warnings[0].contains("damaged"), "\(warnings)")
    let again = try rig.engine(sequenceCount: 1, store: store)
    #expect(EngineRig.take(try again.open(request(tokens))) == (expected, 500))
  }

  @Test(arguments: ["llama", "qwen3next", "granitehybrid"], KeyValueType.allCases)
  func `A prompt that was read before is answered without a sweep`(
    family: String, type: KeyValueType
  ) throws {
    let rig = try makeRig(family, type: type)
    // Quantised keys and values are kept in complete page groups.
    for count in type == .f16 ? [300, 256, 128] : [256] {
      let tokens = EngineRig.tokens(count, seed: 60 + UInt64(count))
      do {
        let engine = try rig.engine(sequenceCount: 1, store: store)
        _ = EngineRig.take(try engine.open(request(tokens)))
      }
      let engine = try rig.engine(sequenceCount: 2, store: store)
      for (number, temperature) in [Float(0), 1, 2].enumerated() {
        var next = request(tokens, limit: number == 0 ? 1 : 12)
        next.sampling = SamplingOptions(temperature: temperature, seed: 8, stream: UInt32(number))
        next.logProbabilityCount = 3
        let sequence = try engine.open(next)
        let found = EngineRig.take(sequence)
        #expect(found.tokens == (try rig.alone(next).tokens), "\(count) tokens, \(temperature)")
        #expect(found.reused == count)
        let sweepCount = engine.statistics().sweepCount
        #expect(sweepCount == 11 * number, "\(count) tokens: \(sweepCount)")
        sequence.cancel()
      }
      engine.stop()
      #expect(engine.takeWarnings().isEmpty)
    }
  }

  @Test func `Logits that were damaged, or of an answer that attends over less, are computed`()
    throws
  {
    let rig = try makeRig()
    let tokens = EngineRig.tokens(300, seed: 70)
    let expected = try rig.alone(request(tokens)).tokens
    do {
      let engine = try rig.engine(sequenceCount: 1, store: store)
      _ = EngineRig.take(try engine.open(request(tokens)))
    }
    rig.keyValues.policy = .recent(sinks: 0, recent: 128)
    let less = try rig.alone(request(tokens)).tokens
    do {
      let engine = try rig.engine(sequenceCount: 1, store: store)
      #expect(EngineRig.take(try engine.open(request(tokens))) == (less, 299))
    }
    rig.keyValues.policy = .full
    let entry = try #require(folder.entries.first)
    var bytes = folder.read(entry)
    let offset = bytes[4056..<4064].reversed().reduce(0) { $0 << 8 | Int($1) }
    bytes[offset + 100] ^= 1
    folder.write(entry, bytes)
    let engine = try rig.engine(sequenceCount: 1, store: store)
    #expect(EngineRig.take(try engine.open(request(tokens))).tokens == expected)
    #expect(engine.statistics().sweepCount == 12)
  }

  @Test func `Beyond a day's budget nothing is kept, which is said once`() throws {
    let rig = try makeRig()
    var store = store
    store.dailyWriteLimit = 1
    let expected = try (0..<3).map {
      try rig.alone(request(EngineRig.tokens(200, seed: 80 + UInt64($0)))).tokens
    }
    for round in 0..<2 {
      let engine = try rig.engine(sequenceCount: 1, store: store)
      for number in 0..<3 {
        let sequence = try engine.open(
          request(EngineRig.tokens(200, seed: 80 + UInt64(number))), whenFull: .queue)
        let found = EngineRig.take(sequence)
        #expect(found.tokens == expected[number])
        // What was kept before is used all the same.
        #expect(found.reused == (round == 1 && number == 0 ? 200 : 0))
        sequence.cancel()
        while engine.statistics().openCount > 0 { usleep(1000) }
      }
      engine.stop()
      let warnings = engine.takeWarnings()
      #expect(warnings.count == 1 && warnings[0].contains("were written today"), "\(warnings)")
      #expect(folder.entries.filter { $0.hasSuffix(".kv") }.count == 1)
    }
    // Yesterday does not count.
    for text in ["1 999999999999\n", "5 7\n", ""] {
      folder.write("written", Array(text.utf8))
      let directory = try KeyValueDirectory(
        path: folder.path, byteLimit: 1 << 30, dailyWriteLimit: 1)
      #expect(directory.mayWrite && directory.writtenTodayByteCount == 0)
    }
  }

  @Test func `Where what was written cannot be counted, nothing is, and that is said once`() throws
  {
    let rig = try makeRig()
    var store = store
    store.dailyWriteLimit = 1 << 30
    let path = folder.path + "/written"
    for text in ["x", "99999999999999999999 1", "5 -7\n", "1 2 3", nil] {
      if let text {
        folder.write("written", Array(text.utf8))
      } else {
        unlink(path)
        #expect(mkdir(path, 0o700) == 0)
      }
      let engine = try rig.engine(sequenceCount: 1, store: store)
      try answerTwo(engine)
      engine.stop()
      let warnings = engine.takeWarnings()
      #expect(warnings.count == 1 && warnings[0].hasPrefix(path + ": it is "), "\(warnings)")
      #expect(!folder.entries.contains { $0.hasSuffix(".kv") })
      guard text != nil else { continue }
      // What was damaged yesterday is of yesterday.
      var times = [timeval(tv_sec: time(nil) - 90_000, tv_usec: 0)]
      times.append(times[0])
      #expect(utimes(path, times) == 0)
      let directory = try KeyValueDirectory(
        path: folder.path, byteLimit: 1 << 30, dailyWriteLimit: 1)
      #expect(directory.mayWrite && directory.budgetProblem == nil)
    }
    // Nobody asked for a bound.
    let free = try KeyValueDirectory(path: folder.path, byteLimit: 1 << 30)
    #expect(free.mayWrite && free.budgetProblem == nil)
  }

  /// Has two prompts answered that a store could keep, one after the other has left.
  private func answerTwo(_ engine: Engine) throws {
    for seed in 90..<92 as Range<UInt64> {
      let sequence = try engine.open(
        request(EngineRig.tokens(200, seed: seed)), whenFull: .queue)
      _ = EngineRig.take(sequence)
      sequence.cancel()
      while engine.statistics().openCount > 0 { usleep(1000) }
    }
  }

  @Test func `A store that is too small for any entry says so once, and is not written to`() throws
  {
    let rig = try makeRig()
    for (byteLimit, isTooSmall) in [(4096, true), (1 << 20, false)] {
      var store = store
      store.byteLimit = byteLimit
      let engine = try rig.engine(sequenceCount: 1, store: store)
      try answerTwo(engine)
      engine.stop()
      let warnings = engine.takeWarnings()
      #expect(warnings.count == (isTooSmall ? 1 : 0), "\(warnings)")
      #expect(warnings.allSatisfy { $0.contains("--kv-store-limit") })
      #expect(folder.entries.contains { $0.hasSuffix(".kv") } == !isTooSmall)
      if isTooSmall { #expect(engine.statistics().keyValueBytesWritten == 0) }
    }
  }

  @Test func `Of a model that does not attend a store keeps nothing, which is said`() throws {
    let rig = try makeRig("mamba2")
    let tokens = EngineRig.tokens(300, seed: 60)
    let expected = try rig.alone(request(tokens)).tokens
    for _ in 0..<2 {
      let engine = try rig.engine(sequenceCount: 1, store: store)
      let found = EngineRig.take(try engine.open(request(tokens)))
      engine.stop()
      #expect(found.tokens == expected && found.reused == 0)
      #expect(engine.takeWarnings().filter { $0.contains("no layer attends") }.count == 1)
    }
    #expect(!folder.entries.contains { $0.hasSuffix(".kv") })
  }

  @Test func `A store that cannot be used is said, and answers go on`() throws {
    let rig = try makeRig()
    let tokens = EngineRig.tokens(300, seed: 60)
    folder.write("file", [1])
    let engine = try rig.engine(
      sequenceCount: 1, store: Engine.Store(path: folder.path + "/file/below"))
    let expected = try rig.alone(request(tokens)).tokens
    #expect(EngineRig.take(try engine.open(request(tokens))).tokens == expected)
    #expect(engine.takeWarnings().count == 1)
  }

  @Test func `A sequence that is not to use the store neither reads nor writes it`() throws {
    let rig = try makeRig()
    var request = request(EngineRig.tokens(300, seed: 70))
    request.usesStore = false
    for _ in 0..<2 {
      let engine = try rig.engine(sequenceCount: 1, store: store)
      #expect(EngineRig.take(try engine.open(request)).reused == 0)
      engine.stop()
      #expect(folder.entries.isEmpty)
    }
  }
}
