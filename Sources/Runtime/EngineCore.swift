package import KVCache
package import Kernels
package import ModelFormat
package import TensorBasics
package import WeightLoader

/// One open model, whose sweeps serve the rows of any number of sequences.
///
/// It owns what all sequences share: the memory plan, the stream of weights, the graph, the workers, and the
/// keys and values of as many sequences as were planned for. Weights are planned once, whatever sequences come
/// and go. One thread uses it.
///
/// ```
/// core.batch.removeAll()
/// core.batch.append(tokens, at: position, .answer, in: cache, logitCount: 1)   // one for each sequence
/// try core.step(continues: true) { first, logits in … }
/// ```
///
/// A row's results depend on its own sequence alone: not on the other rows of its batch, on their number or order, nor on how
/// a prompt was cut into batches (`docs/decisions/0043`).
package final class EngineCore {
  package let plan: MemoryPlan
  /// The stream that delivers weights.
  package let stream: WeightStream
  /// One-line warnings for people, e.g. of threads that the system refused.
  package let notes: [String]
  /// The rows of the next sweep.
  package let batch: Batch
  let decoder: Decoder
  /// The workers, which compute between sweeps what their user likes.
  let pool: ThreadPool

  private let vocabularyCount: Int
  /// Keys and values of all sequences.
  package let keyValues: KeyValuePool
  /// As ``leastLoan(_:_:)``.
  let leastLoan: Int

  /// Plans memory and starts the workers; weights are read by the first tokens.
  ///
  /// - Parameters, errors: as those of ``Session/init(_:_:_:cancellation:decodeAttention:)``.
  package init(
    _ source: ModelSource, _ configuration: DecoderConfiguration, _ request: MemoryPlan.Request,
    cancellation: CancellationFlag = CancellationFlag(),
    decodeAttention: (any DecodeAttention)? = nil
  ) throws(RuntimeError) {
    try source.description.expectRunnable(source.path)
    var request = request
    if let decodeAttention {
      request.keepsAllKeyValues = true
      request.callerByteCount += OffloadedAttention.byteCount(
        decodeAttention, KeyValueShape(configuration, contextLength: request.contextLength))
    }
    request.keyValues.cancellation = cancellation
    try Self.check(request, source, configuration, decodeAttention)
    let selector = try NeuronSelector.resolve(
      request.neurons.selector, for: source, configuration)
    let weights = try DecoderWeights(
      source: source, configuration: configuration, contextLength: request.contextLength,
      selector: selector)
    plan = try MemoryPlan.make(
      request, source: source, configuration: configuration, selector: selector,
      order: weights.order)
    let pool = ThreadPool(threadCount: request.threadCount)
    self.pool = pool
    do throws(LoaderError) {
      stream = try WeightStream(
        source: source, plan: plan.residency, tables: weights.tables,
        families: weights.families,
        slots: plan.expertSlots, neurons: plan.neurons.map { ($0.reading, $0.slotCount) },
        verification: request.verification, pool: pool,
        cancellation: cancellation)
    } catch { throw RuntimeError(error) }
    leastLoan = Self.leastLoan(request, plan.keyValues)
    batch = try Self.makeBatch(plan, sequenceCount: request.sequenceCount)
    decoder = try Self.makeDecoder(
      configuration, weights, stream, plan, request, pool, decodeAttention)
    batch.scans = decoder.scans
    notes = [pool.note].compactMap { $0 }
    vocabularyCount = configuration.vocabularyCount
    do {
      keyValues = try KeyValuePool(
        plan.keyValues, request.keyValues, queryHeadCount: configuration.queryHeadCount,
        savedStateCount: plan.savedStateCount)
    } catch { throw RuntimeError(error) }
  }

  /// Refuses what goes with one sequence alone.
  private static func check(
    _ request: MemoryPlan.Request, _ source: ModelSource, _ configuration: DecoderConfiguration,
    _ decodeAttention: (any DecodeAttention)?
  ) throws(RuntimeError) {
    func refuse(_ reason: String) -> RuntimeError {
      .notRunnable(path: source.path, reason: reason)
    }
    let isOutsourced = decodeAttention != nil
    let hasSinks = configuration.layers.contains { $0.attention?.hasSinks == true }
    if isOutsourced, hasSinks || configuration.attentionSoftCap != nil {
      throw refuse("attention outside the host knows no sinks and no caps, which the model has")
    }
    if isOutsourced, !configuration.scans.isEmpty {
      throw refuse("attention outside the host knows no layers with states, which the model has")
    }
    if !configuration.hasEqualHeads, isOutsourced || request.keyValues.policy != .full {
      throw refuse(
        "attention outside the host, or over chosen blocks, takes models whose layers have the same heads"
      )
    }
    if let decodeAttention, decodeAttention.hostWindow != 0 {
      guard decodeAttention.hostWindow > 0 else {
        throw refuse("the host attends over 0 positions or more")
      }
      guard request.keyValues.type == .f16, request.keyValues.policy == .full else {
        throw refuse("attention that the host continues takes all keys and values, as f16")
      }
    }
    let files = request.keyValues.files
    if isOutsourced, !files.prefix.parts.isEmpty {
      throw refuse(
        "attention outside the host needs keys and values from the first token on")
    }
    guard request.sequenceCount != 1 else { return }
    guard request.sequenceCount > 0 else { throw refuse("there must be at least one sequence") }
    if isOutsourced { throw refuse("attention outside the host serves one sequence at a time") }
    if !files.isEmpty {
      throw refuse("each of several sequences has files of its own")
    }
  }

  private static func makeBatch(
    _ plan: MemoryPlan, sequenceCount: Int
  ) throws(RuntimeError) -> Batch {
    var branches: KeyValueBranches?
    if plan.draftBranchCount > 0 {
      do {
        branches = try KeyValueBranches(plan.keyValues.shape, capacity: plan.draftBranchCount)
      } catch { throw RuntimeError(error) }
    }
    return try Batch(
      rowCapacity: plan.rowCapacity, spanCapacity: sequenceCount, branches: branches)
  }

  private static func makeDecoder(
    _ configuration: DecoderConfiguration, _ weights: DecoderWeights, _ stream: WeightStream,
    _ plan: MemoryPlan, _ request: MemoryPlan.Request, _ pool: ThreadPool,
    _ decodeAttention: (any DecodeAttention)?
  ) throws(RuntimeError) -> Decoder {
    let workspace: DecoderWorkspace
    do {
      workspace = try DecoderWorkspace(
        configuration, tokenCapacity: plan.rowCapacity,
        logitRowCapacity: plan.logitRowCount, hasNeurons: plan.neurons != nil)
    } catch { throw .allocation(error) }
    let shapes = AttentionShape.all(configuration)
    let attention =
      shapes.isEmpty
      ? nil
      : try AttentionStep(
        shapes, cache: plan.keyValues, chunkLength: plan.chunkLength,
        tokenCapacity: request.sequenceCount,
        observedTokenCount: request.keyValues.policy.observedTokenCount, pool: pool)
    return try Decoder(
      configuration: configuration, weights: weights, stream: stream, workspace: workspace,
      verifiedRowCapacity: plan.verifiedRowCapacity, attention: attention, pool: pool,
      outsourced: try decodeAttention.map { attention throws(RuntimeError) in
        try OffloadedAttention(attention, plan.keyValues.shape)
      })
  }

  // MARK: - Sequences

  /// Sequences that may still be opened.
  package var freeSequenceCount: Int { keyValues.freeSequenceCount }

  /// Keys and values for a new sequence, empty or stored ones.
  ///
  /// - Parameters: as ``KeyValuePool/openSequence(limit:files:)``.
  /// - Precondition: ``freeSequenceCount`` is not 0.
  package func openSequence(
    limit: Int? = nil, files: KeyValueStore.Files? = nil
  ) throws(RuntimeError) -> KeyValueStore {
    try takeBack(keyValues.openingByteCount)
    do { return try keyValues.openSequence(limit: limit, files: files) } catch {
      throw RuntimeError(error)
    }
  }

  /// Gives the memory of a sequence's keys and values back.
  package func close(_ cache: KeyValueStore) { cache.close() }

  /// A sequence with the same positions as another, which goes on by itself.
  ///
  /// - Parameter limit: positions that it may come to have; nil = the whole context.
  /// - Precondition: ``freeSequenceCount`` is not 0.
  package func fork(
    _ cache: KeyValueStore, limit: Int? = nil
  ) throws(RuntimeError) -> KeyValueStore {
    try takeBack(keyValues.openingByteCount)
    do { return try cache.fork(limit: limit) } catch { throw RuntimeError(error) }
  }

  /// Forgets a sequence's positions after the last restore point up to `position`.
  ///
  /// - Parameter limit: positions that it may come to have from here on; nil = as many as before.
  /// - Returns: the restore point; the tokens from there on have to be read again.
  package func truncate(
    _ cache: KeyValueStore, to position: Int, limit: Int? = nil
  ) throws(RuntimeError) -> Int {
    try takeBack(keyValues.openingByteCount)
    do { return try cache.truncate(to: position, limit: limit) } catch { throw RuntimeError(error) }
  }

  /// The drafts that a sweep can verify after a sequence's next token.
  package func draftRoom(of cache: KeyValueStore) -> DraftRoom {
    let end = cache.positionCount + 1
    let depth = cache.tentativeRoom(after: end)
    return DraftRoom(
      count: depth > 0 ? plan.draftRowCount : 0, depth: depth,
      branchDepth: min(depth, KeyValueBranches.limit(after: end) - end),
      branchCount: plan.draftBranchCount)
  }

  /// Refuses tokens that cannot be read into a context.
  ///
  /// - Parameter position: how many it holds already.
  /// - Throws: ``RuntimeError/badPrompt(_:)``.
  package func check(_ tokens: [Int32], after position: Int) throws(RuntimeError) {
    try Self.check(
      tokens, after: position, contextLength: plan.contextLength, vocabularyCount: vocabularyCount)
  }

  /// As ``check(_:after:)``, in a context of that length.
  static func check(
    _ tokens: [Int32], after position: Int, contextLength: Int, vocabularyCount: Int
  ) throws(RuntimeError) {
    guard !tokens.isEmpty else {
      throw .badPrompt("the prompt is empty: there is nothing to continue")
    }
    guard position + tokens.count <= contextLength else {
      throw .badPrompt(
        "\(tokens.count) tokens do not fit: the context holds \(contextLength), "
          + "of which \(position) are used")
    }
    if let token = tokens.first(where: { $0 < 0 || Int($0) >= vocabularyCount }) {
      throw .badPrompt("token \(token) is outside the vocabulary of \(vocabularyCount)")
    }
  }

  // MARK: - Sweeps

  /// Computes the batch: its keys and values enter their caches, and the logits that it wants go to `sink`.
  ///
  /// A span that fails or was cancelled does not end the step, as long as another is alive; see
  /// ``Batch/Span/isAlive``. Allocates nothing where the batch has one row.
  ///
  /// - Parameters:
  ///   - continues: whether another sweep follows, so that the drive may read on.
  ///   - meanwhile: what is done once reads were submitted, and before anything is computed.
  ///   - pool: called with the hidden states [rows, hiddenSize] of the rows that wanted them, where there are any; valid
  ///     during the call only. Those of dead rows mean nothing.
  ///   - sink: called with logits [rows, vocabularyCount] of the rows that wanted them, from the one with that
  ///     number among those on; valid during the call only, and may be changed. Those of dead rows mean nothing.
  package func step(
    continues: Bool, meanwhile: () -> Void = {},
    pool: (_ states: UnsafePointer<Float>) -> Void = { _ in },
    _ sink: (_ first: Int, _ logits: UnsafeMutableBufferPointer<Float>) throws(RuntimeError) -> Void
  ) throws(RuntimeError) {
    let capacity = plan.logitRowCount
    let headCount = (batch.logitCount + capacity - 1) / capacity
    let sweepCount = 1 + headCount + (continues ? 1 : 0)
    func segment(_ sweep: Int) -> DecoderWeights.Segment {
      sweep == 0 || sweep > headCount ? .body : .head
    }
    try lend()
    stream.isComputeBound = batch.rowCount >= Self.computeBoundRowCount
    defer { stream.isComputeBound = false }
    try decoder.expect(count: min(sweepCount, Self.announcedSweepCount)) { segment($0) }
    meanwhile()
    try decoder.forward(batch)
    if batch.pooledCount > 0 {
      let states = try decoder.hiddenStates(of: batch)
      try checkFiles()
      pool(states)
    }
    for head in 0..<headCount {
      let first = head * capacity
      let count = min(capacity, batch.logitCount - first)
      try decoder.expect(count: min(sweepCount - 1 - head, Self.announcedSweepCount - 1)) {
        segment($0 + 1 + head)
      }
      try decoder.logits(of: batch, first..<first + count)
      try checkFiles()
      try sink(
        first,
        UnsafeMutableBufferPointer(
          start: decoder.workspace.logits, count: count * vocabularyCount))
    }
  }

  /// A sweep, the output head after it and the next sweep: as far ahead as the stream needs to know.
  private static let announcedSweepCount = 3
  /// Rows from which a sweep takes the processors longer than any drive.
  private static let computeBoundRowCount = 64

  /// What each row's embedding is joined with in a layer that predicts further tokens [rowCapacity, hiddenSize]: hidden states, in
  /// place before a step.
  package var inputStates: UnsafeMutablePointer<Float> { decoder.workspace.states }

  /// Logits count only if the files they came from are still what was opened.
  private func checkFiles() throws(RuntimeError) {
    do { try stream.checkFiles() } catch { throw RuntimeError(error) }
  }

  /// Abandons the sweeps under way, which an error ended somewhere.
  package func abandon() { decoder.abandon() }

  /// Where the time of all steps went.
  package var times: TimeBreakdown {
    decoder.times(keyValueStall: keyValues.stallNanoseconds)
  }
}
