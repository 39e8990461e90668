import CommandLineSupport
import KVCache
import ModelFormat
import Runtime
import TensorBasics
import WeightLoader

// How many prompts of a file are answered at the same time.
extension Run {
  /// Answers at the same time where memory is enough: more rows than that take the processors longer than they spare the
  /// drive.
  private static let usualSequenceCount = 32

  /// An engine with room for as many answers at the same time as were asked for, or as memory allows.
  func makeEngine(_ entries: [PromptEntry], _ model: LanguageModel) throws -> Engine {
    let longest = entries.lazy.map(\.length).max() ?? 1
    var request = memoryRequest(
      model, contextLength: min(resources.context ?? model.configuration.contextLength, longest),
      promptLength: entries.lazy.map(\.promptCount).max() ?? 1,
      callerByteCount: callerByteCount(entries))
    request.usesGrammars = entries.contains(where: \.hasGrammar)
    if let count = prompts.sequences {
      request.sequenceCount = min(count, entries.count)
    } else {
      request.sequenceCount = Self.sequenceCount(entries, request, model)
    }
    let draft = try drafts.plan(&request, for: model, resources)
    let engine: Engine
    while true {
      do throws(RuntimeError) {
        engine = try Engine(model, request, store: store.engineStore, draft: draft)
        break
      } catch {
        // What the engine itself takes was not counted before; and an attempt leaves the process a little larger.
        guard case .budgetTooSmall(_, _, let fitting?) = error, prompts.sequences == nil,
          request.sequenceCount > 1
        else { throw error }
        request.sequenceCount = min(fitting, request.sequenceCount - 1)
      }
    }
    try drafts.expectRoom(in: engine.plan)
    return engine
  }

  /// The most sequences whose keys and values have room in memory, of one that is the longest and others of mean length;
  /// at least 1.
  ///
  /// The longest counts for half of the memory at most: what of it has no room then goes to a file, as all that exceeds
  /// memory does when it is answered alone, and each reading of it serves the tokens of all.
  private static func sequenceCount(
    _ entries: [PromptEntry], _ request: MemoryPlan.Request, _ model: LanguageModel
  ) -> Int {
    let sizes = entries.map {
      KeyValueShape(
        model.configuration, contextLength: min(request.contextLength, $0.length),
        type: request.keyValues.type
      ).retainedByteCount
    }
    let longest = sizes.max() ?? 0
    let mean = (sizes.reduce(0, +) - longest) / max(1, sizes.count - 1)
    var plan: MemoryPlan?
    for count in stride(from: min(usualSequenceCount, entries.count), to: 1, by: -1) {
      var request = request
      request.sequenceCount = count
      plan = try? MemoryPlan.make(
        request, source: model.source, configuration: model.configuration)
      guard let room = plan?.keyValues else { continue }
      let needed = min(longest, room.retainedByteCount / 2) + (count - 1) * mean
      if !room.hasTier || needed <= room.retainedByteCount { return count }
    }
    if entries.count > 1 { warnOfOneAtATime(plan, needed: longest + mean) }
    return 1
  }

  /// - Parameter plan: for two answers at the same time; nil = there is none.
  private static func warnOfOneAtATime(_ plan: MemoryPlan?, needed: Int) {
    let reason =
      if let room = plan?.keyValues.retainedByteCount {
        "two would need up to \(ByteCount(needed)) for keys and values, which have \(ByteCount(room))"
      } else { "memory is too small for two" }
    Terminal.warn(
      "one prompt is answered at a time: \(reason); more --ram (and --kv-ram, if given), a lower "
        + "--max-tokens or max_tokens, or --kv-type q8 makes room for more, and --sequences 8 answers 8 at a "
        + "time whatever has to go to a file")
  }

  /// What the lines under way take in this process, and the one that is read.
  private func callerByteCount(_ entries: [PromptEntry]) -> Int {
    let count = min(entries.count, prompts.sequences ?? Self.usualSequenceCount)
    let longest = entries.lazy.map(\.promptCount).max() ?? 0
    let longestLine = entries.lazy.map(\.place.count).max() ?? 0
    return count * (8 * longest + MemoryLayout<PromptLine>.stride + 64)
      + Self.readingFactor * longestLine
  }

  /// Bytes that a byte of a line takes while it is read: text, JSON and tokens.
  private static let readingFactor = 8
}
