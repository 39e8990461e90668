public import KVCache
public import Kernels
public import ModelFormat
public import TensorBasics
public import WeightLoader

/// One sequence of tokens that is read and continued under a memory budget.
///
/// One thread uses a session. Nothing else may use the model's device at the same time.
///
/// A step that throws leaves the session in one of two ways (`docs/decisions/0022`):
/// - ``RuntimeError/interrupted``, and errors of keys and values, **abort** the context. Lower
///   the flag and call ``reset()``: the weights are unchanged, and the same tokens give the same bits. Until
///   then every step throws `KVCache.KeyValueError.contextAborted`.
/// - Any other error of a step is **final**: a drive that failed once, or a file that changed, is not used
///   again. Every later step throws the same error, even after ``reset()``; make a new session.
///
/// ``RuntimeError/badPrompt(_:)`` is thrown before anything is computed and changes nothing.
public final class Session {
  public var plan: MemoryPlan { core.plan }
  /// Tokens in the context so far.
  public private(set) var position: Int
  /// The stream that delivers weights, for its statistics.
  public var stream: WeightStream { core.stream }

  /// One-line warnings for people, e.g. of threads that the system refused.
  public let notes: [String]

  /// Keys and values, for their statistics and files.
  public let keyValues: KeyValueStore

  /// Where the time of all steps went.
  public var times: TimeBreakdown { core.times }

  /// Told of every dense FFN that is computed; nil = no observer. The session keeps it.
  public var feedForwardObserver: (any FeedForwardObserver)? {
    get { decoder.feedForwardObserver }
    set { decoder.feedForwardObserver = newValue }
  }

  /// Called with the share of a prompt's work that is done, from 0 to 1; nil = no observer.
  ///
  /// While ``prefill(_:continues:)`` and ``score(_:skipping:_:)`` run, after each half of a layer, for every chunk of
  /// tokens.
  public var onProgress: ((_ fraction: Double) -> Void)?

  /// Given the hidden states of all tokens that are read, as ``Drafter/take(states:rowCount:at:)``; nil = nobody wants them.
  var onStates: ((_ states: UnsafePointer<Float>, _ rowCount: Int, _ position: Int) -> Void)?

  /// Called when ``decode(_:continues:)`` begins, and after each half of a layer; nil = no observer.
  public var onDecodePart: (() -> Void)?

  /// Called with the reason when the attention given at the start is no longer used; returns whether to go on
  /// with the host's. nil = it is not.
  public var onDecodeAttentionFailure: ((any Error) -> Bool)? {
    get { decoder.outsourced?.onFailure }
    set { decoder.outsourced?.onFailure = newValue }
  }

  /// Whether decoded tokens' attention is computed elsewhere.
  public var usesDecodeAttention: Bool { decoder.outsourced?.isInUse ?? false }

  private let core: EngineCore
  private var tokensToVerify: [Int32] = []
  /// What keeps states as prompts are read; nil = nothing does.
  private weak var persistence: KeyValuePersistence?
  /// What drafters know of its answers.
  package lazy var draftMemory = DraftMemory(vocabularyCount: vocabularyCount)
  var decoder: Decoder { core.decoder }
  let vocabularyCount: Int
  /// How the last step ended.
  private enum Condition {
    case ready
    case contextAborted
    case failed(RuntimeError)
  }
  private var condition = Condition.ready

  /// Plans memory and starts the workers; weights are read by the first tokens.
  ///
  /// - Parameter decodeAttention: begins the attention of decoded tokens, for which it is given keys and values,
  ///   and the host goes on; nil = all is the host's. The host's own keys and values must all have room in memory,
  ///   and begin empty.
  /// - Throws: ``RuntimeError/budgetTooSmall(budget:minimum:fitting:)`` before anything large is allocated;
  ///   ``RuntimeError/notRunnable(path:reason:)`` if stored keys and values come before attention that is
  ///   computed elsewhere; ``RuntimeError/loader(_:)`` if not every read of the file can be verified, as
  ///   was asked for.
  public init(
    _ source: ModelSource, _ configuration: DecoderConfiguration, _ request: MemoryPlan.Request,
    cancellation: CancellationFlag = CancellationFlag(),
    decodeAttention: (any DecodeAttention)? = nil
  ) throws(RuntimeError) {
    core = try EngineCore(
      source, configuration, request, cancellation: cancellation,
      decodeAttention: decodeAttention)
    keyValues = try core.openSequence()
    notes = core.notes + keyValues.pool.notes
    position = keyValues.prefixPositionCount
    vocabularyCount = configuration.vocabularyCount
  }

  /// Reads `tokens` into the context and computes the logits after the last of them.
  ///
  /// - Parameter continues: whether tokens will be decoded afterwards, so that the drive may read on.
  /// - Returns: logits [vocabularyCount], valid until the next call; the caller may change them.
  /// - Throws: ``RuntimeError/badPrompt(_:)`` if they do not fit.
  public func prefill(
    _ tokens: [Int32], continues: Bool = true
  ) throws(RuntimeError) -> UnsafeMutableBufferPointer<Float> {
    try checkCondition()
    try core.check(tokens, after: position)
    try step { () throws(RuntimeError) in
      let end = position + tokens.count
      try reportingProgress(sweepCount: sweepCount(tokens.count)) { () throws(RuntimeError) in
        var first = 0
        while first < tokens.count {
          let stop = persistence?.nextStates(after: position, promptEnd: end) ?? end
          let slice = first..<min(first + min(plan.chunkLength, stop - position), tokens.count)
          let isLast = slice.upperBound == tokens.count
          try sweep(
            tokens, slice, promptEnd: end, logitCount: isLast ? 1 : 0,
            continues: !isLast || continues)
          persistence?.keepStates(of: keyValues, promptEnd: end)
          first = slice.upperBound
        }
      }
    }
    return UnsafeMutableBufferPointer(start: decoder.workspace.logits, count: vocabularyCount)
  }

  /// Sweeps that read so many tokens.
  func sweepCount(_ tokenCount: Int) -> Int {
    (tokenCount + plan.chunkLength - 1) / plan.chunkLength
  }

  /// Tells ``onProgress`` of the parts of `count` sweeps over the layers, while `work` does them.
  private func reportingProgress(
    sweepCount: Int, _ work: () throws(RuntimeError) -> Void
  ) throws(RuntimeError) {
    guard let onProgress else { return try work() }
    let partCount = sweepCount * decoder.partCount
    var done = 0
    decoder.onPart = {
      done += 1
      onProgress(min(1, Double(done) / Double(partCount)))
    }
    defer { decoder.onPart = nil }
    try work()
  }

  /// Adds one token to the context and computes the logits after it.
  ///
  /// Allocates nothing after its first call.
  ///
  /// - Parameter continues: whether another token will follow, so that the drive may read on.
  /// - Returns: as ``prefill(_:continues:)``.
  public func decode(
    _ token: Int32, continues: Bool = true
  ) throws(RuntimeError) -> UnsafeMutableBufferPointer<Float> {
    try checkCondition()
    guard position < plan.contextLength else {
      throw .badPrompt("the context of \(plan.contextLength) tokens is full")
    }
    onDecodePart?()
    decoder.onPart = onDecodePart
    defer { decoder.onPart = nil }
    try step { () throws(RuntimeError) in
      var failure: RuntimeError?
      withUnsafePointer(to: token) { token in
        do throws(RuntimeError) {
          try sweep(
            UnsafeBufferPointer(start: token, count: 1), .answer, logitCount: 1,
            continues: continues)
        } catch { failure = error }
      }
      if let failure { throw failure }
    }
    return UnsafeMutableBufferPointer(start: decoder.workspace.logits, count: vocabularyCount)
  }

  /// The drafts that ``decode(_:drafts:continues:)`` takes now.
  var draftRoom: DraftRoom { core.draftRoom(of: keyValues) }

  /// Adds one token to the context and drafts of those after it, and computes the logits after each of them.
  ///
  /// Those that turn out to be wrong are taken back by ``keepDrafts(_:to:)`` before the next step; the logits after
  /// those that are right are those that ``decode(_:continues:)`` gives.
  ///
  /// - Parameter drafts: as ``draftRoom`` allows.
  /// - Returns: of each of its rows [1 + drafts.tokens.count, vocabularyCount], valid until the next call; the caller may
  ///   change them.
  func decode(
    _ token: Int32, drafts: DraftRows, continues: Bool
  ) throws(RuntimeError) -> UnsafeMutableBufferPointer<Float> {
    try checkCondition()
    onDecodePart?()
    decoder.onPart = onDecodePart
    defer { decoder.onPart = nil }
    tokensToVerify.removeAll(keepingCapacity: true)
    tokensToVerify.append(token)
    tokensToVerify.append(contentsOf: drafts.line)
    try step { () throws(RuntimeError) in
      var failure: RuntimeError?
      tokensToVerify.withUnsafeBufferPointer { tokens in
        do throws(RuntimeError) {
          try sweep(
            tokens, .answer, logitCount: tokens.count, drafts: drafts, continues: continues)
        } catch { failure = error }
      }
      if let failure { throw failure }
    }
    return UnsafeMutableBufferPointer(
      start: decoder.workspace.logits, count: (1 + drafts.tokens.count) * vocabularyCount)
  }

  /// Takes all drafts back but `row` and those that it follows; of row 0, all.
  func keepDrafts(_ drafts: DraftRows, to row: Int) {
    position += drafts.depth(ofRow: row) - drafts.lineCount
    core.batch.keepDrafts(ofSpan: 0, branch: drafts.branch(ofRow: row), to: position)
  }

  /// Reads `tokens` into the context and hands the logits after each position to `sink`.
  ///
  /// - Parameter skipping: positions at the start whose logits are not computed.
  public func score(
    _ tokens: [Int32], skipping: Int = 0,
    _ sink: (_ position: Int, _ logits: UnsafeBufferPointer<Float>) -> Void
  ) throws(RuntimeError) {
    try checkCondition()
    try core.check(tokens, after: position)
    try step { () throws(RuntimeError) in
      try reportingProgress(sweepCount: sweepCount(tokens.count)) { () throws(RuntimeError) in
        try scoreChunks(of: tokens, skipping: skipping, sink)
      }
    }
  }

  private func scoreChunks(
    of tokens: [Int32], skipping: Int,
    _ sink: (_ position: Int, _ logits: UnsafeBufferPointer<Float>) -> Void
  ) throws(RuntimeError) {
    for first in stride(from: 0, to: tokens.count, by: plan.chunkLength) {
      let slice = first..<min(first + plan.chunkLength, tokens.count)
      let skipped = min(max(0, skipping - first), slice.count)
      try sweep(
        tokens, slice, promptEnd: nil, logitCount: slice.count - skipped,
        continues: slice.upperBound < tokens.count
      ) { number, logits in
        for row in 0..<logits.count / vocabularyCount {
          sink(
            first + skipped + number + row,
            UnsafeBufferPointer(
              rebasing: logits[row * vocabularyCount..<(row + 1) * vocabularyCount]))
        }
      }
    }
  }

  /// Continues after the tokens that `persistence` has brought, and has it keep states as the session reads.
  func take(_ persistence: KeyValuePersistence) {
    self.persistence = persistence
    position = keyValues.positionCount
  }

  /// Forgets the context, also one that was aborted; weights stay in memory.
  ///
  /// Does not wait for reads of weights: after an abandoned sweep, the next step does.
  public func reset() {
    if case .contextAborted = condition {
      core.abandon()
      condition = .ready
    }
    keyValues.reset()
    decoder.outsourced?.reset()
    position = 0
  }

  /// Forgets the tokens from `position` on, also those of a step that was interrupted: what follows is as if they had
  /// never been read. Weights stay in memory.
  ///
  /// Lower the flag before, where a step was interrupted.
  ///
  /// - Returns: where the context ends now: at `position` or, where that cannot be returned to, before it. The tokens
  ///   from there on have to be read again.
  /// - Throws: ``RuntimeError/badPrompt(_:)`` where attention is computed elsewhere; errors of keys and values; the
  ///   error of a step that was final.
  @discardableResult
  public func truncate(to position: Int) throws(RuntimeError) -> Int {
    guard decoder.outsourced == nil else {
      throw .badPrompt(
        "attention outside the host keeps what it has read: reset the context instead")
    }
    switch condition {
    case .ready: if position >= self.position { return self.position }
    case .contextAborted: core.abandon()
    case .failed(let error): throw error
    }
    condition = .ready
    try step { () throws(RuntimeError) in
      self.position = try core.truncate(keyValues, to: min(position, self.position))
    }
    return self.position
  }

  /// Does a step's work and remembers how it ended.
  func step(_ work: () throws(RuntimeError) -> Void) throws(RuntimeError) {
    do { try work() } catch {
      condition =
        switch error {
        case .interrupted, .keyValues, .notFinite: .contextAborted
        default: .failed(error)
        }
      throw error
    }
  }

  /// Throws if no step may follow the last one.
  func checkCondition() throws(RuntimeError) {
    switch condition {
    case .ready: return
    case .contextAborted: throw .keyValues(.contextAborted)
    case .failed(let error): throw error
    }
  }

  /// Reads a slice of `tokens`, which follow those of the context.
  private func sweep(
    _ tokens: [Int32], _ slice: Range<Int>, promptEnd: Int?, logitCount: Int, continues: Bool,
    _ sink: (_ first: Int, _ logits: UnsafeMutableBufferPointer<Float>) -> Void = { _, _ in }
  ) throws(RuntimeError) {
    var failure: RuntimeError?
    tokens.withUnsafeBufferPointer { buffer in
      do throws(RuntimeError) {
        try sweep(
          UnsafeBufferPointer(rebasing: buffer[slice]), .read, promptEnd: promptEnd,
          logitCount: logitCount, continues: continues, sink)
      } catch { failure = error }
    }
    if let failure { throw failure }
  }

  private func sweep(
    _ tokens: UnsafeBufferPointer<Int32>, _ kind: RowKind, promptEnd: Int? = nil, logitCount: Int,
    drafts: DraftRows? = nil, continues: Bool,
    _ sink: (_ first: Int, _ logits: UnsafeMutableBufferPointer<Float>) -> Void = { _, _ in }
  ) throws(RuntimeError) {
    core.batch.removeAll()
    core.batch.append(
      tokens, at: position, kind, promptEnd: promptEnd, in: keyValues, logitCount: logitCount,
      draftCount: drafts?.lineCount ?? 0, states: onStates == nil ? .nothing : .drafting)
    if let drafts { core.batch.appendBranches(of: drafts, at: position + 1) }
    try core.step(
      continues: continues, pool: { states in onStates?(states, tokens.count, position) },
      { first, logits in sink(first, logits) })
    position += tokens.count
  }
}
