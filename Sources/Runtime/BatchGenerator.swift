import KVCache
public import TensorBasics
import Tokenization
public import WeightLoader

/// Answers many prompts in one stream of rows.
///
/// Each sweep over the weights serves one token of every answer that is under way, and as many tokens of prompts
/// as there is room for.
///
/// An answer is the one that a ``TextGenerator`` gives for the same options, token for token, whatever is
/// answered beside it.
public final class BatchGenerator {
  /// How one prompt ended.
  public struct Outcome: Sendable {
    /// The caller's number for it.
    public let number: Int
    /// The answer, as far as it came.
    public let result: GenerationResult
    /// Why it is not whole; nil = it is.
    public let error: RuntimeError?
  }

  /// What the sweeps did.
  public struct Statistics: Sendable {
    public fileprivate(set) var sweepCount = 0
    /// Rows of all sweeps: tokens read and answered.
    public fileprivate(set) var rowCount = 0
    /// Rows that drew a token.
    public fileprivate(set) var drawnCount = 0
    public fileprivate(set) var nanoseconds = 0
  }

  public var plan: MemoryPlan { core.plan }
  /// The stream that delivers weights, for its statistics.
  public var stream: WeightStream { core.stream }
  /// One-line warnings for people.
  public var notes: [String] { core.notes }
  /// Where the time of all sweeps went.
  public var times: TimeBreakdown { core.times }
  public private(set) var statistics = Statistics()
  /// Called after every sweep.
  public var onSweep: (() -> Void)?

  private let core: EngineCore
  private let tokenizer: Tokenizer
  private let vocabularyCount: Int
  /// Answers under way, oldest first.
  private var active: [Active] = []

  /// A prompt that is being read, or answered.
  private final class Active {
    let number: Int
    let cache: KeyValueStore
    var answer: Answer
    /// Tokens that the cache holds.
    var position = 0
    var error: RuntimeError?

    init(_ number: Int, _ cache: KeyValueStore, _ answer: Answer) {
      self.number = number
      self.cache = cache
      self.answer = answer
    }

    var prompt: [Int32] { answer.options.prompt }
    var readsPrompt: Bool { position < prompt.count }
    var isOver: Bool { answer.isOver || error != nil }
  }

  /// Plans memory and starts the workers; weights are read by the first sweeps.
  ///
  /// - Parameter request: with the number of sequences that are answered at the same time, and room in each one's
  ///   context for the longest prompt and its answer.
  /// - Throws: as ``Session/init(_:_:_:cancellation:decodeAttention:)``.
  public init(
    _ model: LanguageModel, _ request: MemoryPlan.Request,
    cancellation: CancellationFlag = CancellationFlag()
  ) throws(RuntimeError) {
    var request = request
    request.callerByteCount +=
      request.sequenceCount
      * Sampler.byteCount(vocabularyCount: model.configuration.vocabularyCount)
    core = try EngineCore(
      model.source, model.configuration, request, cancellation: cancellation)
    tokenizer = model.tokenizer
    vocabularyCount = model.configuration.vocabularyCount
  }

  /// Answers prompts until there are no more.
  ///
  /// - Parameters:
  ///   - next: the next prompt with a number of the caller's, or nil when there is none. It is asked for as soon as there
  ///     is room for one.
  ///   - ended: told of each prompt when it ends, in the order in which they do.
  /// - Throws: ``RuntimeError`` if the model, the drive that holds it or memory fails, or the caller asks to stop; what was
  ///   under way is not told of then. What goes wrong with one prompt alone is in its outcome.
  public func run(
    next: () -> (number: Int, options: GenerationOptions)?, ended: (Outcome) -> Void
  ) throws(RuntimeError) {
    defer { closeAll() }
    var hasMore = true
    do throws(RuntimeError) {
      while true {
        while hasMore, core.freeSequenceCount > 0 {
          guard let prompt = next() else {
            hasMore = false
            break
          }
          if let refusal = try admit(prompt.number, prompt.options) { ended(refusal) }
        }
        guard !active.isEmpty else { return }
        try sweep(hasMore: hasMore)
        onSweep?()
        for sequence in active where sequence.isOver {
          core.close(sequence.cache)
          ended(
            Outcome(
              number: sequence.number, result: sequence.answer.result, error: sequence.error))
        }
        active.removeAll { $0.isOver }
      }
    } catch {
      core.abandon()
      throw error
    }
  }

  private func closeAll() {
    for sequence in active { core.close(sequence.cache) }
    active.removeAll()
  }

  /// Takes a prompt in; returns how it ended if it cannot be answered.
  private func admit(
    _ number: Int, _ options: GenerationOptions
  ) throws(RuntimeError) -> Outcome? {
    do throws(RuntimeError) {
      try core.check(options.prompt, after: 0)
    } catch { return Outcome(number: number, result: GenerationResult(), error: error) }
    active.append(
      Active(
        number, try core.openSequence(),
        Answer(
          options, tokenizer, vocabularyCount: vocabularyCount, contextLength: plan.contextLength)))
    return nil
  }

  /// One sweep: a row for every answer, then prompts, the oldest first.
  private func sweep(hasMore: Bool) throws(RuntimeError) {
    let start = monotonicNanoseconds()
    let batch = core.batch
    batch.removeAll()
    var rows: [Active] = []
    for sequence in active {
      guard let token = sequence.answer.next else { continue }
      withUnsafePointer(to: token) { token in
        batch.append(
          UnsafeBufferPointer(start: token, count: 1), at: sequence.position, .decode,
          in: sequence.cache, logitCount: 1)
      }
      rows.append(sequence)
    }
    for sequence in active where sequence.readsPrompt && batch.rowCount < batch.rowCapacity {
      let count = min(
        sequence.prompt.count - sequence.position, batch.rowCapacity - batch.rowCount,
        plan.chunkLength)
      let end = sequence.position + count
      sequence.prompt.withUnsafeBufferPointer { prompt in
        batch.append(
          UnsafeBufferPointer(rebasing: prompt[sequence.position..<end]), at: sequence.position,
          .prefill(end: sequence.prompt.count), in: sequence.cache,
          logitCount: end == sequence.prompt.count ? 1 : 0)
      }
      rows.append(sequence)
    }
    // Whether anything is left to be computed, unless all answers end by themselves.
    let continues =
      hasMore || active.contains { $0.readsPrompt || $0.answer.leftCount > 1 }
    // Numbers of the spans that want logits, in their order.
    var drawing = rows.indices.lazy.filter { number in
      batch.spans[number].positions.upperBound >= rows[number].prompt.count
    }.makeIterator()
    try core.step(continues: continues) { [vocabularyCount] _, logits in
      for row in 0..<logits.count / vocabularyCount {
        guard let number = drawing.next(), batch.spans[number].isAlive else { continue }
        rows[number].answer.draw(
          UnsafeMutableBufferPointer(
            rebasing: logits[row * vocabularyCount..<(row + 1) * vocabularyCount]))
      }
    }
    for (span, sequence) in zip(batch.spans, rows) {
      sequence.position += span.rows.count
      sequence.error = span.failure.map { RuntimeError($0) }
    }
    statistics.sweepCount += 1
    statistics.rowCount += batch.rowCount
    statistics.drawnCount += batch.logitCount
    statistics.nanoseconds += monotonicNanoseconds() - start
  }
}
