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
  public let plan: MemoryPlan
  /// Tokens in the context so far.
  public private(set) var position: Int
  /// The stream that delivers weights, for its statistics.
  public let stream: WeightStream

  /// One-line warnings for people, e.g. of threads that the system refused.
  public let notes: [String]

  /// Keys and values, for their statistics and files.
  public var keyValues: KeyValueStore { decoder.cache }

  /// Where the time of all steps went.
  public var times: TimeBreakdown { decoder.times }

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

  let decoder: Decoder
  private let vocabularyCount: Int
  /// How the last step ended.
  private enum Condition {
    case ready
    case contextAborted
    case failed(RuntimeError)
  }
  private var condition = Condition.ready
  /// The token being decoded, where the graph reads it.
  private let current: UnsafeMutableBufferPointer<Int32>

  /// Plans memory and starts the workers; weights are read by the first tokens.
  ///
  /// - Parameter decodeAttention: computes the attention of decoded tokens, for which it is given all keys
  ///   and values; nil = the host does. The host's own must all have room in memory, and begin empty.
  /// - Throws: ``RuntimeError/budgetTooSmall(budget:minimum:)`` before anything large is allocated;
  ///   ``RuntimeError/notRunnable(path:reason:)`` if stored keys and values come before attention that is
  ///   computed elsewhere; ``RuntimeError/loader(_:)`` if not every read of the file can be verified, as
  ///   was asked for.
  public init(
    _ source: ModelSource, _ configuration: DecoderConfiguration, _ request: MemoryPlan.Request,
    cancellation: CancellationFlag = CancellationFlag(),
    decodeAttention: (any DecodeAttention)? = nil
  ) throws(RuntimeError) {
    try source.description.expectRunnable(source.path)
    var request = request
    request.keepsAllKeyValues = decodeAttention != nil
    request.keyValues.cancellation = cancellation
    let selector = try NeuronSelector.resolve(
      request.neurons.selector, for: source, configuration)
    let weights = try DecoderWeights(
      source: source, configuration: configuration, contextLength: request.contextLength,
      selector: selector)
    plan = try MemoryPlan.make(
      request, source: source, configuration: configuration, selector: selector,
      order: weights.order)
    let pool = ThreadPool(threadCount: request.threadCount)
    do throws(LoaderError) {
      stream = try WeightStream(
        source: source, plan: plan.residency, tables: weights.tables,
        families: weights.families,
        slots: plan.expertSlots, neurons: plan.neurons.map { ($0.reading, $0.slotCount) },
        verification: request.verification, pool: pool,
        cancellation: cancellation)
    } catch { throw RuntimeError(error) }
    decoder = try Self.makeDecoder(
      configuration, weights, stream, plan, request, pool, decodeAttention)
    notes = (pool.note.map { [$0] } ?? []) + decoder.cache.notes
    position = decoder.cache.prefixPositionCount
    vocabularyCount = configuration.vocabularyCount
    current = .allocate(capacity: 1)
    current.initialize(repeating: 0)
  }

  deinit { current.deallocate() }

  /// Reads `tokens` into the context and computes the logits after the last of them.
  ///
  /// - Parameter continues: whether tokens will be decoded afterwards, so that the drive may read on.
  /// - Returns: logits [vocabularyCount], valid until the next call; the caller may change them.
  /// - Throws: ``RuntimeError/badPrompt(_:)`` if they do not fit.
  public func prefill(
    _ tokens: [Int32], continues: Bool = true
  ) throws(RuntimeError) -> UnsafeMutableBufferPointer<Float> {
    try checkCondition()
    try check(tokens)
    stream.isComputeBound = tokens.count >= Self.computeBoundTokenCount
    defer { stream.isComputeBound = false }
    try step { () throws(RuntimeError) in
      let chunks = chunkCount(tokens)
      let end = position + tokens.count
      try reportingProgress(sweepCount: chunks) { () throws(RuntimeError) in
        for chunk in 0..<chunks {
          let first = chunk * plan.chunkLength
          let slice = first..<min(first + plan.chunkLength, tokens.count)
          try decoder.expect(count: 2) { sweep in
            chunk + sweep == chunks ? .head : .body
          }
          try forward(tokens, slice, .prefill(end: end))
        }
      }
      try decoder.expect(count: continues ? 2 : 1) { $0 == 0 ? .head : .body }
      let last = (tokens.count - 1) % plan.chunkLength
      try decoder.logits(rows: last..<(last + 1))
      try checkFiles()
    }
    return UnsafeMutableBufferPointer(start: decoder.workspace.logits, count: vocabularyCount)
  }

  private func chunkCount(_ tokens: [Int32]) -> Int {
    (tokens.count + plan.chunkLength - 1) / plan.chunkLength
  }

  /// Tokens from which a sweep takes the processors longer than any drive.
  private static let computeBoundTokenCount = 64

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
    current[0] = token
    onDecodePart?()
    decoder.onPart = onDecodePart
    defer { decoder.onPart = nil }
    try step { () throws(RuntimeError) in
      try decoder.expect(count: continues ? 3 : 2) { $0 == 1 ? .head : .body }
      try decoder.forward(UnsafeBufferPointer(current), at: position, .decode)
      position += 1
      try decoder.logits(rows: 0..<1)
      try checkFiles()
    }
    return UnsafeMutableBufferPointer(start: decoder.workspace.logits, count: vocabularyCount)
  }

  /// Reads `tokens` into the context and hands the logits after each position to `sink`.
  ///
  /// - Parameter skipping: positions at the start whose logits are not computed.
  public func score(
    _ tokens: [Int32], skipping: Int = 0,
    _ sink: (_ position: Int, _ logits: UnsafeBufferPointer<Float>) -> Void
  ) throws(RuntimeError) {
    try checkCondition()
    try check(tokens)
    try step { () throws(RuntimeError) in
      try reportingProgress(sweepCount: chunkCount(tokens)) { () throws(RuntimeError) in
        try scoreChunks(of: tokens, skipping: skipping, sink)
      }
    }
  }

  private func scoreChunks(
    of tokens: [Int32], skipping: Int,
    _ sink: (_ position: Int, _ logits: UnsafeBufferPointer<Float>) -> Void
  ) throws(RuntimeError) {
    var first = 0
    while first < tokens.count {
      let slice = first..<min(first + plan.chunkLength, tokens.count)
      try decoder.expect(count: 1) { _ in .body }
      try forward(tokens, slice, .prefill(end: nil))
      var row = max(0, skipping - first)
      while row < slice.count {
        let rows = row..<min(row + decoder.workspace.logitRowCapacity, slice.count)
        try decoder.expect(count: 1) { _ in .head }
        try decoder.logits(rows: rows)
        try checkFiles()
        for (index, row) in rows.enumerated() {
          sink(
            first + row,
            UnsafeBufferPointer(
              start: decoder.workspace.logits + index * vocabularyCount, count: vocabularyCount))
        }
        row = rows.upperBound
      }
      first = slice.upperBound
    }
  }

  /// Continues after tokens whose keys and values were computed before, starting after the prefix.
  ///
  /// - Parameters: as those of ``KeyValueStore/resume(positionCount:_:)``.
  func resume(
    positionCount: Int, _ fill: (_ layer: Int, UnsafeMutableRawBufferPointer) -> Bool
  ) {
    if decoder.cache.resume(positionCount: positionCount, fill) { position += positionCount }
  }

  /// Forgets the context, also one that was aborted; weights stay in memory.
  ///
  /// Does not wait for reads of weights: after an abandoned sweep, the next step does.
  public func reset() {
    if case .contextAborted = condition {
      decoder.abandon()
      condition = .ready
    }
    decoder.cache.reset()
    decoder.outsourced?.reset()
    position = 0
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

  private func forward(
    _ tokens: [Int32], _ slice: Range<Int>, _ phase: KeyValueStore.Phase
  ) throws(RuntimeError) {
    var failure: RuntimeError?
    tokens.withUnsafeBufferPointer { buffer in
      do throws(RuntimeError) {
        try decoder.forward(
          UnsafeBufferPointer(rebasing: buffer[slice]), at: position, phase)
      } catch { failure = error }
    }
    if let failure { throw failure }
    position += slice.count
  }

  /// Logits count only if the files they came from are still what was opened.
  private func checkFiles() throws(RuntimeError) {
    do { try stream.checkFiles() } catch { throw RuntimeError(error) }
  }

  private func check(_ tokens: [Int32]) throws(RuntimeError) {
    guard !tokens.isEmpty else {
      throw .badPrompt("the prompt is empty: there is nothing to continue")
    }
    guard position + tokens.count <= plan.contextLength else {
      throw .badPrompt(
        "\(tokens.count) tokens do not fit: the context holds \(plan.contextLength), "
          + "of which \(position) are used")
    }
    if let token = tokens.first(where: { $0 < 0 || Int($0) >= vocabularyCount }) {
      throw .badPrompt("token \(token) is outside the vocabulary of \(vocabularyCount)")
    }
  }

  private static func makeDecoder(
    _ configuration: DecoderConfiguration, _ weights: DecoderWeights, _ stream: WeightStream,
    _ plan: MemoryPlan, _ request: MemoryPlan.Request, _ pool: ThreadPool,
    _ decodeAttention: (any DecodeAttention)?
  ) throws(RuntimeError) -> Decoder {
    if decodeAttention != nil {
      guard request.keyValues.prefix.parts.isEmpty else {
        throw .notRunnable(
          path: stream.source.path,
          reason: "attention outside the host needs keys and values from the first token on")
      }
    }
    let workspace: DecoderWorkspace
    let cache: KeyValueStore
    do {
      workspace = try DecoderWorkspace(
        configuration, tokenCapacity: plan.chunkLength, logitRowCapacity: request.logitRowCount,
        hasNeurons: plan.neurons != nil)
    } catch { throw .allocation(error) }
    do {
      cache = try KeyValueStore(
        plan.keyValues, request.keyValues, queryHeadCount: configuration.queryHeadCount)
    } catch { throw RuntimeError(error) }
    return try Decoder(
      configuration: configuration, weights: weights, stream: stream, workspace: workspace,
      cache: cache, pool: pool,
      outsourced: try decodeAttention.map { attention throws(RuntimeError) in
        try OffloadedAttention(
          attention, queryHeadCount: configuration.queryHeadCount,
          headDim: configuration.storedHeadDim)
      })
  }
}
