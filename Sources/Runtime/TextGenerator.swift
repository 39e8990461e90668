import BlockIO
public import Grammar
public import KVCache
import TensorBasics
public import Tokenization
import WeightLoader

/// What to generate.
public struct GenerationOptions: Sendable {
  /// Tokens of the prompt, BOS included where the model wants it.
  public var prompt: [Int32]
  /// Most tokens of the answer, which ends earlier where the context is full.
  public var maximumTokenCount: Int
  public var sampling: SamplingOptions
  /// What the answer must be. See ``TextGenerator/grammarByteCount(vocabularyCount:)`` for its memory.
  public var grammar: CompiledGrammar?
  /// Texts that end the answer, which are not part of it.
  public var stops = StopStrings([])
  /// Whether to continue past end-of-generation tokens.
  public var ignoresEnd: Bool
  /// Where drafts of tokens come from, which change the answer's speed and nothing else.
  ///
  /// There are none in a session that was not planned for some (``MemoryPlan/Request/draftRowCount``).
  public var draft = DraftChoice.lookup
  /// Pairs of (token, log-probability) to report per position; 0 = none.
  public var logProbabilityCount: Int
  /// Report log-probabilities after prompt position i alone, instead of after each generated token.
  public var logProbabilityPromptPosition: Int?
  /// Report log-probabilities after every prompt position, instead of after each generated token.
  public var reportsWholePrompt: Bool

  public init(
    prompt: [Int32], maximumTokenCount: Int = 512, sampling: SamplingOptions = SamplingOptions(),
    ignoresEnd: Bool = false, logProbabilityCount: Int = 0,
    logProbabilityPromptPosition: Int? = nil, reportsWholePrompt: Bool = false
  ) {
    self.reportsWholePrompt = reportsWholePrompt
    self.prompt = prompt
    self.maximumTokenCount = maximumTokenCount
    self.sampling = sampling
    self.ignoresEnd = ignoresEnd
    self.logProbabilityCount = logProbabilityCount
    self.logProbabilityPromptPosition = logProbabilityPromptPosition
  }
}

/// Why an answer ended.
public enum FinishReason: String, Sendable {
  /// The model ended it, with an end-of-generation token, or it came to a text that was to end it.
  case stop
  /// It reached the number of tokens that was asked for.
  case length
  /// The context is full.
  case context
  /// The caller stopped it.
  case cancelled
}

/// What was generated and how long it took.
public struct GenerationResult: Sendable {
  /// Generated tokens, without the end token.
  public internal(set) var tokens: [Int32] = []
  /// Their text; whole UTF-8 characters.
  public internal(set) var text: [UInt8] = []
  /// See ``GenerationOptions/logProbabilityCount``.
  public internal(set) var topLogProbabilities: [[(token: Int32, logProbability: Double)]] = []
  /// Why it ended.
  public internal(set) var finishReason = FinishReason.stop
  /// Monotonic times: before the prompt, at the first token, at the last.
  public internal(set) var startNanoseconds: Int = 0
  public internal(set) var firstTokenNanoseconds: Int?
  public internal(set) var lastTokenNanoseconds: Int = 0
  /// Bytes the drive had delivered at the first token and at the last.
  public internal(set) var bytesAtFirstToken = 0
  public internal(set) var bytesAtLastToken = 0
  /// Time with at least one read submitted and not yet taken, at the first token and at the last.
  public internal(set) var driveNanosecondsAtFirstToken = 0
  public internal(set) var driveNanosecondsAtLastToken = 0
  /// Bytes of keys and values read at the first token and at the last.
  public internal(set) var keyValueBytesAtFirstToken = 0
  public internal(set) var keyValueBytesAtLastToken = 0
  public internal(set) var promptTokenCount = 0
  /// Tokens of the prompt whose keys and values were there before.
  public internal(set) var reusedTokenCount = 0

  /// Whether the caller stopped it.
  public var wasInterrupted: Bool { finishReason == .cancelled }

  public var prefillTokensPerSecond: Double? {
    guard let first = firstTokenNanoseconds, first > startNanoseconds else { return nil }
    return Double(promptTokenCount - reusedTokenCount) * 1e9 / Double(first - startNanoseconds)
  }

  /// (n − 1) ÷ (last − first token's time), over ``sampledTokenCount``.
  public var decodeTokensPerSecond: Double? {
    guard let first = firstTokenNanoseconds, sampledTokenCount > 1, lastTokenNanoseconds > first
    else { return nil }
    return Double(sampledTokenCount - 1) * 1e9 / Double(lastTokenNanoseconds - first)
  }

  /// Tokens drawn, a final end token included.
  public internal(set) var sampledTokenCount = 0

  /// Sweeps that gave ``sampledTokenCount`` tokens, that of the prompt's end being one.
  public internal(set) var sweepCount = 0
  /// Drafts that were verified in them.
  public internal(set) var drafts = DraftCounts()

  /// Bytes read for each decoded token.
  public var bytesPerToken: Double {
    sampledTokenCount > 1
      ? Double(bytesAtLastToken - bytesAtFirstToken) / Double(sampledTokenCount - 1) : 0
  }

  /// Share of the time between the first token and the last in which the drive had something to read; nil where there
  /// is none.
  public var driveDuty: Double? {
    guard let first = firstTokenNanoseconds, lastTokenNanoseconds > first else { return nil }
    return min(
      1,
      Double(driveNanosecondsAtLastToken - driveNanosecondsAtFirstToken)
        / Double(lastTokenNanoseconds - first))
  }

  /// Bytes read for each second between the first token and the last.
  public var driveBytesPerSecond: Double? {
    guard let first = firstTokenNanoseconds, lastTokenNanoseconds > first else { return nil }
    return Double(bytesAtLastToken - bytesAtFirstToken) * 1e9
      / Double(lastTokenNanoseconds - first)
  }

  /// Bytes of keys and values read for each decoded token.
  public var keyValueBytesPerToken: Double {
    sampledTokenCount > 1
      ? Double(keyValueBytesAtLastToken - keyValueBytesAtFirstToken)
        / Double(sampledTokenCount - 1) : 0
  }
}

/// Reads a prompt and continues it.
public struct TextGenerator {
  public let session: Session
  private let tokenizer: Tokenizer

  public init(session: Session, tokenizer: Tokenizer) {
    self.session = session
    self.tokenizer = tokenizer
  }

  /// Memory of the masks of a grammar: part of ``MemoryPlan/Request/callerByteCount`` where there is one.
  public static func grammarByteCount(vocabularyCount: Int) -> Int {
    TokenMasks.byteCount(vocabularyCount: vocabularyCount)
      + GrammarConstraint.byteCount(vocabularyCount: vocabularyCount)
  }

  /// Called if stored keys and values of the prompt could not be read, before they are computed again.
  public var onLostPrefix: ((KeyValueError) -> Void)?

  /// Called if the model that drafts tokens failed, without which the answer goes on.
  public var onLostDrafts: ((RuntimeError) -> Void)?

  /// Generates until an end token, `maximumTokenCount`, or the session's cancellation.
  ///
  /// The session may hold keys and values of the prompt's first tokens, which are not computed again. If
  /// these turn out to be damaged before the first token is drawn, generation starts over without them; later,
  /// it ends with an error.
  ///
  /// - Parameter emit: text as it is generated, in whole UTF-8 characters.
  /// - Throws: ``RuntimeError``. A cancellation is not an error; the result says that it was cancelled.
  public func generate(
    _ options: GenerationOptions, emit: (UnsafeBufferPointer<UInt8>) -> Void
  ) throws(RuntimeError) -> GenerationResult {
    var answer = makeAnswer(options)
    do throws(RuntimeError) {
      do throws(RuntimeError) {
        try run(&answer, emit)
      } catch {
        guard case .keyValues(let loss) = error, loss.unreadablePath != nil,
          answer.result.reusedTokenCount > 0, answer.result.sampledTokenCount == 0
        else { throw error }
        onLostPrefix?(loss)
        session.reset()
        let start = answer.result.startNanoseconds
        answer = makeAnswer(options)
        answer.note { $0.startNanoseconds = start }
        try run(&answer, emit)
      }
    } catch {
      guard case .interrupted = error else { throw error }
      answer.cancel()
    }
    if session.plan.draftRowCount > 0, options.draft.makeDrafter != nil {
      session.draftMemory.history.append(answer.result.tokens)
    }
    return answer.result
  }

  private func makeAnswer(_ options: GenerationOptions) -> Answer {
    var answer = Answer(
      options, tokenizer, vocabularyCount: session.vocabularyCount,
      contextLength: session.plan.contextLength)
    answer.note { $0.reusedTokenCount = session.position }
    return answer
  }

  private func run(
    _ answer: inout Answer, _ emit: (UnsafeBufferPointer<UInt8>) -> Void
  ) throws(RuntimeError) {
    var emitted = 0
    let drafts =
      session.plan.draftRowCount > 0
      ? SequenceDrafts(
        answer.options.draft, contextLength: session.plan.contextLength,
        memory: session.draftMemory) : nil
    if let drafts, drafts.wantsStates {
      session.onStates = { drafts.take(states: $0, rowCount: $1, at: $2) }
    }
    defer { session.onStates = nil }
    var gate = DraftGate(isStreamed: session.plan.residency.streamedByteCount > 0)
    let (start, readCount) = (monotonicNanoseconds(), session.position)
    var logits = try prefill(&answer)
    let promptCount = session.position - readCount
    gate.notePrompt(
      rowCount: promptCount, sweepCount: session.sweepCount(promptCount),
      nanoseconds: monotonicNanoseconds() - start)
    var (sweepNanoseconds, sweepRowCount) = (0, 0)
    while true {
      let tokenCount = try draw(&answer, logits, drafts)
      if sweepRowCount > 0 {
        gate.note(
          rowCount: sweepRowCount, tokenCount: tokenCount, nanoseconds: sweepNanoseconds,
          draftNanoseconds: drafts?.lastNanoseconds ?? 0)
      }
      noteBytes(&answer)
      let text = answer.result.text
      if text.count > emitted {
        text.withUnsafeBufferPointer { emit(UnsafeBufferPointer(rebasing: $0[emitted...])) }
        emitted = text.count
      }
      guard let token = answer.next else { return }
      propose(answer, drafts, &gate)
      let start = monotonicNanoseconds()
      logits = try decode(token, drafts, continues: answer.leftCount > 1)
      (sweepNanoseconds, sweepRowCount) = (
        monotonicNanoseconds() - start, 1 + (drafts?.rows.tokens.count ?? 0)
      )
    }
  }

  /// Draws a token from the first row of logits, and one from each further row whose draft was right.
  ///
  /// - Returns: how many were drawn.
  private func draw(
    _ answer: inout Answer, _ logits: UnsafeMutableBufferPointer<Float>,
    _ drafts: SequenceDrafts?
  ) throws(RuntimeError) -> Int {
    var (row, drawnCount) = (0, 0)
    defer {
      if let drafts, !drafts.rows.isEmpty { session.keepDrafts(drafts.rows, to: row) }
      drafts?.note(lastRight: row)
      answer.note { result in
        result.sweepCount += 1
        result.drafts = drafts?.counts ?? DraftCounts()
      }
    }
    let count = session.vocabularyCount
    drafts?.look(at: UnsafeBufferPointer(logits), vocabularyCount: count, after: answer.path)
    drafts?.remember()
    while true {
      try answer.draw(
        UnsafeMutableBufferPointer(rebasing: logits[row * count..<(row + 1) * count]))
      drawnCount += 1
      guard let token = answer.next, let next = drafts?.rows.child(ofRow: row, token) else {
        return drawnCount
      }
      row = next
    }
  }

  /// Has drafts made of the tokens after the next.
  private func propose(
    _ answer: Answer, _ drafts: SequenceDrafts?, _ gate: inout DraftGate
  ) {
    guard drafts != nil else { return }
    let room = session.draftRoom.limited(to: answer.leftCount - 1)
    drafts?.propose(
      after: DraftContext(
        path: answer.path, answerStart: answer.options.prompt.count,
        sampling: answer.options.sampling),
      room, gate)
    if let failure = drafts?.takeFailure() { onLostDrafts?(failure) }
    drafts?.choose(by: &gate, room)
  }

  /// Computes the logits after the next token and after drafts; where these cannot be computed, after the token alone.
  private func decode(
    _ token: Int32, _ drafts: SequenceDrafts?, continues: Bool
  ) throws(RuntimeError) -> UnsafeMutableBufferPointer<Float> {
    let position = session.position
    session.stream.idleWork = drafts
    defer { session.stream.idleWork = nil }
    do throws(RuntimeError) {
      guard let rows = drafts?.rows, !rows.isEmpty else {
        return try session.decode(token, continues: continues)
      }
      return try session.decode(token, drafts: rows, continues: continues)
    } catch {
      // A draft that the model would never draw may have values that are not finite.
      guard case .notFinite = error, drafts?.rows.isEmpty == false,
        try session.truncate(to: position) == position
      else { throw error }
      drafts?.drop()
      return try session.decode(token, continues: continues)
    }
  }

  /// Reads the prompt; where one prompt position's distribution is asked for, scores it.
  ///
  /// - Precondition: the session holds tokens only where no distributions after the prompt's are asked for.
  private func prefill(
    _ answer: inout Answer
  ) throws(RuntimeError) -> UnsafeMutableBufferPointer<Float> {
    let options = answer.options
    precondition(
      session.position == 0
        || !options.reportsWholePrompt && options.logProbabilityPromptPosition == nil
          && session.position < options.prompt.count,
      "logits after reused tokens are not computed")
    if options.reportsWholePrompt {
      var last: UnsafeBufferPointer<Float>?
      try session.score(options.prompt) { _, logits in
        answer.note {
          $0.topLogProbabilities.append(
            LogProbabilities.top(options.logProbabilityCount, of: logits))
        }
        last = logits
      }
      if let last { return UnsafeMutableBufferPointer(mutating: last) }
    }
    guard let position = options.logProbabilityPromptPosition else {
      return try session.prefill(
        Array(options.prompt[session.position...]), continues: answer.leftCount > 1)
    }
    guard options.prompt.indices.contains(position) else {
      throw .badPrompt(
        "prompt position \(position) is outside the prompt of \(options.prompt.count) tokens")
    }
    let head = try session.prefill(Array(options.prompt[...position]), continues: true)
    answer.note {
      $0.topLogProbabilities.append(
        LogProbabilities.top(options.logProbabilityCount, of: UnsafeBufferPointer(head)))
    }
    guard position + 1 < options.prompt.count else { return head }
    return try session.prefill(Array(options.prompt[(position + 1)...]))
  }

  /// Records the drive's progress at a token.
  private func noteBytes(_ answer: inout Answer) {
    let statistics = session.stream.source.device.statistics
    let keyValueBytes = session.keyValues.pool.readByteCount
    answer.note { result in
      if result.sampledTokenCount == 1 {
        result.bytesAtFirstToken = statistics.bytesRead
        result.driveNanosecondsAtFirstToken = statistics.busyNanoseconds
        result.keyValueBytesAtFirstToken = keyValueBytes
      }
      result.bytesAtLastToken = statistics.bytesRead
      result.driveNanosecondsAtLastToken = statistics.busyNanoseconds
      result.keyValueBytesAtLastToken = keyValueBytes
    }
  }
}
