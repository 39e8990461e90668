import BlockIO
import CAllocationCount
import Glibc
import HostResources
import KVCache
import ModelFormat
import Runtime
import Synchronization
import TensorBasics
import TestSupport
import Testing
import WeightLoader

/// How sequences and engines end: cancelled at any moment, stopped, refused by the system, failed by a drive.
@Suite struct EngineEndTests {
  private static let long = SequenceRequest(
    tokens: Array(1...40), limit: 56, sampling: SamplingOptions(temperature: 0), ignoresEnd: true)

  @Test func `A sequence that is cancelled at any moment ends once, and its neighbour goes on`()
    throws
  {
    var generator = SeededGenerator(seed: 0xE4)
    let rig = try EngineRig()
    // With what is drafted from the answers before, these are over too soon; BrokenSweepTests have drafts.
    rig.draftRowCount = 0
    let expected = try rig.alone(Self.long)
    let engine = try rig.engine(sequenceCount: 3, maximumChunkLength: 8)
    var cancelledCount = 0
    for round in 0..<60 {
      let neighbour = try engine.open(Self.long, whenFull: .queue)
      let sequence = try engine.open(Self.long, whenFull: .queue)
      let delay = Int.random(in: 0...6000, using: &generator)
      let canceller = try TestThread {
        usleep(UInt32(delay))
        sequence.cancel()
        sequence.cancel()
      }
      var (endCount, tokens): (Int, [Int32]) = (0, [])
      while let event = sequence.next() {
        switch event {
        case .token(let id, _, _): tokens.append(id)
        case .finished(let finish):
          endCount += 1
          if finish.reason == .cancelled {
            cancelledCount += 1
          } else {
            #expect(tokens.count == 56)
          }
          #expect(finish.usage.answerTokenCount == tokens.count)
        case .failed(let error): Issue.record("\(error)")
        default: break
        }
      }
      canceller.join()
      #expect(endCount == 1, "round \(round)")
      #expect(expected.tokens.starts(with: tokens))
      #expect(throws: RuntimeError.self) { try sequence.append([1], limit: 1) }
      if round % 2 == 0 {
        #expect(neighbour.outcome() == expected, "round \(round)")
      }
    }
    #expect(cancelledCount > 10)
  }

  @Test func `Sequences that many threads open, drop and cancel leave an engine as it was`() throws
  {
    let rig = try EngineRig()
    let engine = try rig.engine(sequenceCount: 4)
    let expected = try rig.alone(Self.long)
    let threads = try (0..<4).map { number in
      try TestThread {
        var generator = SeededGenerator(seed: UInt64(number))
        for _ in 0..<40 {
          guard let sequence = try? engine.open(Self.long, whenFull: .queue) else { continue }
          switch Int.random(in: 0..<4, using: &generator) {
          case 0: sequence.cancel()
          case 1: _ = sequence.next(timeout: .microseconds(500))
          case 2:
            _ = sequence.next()
            sequence.cancel()
            while sequence.next() != nil {}
          default: break
          }
        }
      }
    }
    for thread in threads { thread.join() }
    #expect(try engine.open(Self.long, whenFull: .queue).outcome() == expected)
    engine.stop(.finishing)
    #expect(engine.statistics().openCount == 0 && engine.statistics().queuedCount == 0)
  }

  @Test func `An engine that finishes answers what was asked, one that stops cancels it`() throws {
    let rig = try EngineRig()
    let expected = try rig.alone(Self.long)
    for how in [Engine.Stop.finishing, .now] {
      let engine = try rig.engine(sequenceCount: 2)
      let idle = try engine.open(SequenceRequest(tokens: [1], limit: 0))
      _ = idle.outcome()
      let open = try (0..<5).map { _ in try engine.open(Self.long, whenFull: .queue) }
      // More than one may wait for the end.
      let other = try TestThread { engine.stop(how) }
      engine.stop(how)
      other.join()
      for sequence in open {
        let found = sequence.outcome()
        #expect(found.reason == .cancelled || found == expected)
        if how == .finishing { #expect(found == expected) }
      }
      #expect(throws: RuntimeError.self) { try engine.open(Self.long) }
    }
  }

  @Test func `Dropping everything in the midst of a sweep ends the engine`() throws {
    let rig = try EngineRig()
    for delay in [0, 100, 1000, 3000] {
      var engine: Engine? = try rig.engine(sequenceCount: 2)
      weak let dropped = engine
      var sequence = try engine?.open(Self.long)
      _ = try engine?.open(Self.long)
      engine = nil
      usleep(UInt32(delay))
      #expect(dropped != nil, "a sequence keeps its engine")
      _ = sequence?.next()
      sequence = nil
      #expect(dropped == nil)
    }
  }

  @Test func `An engine that the system refuses a thread says so, or computes with fewer`() async {
    await #expect(processExitsWith: .success) {
      let rig = try EngineRig()
      FaultPlan.begin(.startThread, 0..<1, errno: EAGAIN)
      #expect {
        _ = try rig.engine(sequenceCount: 1)
      } throws: { error in
        guard case .thread? = error as? RuntimeError else { return false }
        return "\(error)".contains("engine's thread")
      }
      FaultPlan.begin(.startThread, 1..<2, errno: EAGAIN)
      let engine = try rig.engine(sequenceCount: 2)
      _ = FaultPlan.end()
      #expect(engine.notes.contains { $0.contains("refuses threads") })
      #expect(try engine.open(Self.long).outcome() == rig.alone(Self.long))
    }
  }

  @Test func `A budget that is too small is refused with one that is not`() throws {
    let rig = try EngineRig()
    var request = rig.request(sequenceCount: 4)
    request.budgetByteCount = 1
    let error = #expect(throws: RuntimeError.self) { try Engine(rig.model, request) }
    guard case .budgetTooSmall(_, let minimum, _)? = error else {
      Issue.record("\(String(describing: error))")
      return
    }
    request.budgetByteCount = minimum.bytes
    let engine = try Engine(rig.model, request)
    #expect(try engine.open(Self.long).outcome().tokens.count == 56)
  }

  @Test(.enabled(if: allocation_count_is_available(), "a sanitizer keeps what is freed"))
  func `Thousands of sequences that come and go leave no memory behind`() async {
    await #expect(processExitsWith: .success) {
      let rig = try EngineRig()
      let engine = try rig.engine(sequenceCount: 8)
      func run(_ count: Int) throws {
        var open: [TokenSequence] = []
        for number in 0..<count {
          open.append(
            try engine.open(
              SequenceRequest(
                tokens: Array(repeating: Int32(number % 300), count: 1 + number % 30), limit: 3,
                ignoresEnd: true), whenFull: .queue))
          // Some are dropped before they have a place, some amid their answer, some after it.
          while open.count > 12 {
            let sequence = open.remove(at: number % 3 == 0 ? 6 : 0)
            if number % 3 == 1 { _ = sequence.outcome() }
          }
        }
      }
      // The heap grows to some 1.2 MB more by the 8,000th, and no further by the 17,000th.
      try run(8000)
      let before = ProcessMemory.residentByteCount
      try run(8000)
      let grown = ProcessMemory.residentByteCount - before
      #expect(grown < 1 << 20, "\(grown) bytes")
    }
  }

  // MARK: - Failures

  /// Token 9 has a row of the embedding that is not finite.
  private func poisonedRig() throws -> EngineRig {
    var model = TinyModel()
    model.tiesOutput = false
    var file = model.gguf(seed: 6)
    let table = try #require(file.tensors.firstIndex { $0.name == "token_embd.weight" })
    let rowByteCount = file.tensors[table].data.count / 320
    file.tensors[table].data[9 * rowByteCount + 1] = 0x7C
    file.tensors[table].data[9 * rowByteCount] = 1
    return try EngineRig(bytes: file.bytes())
  }

  @Test func `Values that are not finite end the sequence whose they are, and no other`() throws {
    var generator = SeededGenerator(seed: 0xE5)
    let rig = try poisonedRig()
    let engine = try rig.engine(sequenceCount: 6, maximumChunkLength: 16)
    var failureCount = 0
    for _ in 0..<6 {
      var requests = (0..<6).map { _ in
        EngineRig.randomRequest(
          longest: 50, mostTokens: 12, vocabularyCount: 300, using: &generator)
      }
      for index in requests.indices {
        requests[index].tokens = requests[index].tokens.map { $0 == 9 ? 10 : $0 }
        requests[index].stops = []
      }
      let place = Int.random(in: 0..<requests[2].tokens.count, using: &generator)
      requests[2].tokens[place] = 9
      let sequences = try requests.map { try engine.open($0, whenFull: .queue) }
      for (request, sequence) in zip(requests, sequences) {
        let (found, expected) = (sequence.outcome(), try rig.alone(request))
        if expected.error == nil {
          #expect(found == expected)
        } else {
          failureCount += 1
          #expect(found.error?.contains("the embedding of a token") == true)
        }
      }
    }
    #expect(failureCount >= 6)
  }

  @Test func `A drive that fails ends all sequences, and every call throws what it did`() throws {
    // Its weights take more reads than the drive answers, so that the first sweep fails however they are cut.
    var tiny = TinyModel()
    (tiny.hiddenSize, tiny.feedForwardLength) = (512, 1024)
    let file = TemporaryFile(tiny.gguf(seed: 1).bytes())
    defer { extendLifetime(file) }
    for healthyCount in [0, 3, 6, 9, 12] {
      let counter = Atomic(0)
      var hooks = DeviceHooks()
      hooks.filterResult = {
        counter.wrappingAdd(1, ordering: .relaxed).oldValue < healthyCount ? $0.result : -Int(EIO)
      }
      let device = try openDevice(
        paths: [file.path], backend: .auto, queueDepth: 32, hooks: hooks)
      let source = ModelSource(
        path: file.path, description: try ModelSource.describe(file.path), device: device)
      let model = try LanguageModel(source)
      var request = MemoryPlan.Request(
        budgetByteCount: 1, contextLength: 64, promptLength: 64, threadCount: 2)
      request.assumedProcessByteCount = 0
      request.sequenceCount = 2
      do { _ = try Engine(try LanguageModel.open(file.path), request) } catch {
        guard case .budgetTooSmall(_, let minimum, _) = error else { throw error }
        request.budgetByteCount = minimum.bytes
      }
      let engine: Engine
      do throws(RuntimeError) { engine = try Engine(model, request) } catch {
        // Norms and biases are read before the first sweep.
        #expect(healthyCount < 9 && "\(error)".contains("errno 5"))
        continue
      }
      #expect(engine.plan.residency.runs.count > healthyCount)
      let open = (0..<2).compactMap { _ -> TokenSequence? in
        do throws(RuntimeError) {
          return try engine.open(
            SequenceRequest(tokens: [1, 2, 3], limit: 50, ignoresEnd: true), whenFull: .queue)
        } catch {
          #expect("\(error)".contains("errno 5"))
          return nil
        }
      }
      for sequence in open {
        #expect(sequence.outcome().error?.contains("errno 5") == true)
        #expect(throws: RuntimeError.self) { try sequence.append([1], limit: 1) }
      }
      let error = #expect(throws: RuntimeError.self) {
        try engine.open(SequenceRequest(tokens: [1]))
      }
      #expect(error?.description == engine.failure?.description)
      engine.stop(.finishing)
    }
  }
}
