import KVCache
import Kernels
import ModelFormat
import TensorBasics
import WeightLoader

/// The graph of a decoder: the rows of a batch through all layers, then the output head.
///
/// Read ``forward(_:)`` from top to bottom: it is the whole model. Every family is this graph
/// with other values in its ``DecoderConfiguration``. Rows do not see one another but in attention, and there only
/// those of their own sequence.
final class Decoder {
  let configuration: DecoderConfiguration
  let weights: DecoderWeights
  let stream: WeightStream
  let workspace: DecoderWorkspace

  let pool: ThreadPool
  let clock: StepClock
  private let linear: LinearExecutor
  private let quantiser: ActivationQuantiser
  /// nil where no layer attends.
  private let attention: AttentionStep?
  let finite: FiniteCheck
  /// Where the attention of decoded tokens begins; nil = here.
  let outsourced: OffloadedAttention?
  let experts: ExpertStep?
  let scans: ScanStep?
  private let neurons: NeuronStep?
  /// Of each attention.
  let heads: [HeadLayout]
  let rope: RopeTable
  let slidingRope: RopeTable
  let usesSlidingRope: Bool
  /// What the current region does.
  var rowStep = RowStep.takeMixed
  /// Sees every dense FFN; nil, as usual except when measuring, costs nothing.
  var feedForwardObserver: (any FeedForwardObserver)?
  /// Told after each of ``partCount`` parts of a sweep over the layers; nil = nobody.
  var onPart: (() -> Void)?
  /// One for each block.
  var partCount: Int { weights.blocks.count }
  /// Sweeps the stream was told of and that have not begun, oldest first.
  private var announced: [DecoderWeights.Segment] = []

  /// - Parameter verifiedRowCapacity: most rows of spans that end in drafts.
  /// - Throws: ``RuntimeError/allocation(_:)``.
  init(
    configuration: DecoderConfiguration, weights: DecoderWeights, stream: WeightStream,
    workspace: DecoderWorkspace, verifiedRowCapacity: Int, attention: AttentionStep?,
    pool: ThreadPool, outsourced: OffloadedAttention? = nil
  ) throws(RuntimeError) {
    self.configuration = configuration
    self.outsourced = outsourced
    self.weights = weights
    self.stream = stream
    self.workspace = workspace
    self.attention = attention
    self.pool = pool
    let (clock, finite) = (StepClock(), FiniteCheck(rowCapacity: workspace.tokenCapacity))
    self.clock = clock
    self.finite = finite
    let linear = try LinearExecutor(
      stream: stream, families: weights.families, factors: weights.factors, pool: pool,
      clock: clock)
    self.linear = linear
    quantiser = ActivationQuantiser(pool: pool)
    if let shape = configuration.experts {
      do {
        experts = try ExpertStep(
          configuration, shape, tokenCapacity: workspace.tokenCapacity, stream: stream,
          linear: linear, pool: pool, clock: clock, finite: finite)
      } catch { throw .allocation(error) }
    } else {
      experts = nil
    }
    if let layout = stream.source.description.neurons {
      do {
        neurons = try NeuronStep(
          configuration, layout, tokenCapacity: workspace.tokenCapacity, stream: stream,
          linear: linear, pool: pool, clock: clock, finite: finite)
      } catch { throw .allocation(error) }
    } else {
      neurons = nil
    }
    if configuration.scans.isEmpty {
      scans = nil
    } else {
      do {
        scans = try ScanStep(
          configuration, weights.scans, tokenCapacity: workspace.tokenCapacity,
          verifiedRowCapacity: verifiedRowCapacity, pool: pool, clock: clock, finite: finite)
      } catch { throw .allocation(error) }
    }
    heads = HeadLayout.all(configuration)
    rope = RopeTable(
      base: configuration.ropeBase, dimensionCount: configuration.ropeDimensionCount,
      linearScale: configuration.ropeLinearScale, frequencyFactors: weights.ropeFactors,
      magnitude: Double(configuration.ropeMagnitude))
    slidingRope =
      configuration.slidingRopeBase.map {
        RopeTable(base: $0, dimensionCount: configuration.ropeDimensionCount)
      } ?? rope
    usesSlidingRope = configuration.layers.contains { $0.attention?.rope == .sliding }
    announced.reserveCapacity(8)
  }

  /// Tells the stream which sweeps come next, so that it reads ahead.
  ///
  /// What was announced before and no longer fits is dropped.
  ///
  /// - Parameter sweep: the segment of each of the next `count` sweeps, by its index.
  func expect(
    count: Int, _ sweep: (_ index: Int) -> DecoderWeights.Segment
  ) throws(RuntimeError) {
    do throws(LoaderError) {
      for index in 0..<min(count, announced.count) where announced[index] != sweep(index) {
        try stream.cancelAnnounced()
        announced.removeAll(keepingCapacity: true)
        break
      }
      while announced.count < count {
        let segment = sweep(announced.count)
        announced.append(segment)
        try stream.announce(segments: 1 << UInt64(segment.rawValue))
      }
    } catch { throw RuntimeError(error) }
  }

  /// Takes back what ``expect(count:_:)`` told, so that no sweep is announced.
  func expectNothing() throws(RuntimeError) {
    guard !announced.isEmpty else { return }
    announced.removeAll(keepingCapacity: true)
    do { try stream.cancelAnnounced() } catch { throw RuntimeError(error) }
  }

  /// Abandons the sweeps under way, which an error ended somewhere.
  func abandon() {
    announced.removeAll(keepingCapacity: true)
    stream.abandon()
    experts?.abandon()
  }

  /// Takes the announced sweep that begins now off the list.
  private func begin(_ segment: DecoderWeights.Segment) {
    precondition(announced.first == segment, "this sweep was not announced")
    announced.removeFirst()
  }

  /// Runs the rows of `batch`: their keys and values enter their caches, and `workspace.residual`
  /// [batch.rowCount, hiddenSize] holds the last layer's output.
  ///
  /// A span whose keys and values cannot be stored or read, or that has values that are not finite, fails; one that
  /// was cancelled is dead from the next layer on. The others go on.
  ///
  /// - Throws: ``RuntimeError``; that of the first span that failed where none is left.
  func forward(_ batch: Batch) throws(RuntimeError) {
    precondition(batch.rowCount <= workspace.tokenCapacity, "the batch exceeds the workspace")
    try embed(batch)
    if let offset = configuration.positionOffset {
      try addPositions(batch, offset: offset)
    } else {
      forEach(batch.rowCount, .fillRope(.passUnretained(batch)))
    }
    begin(.body)
    stream.beginSweep(rowCount: batch.rowCount)
    batch.spans[0].cache.pool.beginSweep()
    batch.beginBranches()
    try forEachSpan(of: batch) { number, cache throws(KeyValueError) in
      let span = batch.spans[number]
      try cache.begin(
        span.positions, span.kind, promptEnd: span.promptEnd, tentativeCount: span.draftCount)
    }
    try join(batch)
    for number in weights.blocks.indices {
      if number == 0 || weights.blocks[number].layer != weights.blocks[number - 1].layer {
        batch.dropCancelled()
      }
      try run(number, batch)
      onPart?()
    }
  }

  /// Hidden states that `batch` wants, after the last norm: [batch.pooledCount, hiddenSize], valid until the next step.
  func hiddenStates(of batch: Batch) throws(RuntimeError) -> UnsafePointer<Float> {
    forEach(
      batch.pooledCount,
      .normalise(workspace.residual, rows: batch.pooledRows, weights.outputNorm))
    try expectFinite(weights.lastPart, batch) { $0.states == .pooling }
    return UnsafePointer(workspace.hidden)
  }

  /// Logits that `batch` wants, those of `numbers` among them, in `workspace.logits`
  /// [numbers.count, vocabularyCount].
  func logits(of batch: Batch, _ numbers: Range<Int>) throws(RuntimeError) {
    precondition(
      numbers.count <= workspace.logitRowCapacity, "more logits than the workspace holds")
    begin(.head)
    let rows = batch.logitRows + numbers.lowerBound
    forEach(numbers.count, .normalise(workspace.residual, rows: rows, weights.outputNorm))
    try expectFinite(weights.lastPart, batch)
    try linear.multiply(
      activations(
        workspace.hidden, configuration.hiddenSize, numbers.count, for: weights.head),
      LinearTask(
        tensor: weights.head, output: workspace.logits,
        outputStride: configuration.vocabularyCount))
    forEach(numbers.count * logitPartCount, .finishLogits(rows: rows))
    try expectFinite(.logits, batch)
  }

  /// residual += scale · postNorm(Σ branches(preNorm(residual)))
  private func run(_ number: Int, _ batch: Batch) throws(RuntimeError) {
    let block = weights.blocks[number]
    var x = UnsafePointer(workspace.residual)
    if let norm = block.preNorm {
      try normalise(x, norm, batch, after: block.predecessor)
      x = UnsafePointer(workspace.hidden)
      if let scale = block.residualScale { forEach(batch.rowCount, .keepNormalised(scale: scale)) }
    }
    let attendsBeside = block.attention != nil && (block.feedForward != nil || block.scan != nil)
    if let attention = block.attention {
      try attend(
        attention, block.layer, x, batch, into: attendsBeside ? workspace.mixed : workspace.hidden)
    }
    if let scan = block.scan { try self.scan(scan, block.layer, x, batch) }
    let place = FeedForwardPlace(
      layer: block.layer, position: batch.spans[0].position, tokenCount: batch.rowCount)
    if let feedForward = block.feedForward {
      try self.feedForward(feedForward, place, x, after: number, batch)
    }
    if attendsBeside {
      forEach(batch.rowCount, .addAttention(bias: block.attention?.outputBias))
    }
    let bias = block.downBias ?? (attendsBeside ? nil : block.attention?.outputBias)
    forEach(batch.rowCount, .addToResidual(bias: bias, norm: block.postNorm, scale: block.scale))
    guard let feedForwardObserver, block.feedForward != nil else { return }
    let count = batch.rowCount * configuration.hiddenSize
    feedForwardObserver.feedForward(
      place, output: UnsafeBufferPointer(start: workspace.hidden, count: count),
      residual: UnsafeBufferPointer(start: workspace.residual, count: count))
  }

  // MARK: - The parts of a block

  /// Embedding rows into the residual stream.
  private func embed(_ batch: Batch) throws(RuntimeError) {
    try gatherRows(
      UnsafeBufferPointer(start: batch.tokens, count: batch.rowCount), in: weights.embedding,
      into: workspace.residual)
    guard configuration.embeddingScale != 1 else { return }
    forEach(batch.rowCount, .scaleEmbedding)
  }

  /// residual = join · [norm(residual); norm(states)], where embeddings are joined with hidden states.
  private func join(_ batch: Batch) throws(RuntimeError) {
    guard let join = weights.join else { return }
    forEach(
      batch.rowCount, .join(embeddingNorm: join.embeddingNorm, stateNorm: join.stateNorm))
    try expectFinite(.join, batch)
    let width = configuration.hiddenSize
    try linear.multiply(
      activations(workspace.joined, 2 * width, batch.rowCount, for: join.matrix),
      LinearTask(tensor: join.matrix, output: workspace.residual, outputStride: width))
  }

  /// residual += the rows of the table of positions, `offset` after each row's own.
  private func addPositions(_ batch: Batch, offset: Int) throws(RuntimeError) {
    guard let table = weights.positions else { return }
    let rows = UnsafeMutableBufferPointer(start: workspace.positionRows, count: batch.rowCount)
    for index in rows.indices { rows[index] = batch.positions[index] + Int32(offset) }
    try gatherRows(UnsafeBufferPointer(rows), in: table, into: workspace.hidden)
    forEach(batch.rowCount, .addToResidual(bias: nil, norm: nil, scale: 1))
  }

  /// Rows of a table as f32, [rows.count, hiddenSize].
  private func gatherRows(
    _ rows: UnsafeBufferPointer<Int32>, in tensor: Int, into output: UnsafeMutablePointer<Float>
  ) throws(RuntimeError) {
    let width = configuration.hiddenSize
    let type = stream.source.description.tensors[tensor].type
    do throws(LoaderError) {
      try stream.readRows(tensor: tensor, rows: rows) { index, address, layout in
        let destination = output + index * width
        switch layout {
        case .rowMajor:
          Dequantisation.row(address, type: type, columnCount: width, into: destination)
        case .interleaved:
          Dequantisation.row(
            inGroup: address, row: Int(rows[index]) % RowGroup.rowCount, type: type,
            columnCount: width, into: destination)
        }
      }
    } catch { throw RuntimeError(error) }
  }

  /// output = output projection(attention(x)), without its bias [batch.rowCount, hiddenSize]; may be where x is.
  private func attend(
    _ layer: DecoderWeights.Attention, _ place: Int, _ x: UnsafePointer<Float>, _ batch: Batch,
    into output: UnsafeMutablePointer<Float>
  ) throws(RuntimeError) {
    let (tokenCount, number) = (batch.rowCount, layer.number)
    let heads = heads[number]
    let (queryStride, keyStride) = (heads.queryStride, heads.keyStride)
    try linear.multiply(
      activations(
        x, configuration.hiddenSize, tokenCount, for: layer.query, layer.key, layer.value),
      layer.hasGate
        ? LinearTask(
          tensor: layer.query, output: workspace.gatedQueries,
          outputStride: 2 * heads.shape.queryLength)
        : LinearTask(tensor: layer.query, output: workspace.queries, outputStride: queryStride),
      LinearTask(tensor: layer.key, output: workspace.keys, outputStride: keyStride),
      LinearTask(tensor: layer.value, output: workspace.values, outputStride: keyStride))
    let tables =
      workspace.rope
      + (layer.rope == .sliding ? tokenCount * configuration.ropeDimensionCount : 0)
    try forEachSpan(of: batch) { _, cache throws(KeyValueError) in
      try cache.prepare(layer: number)
    }
    forEach(tokenCount, .storeHeads(.passUnretained(batch), layer: number, rope: tables))
    try expectFinite(.heads(place), batch)
    if !batch.branches.isEmpty {
      forEach(heads.storedHeadCount, .storeBranches(.passUnretained(batch), layer: number))
    }
    let foldedEnd = try foldElsewhere(number, batch, window: layer.window)
    try forEachSpan(of: batch) { _, cache throws(KeyValueError) in
      cache.seal(layer: number, on: pool)
    }
    clock.measure(.attention) {
      attention?.run(
        layer: number, queries: workspace.queries, batch, window: layer.window,
        sinks: layer.sinks, foldedEnd: foldedEnd)
    }
    try forEachSpan(of: batch) { _, cache throws(KeyValueError) in
      try cache.finish(layer: number)
    }
    heads.joinOutput(workspace.queries, tokenCount: tokenCount)
    if layer.hasGate { forEach(tokenCount, .gateHeads(layer: number)) }
    try linear.multiply(
      activations(
        workspace.queries, heads.shape.outputLength, tokenCount, stride: queryStride,
        for: layer.output),
      LinearTask(
        tensor: layer.output, output: output, outputStride: configuration.hiddenSize))
  }

  /// hidden = output projection(scan(x)) [batch.rowCount, hiddenSize]; x may lie there.
  private func scan(
    _ layer: DecoderWeights.Scan, _ place: Int, _ x: UnsafePointer<Float>, _ batch: Batch
  ) throws(RuntimeError) {
    guard let step = scans else { return }
    let activations = activations(
      x, configuration.hiddenSize, batch.rowCount,
      withBlocks: takesBlocks(layer.input, layer.key, layer.value)
        || takesBlocks(layer.gate, layer.beta, layer.alpha))
    try step.multiply(layer, activations, by: linear)
    step.prepare(layer, rowCount: batch.rowCount)
    try expectFinite(.scan(place), batch)
    step.run(layer, batch)
    try expectFinite(.scan(place), batch)
    if layer.number == weights.scans.count - 1 {
      // Those of drafts take in what turns out right.
      for number in batch.spans.indices
      where batch.spans[number].isAlive && batch.spans[number].draftCount == 0 {
        batch.spans[number].cache.finishStates(at: batch.spans[number].positions.upperBound)
      }
    }
    try linear.multiply(
      self.activations(
        step.outputs, layer.spec.valuesLength, batch.rowCount, for: layer.output),
      LinearTask(
        tensor: layer.output, output: workspace.hidden, outputStride: configuration.hiddenSize))
  }

  /// Gives keys and values, and the queries of an answer's token, to what computes attention elsewhere.
  ///
  /// - Returns: the position before which attention's running partials hold all tiles; 0 if they hold none.
  private func foldElsewhere(
    _ number: Int, _ batch: Batch, window: Int?
  ) throws(RuntimeError) -> Int {
    guard let outsourced, let attention else { return 0 }
    // What computes attention elsewhere knows one sequence.
    let span = batch.spans[0]
    var end = 0
    try clock.measure(.attention) { () throws(RuntimeError) in
      try outsourced.take(
        layer: number, span, window: window, keys: workspace.keys, values: workspace.values)
      guard span.kind == .answer, span.rows.count == 1 else { return }
      end = try outsourced.fold(
        layer: number, position: span.position, window: window, queries: workspace.queries,
        into: attention.runningPartials)
    }
    return end
  }

  /// hidden = ffn(x), of one FFN or of the experts chosen, without a bias on it.
  private func feedForward(
    _ feedForward: DecoderWeights.FeedForward, _ place: FeedForwardPlace,
    _ x: UnsafePointer<Float>, after number: Int, _ batch: Batch
  ) throws(RuntimeError) {
    let tokenCount = place.tokenCount
    let width = configuration.hiddenSize
    switch feedForward {
    case .dense(let matrices):
      try gated(
        matrices, activations(x, width, tokenCount, for: matrices.up, matrices.gate),
        into: workspace.hidden, observedAt: place)
    case .experts(let layer):
      try mixtureOfExperts(layer, after: number, tokenCount: tokenCount)
    case .neurons(let layer):
      guard let step = neurons else { return }
      try step.run(
        layer, activations(x, width, tokenCount, withBlocks: step.takesBlocks(layer)),
        next: tokenCount == 1 ? nextNeurons(after: number) : nil, into: workspace.hidden)
    }
    try expectFinite(.choice(place.layer), batch)
  }

  /// output = down(act(gate(x)) * up(x)), [x.tokenCount, hiddenSize]; may be where x was. Without
  /// gate it is down(act(up(x) + bias)).
  ///
  /// - Parameter place: what the observer is told; nil if it is not to see this FFN.
  private func gated(
    _ matrices: DecoderWeights.GatedMatrices, _ x: Activations,
    into output: UnsafeMutablePointer<Float>, observedAt place: FeedForwardPlace? = nil
  ) throws(RuntimeError) {
    let length = matrices.length
    let up = LinearTask(tensor: matrices.up, output: workspace.up, outputStride: length)
    let neurons: UnsafeMutablePointer<Float>
    if let gate = matrices.gate {
      neurons = workspace.gate
      try linear.multiply(
        x, LinearTask(tensor: gate, output: neurons, outputStride: length), up)
      observe(place, x, neurons, length: length)
      forEach(x.tokenCount, .gate(length: length))
    } else {
      neurons = workspace.up
      try linear.multiply(x, up)
      if let bias = matrices.upBias { forEach(x.tokenCount, .addUpBias(bias, length: length)) }
      observe(place, x, neurons, length: length)
      forEach(x.tokenCount, .activate(length: length))
    }
    try linear.multiply(
      activations(neurons, length, x.tokenCount, for: matrices.down),
      LinearTask(
        tensor: matrices.down, output: output, outputStride: configuration.hiddenSize))
  }

  /// Shows an FFN's input and what decides about its neurons to the observer, if there is one.
  private func observe(
    _ place: FeedForwardPlace?, _ x: Activations, _ gate: UnsafePointer<Float>, length: Int
  ) {
    guard let feedForwardObserver, let place else { return }
    feedForwardObserver.feedForward(
      place, input: UnsafeBufferPointer(start: x.values, count: x.tokenCount * x.stride),
      gate: UnsafeBufferPointer(start: gate, count: x.tokenCount * length))
  }

  /// hidden = the chosen experts' sum, and the shared expert's output if there is one.
  private func mixtureOfExperts(
    _ layer: DecoderWeights.Experts, after number: Int, tokenCount: Int
  ) throws(RuntimeError) {
    guard let step = experts else { return }
    let width = configuration.hiddenSize
    let (gate, up) = (
      weights.families[layer.family].parts[0].tensor, weights.families[layer.family].parts[1].tensor
    )
    let x = activations(
      workspace.hidden, width, tokenCount,
      withBlocks: takesBlocks(layer.router, gate, up)
        || takesBlocks(layer.shared?.gate, layer.shared?.up))
    try step.run(layer, x, next: nextExperts(after: number), into: workspace.mixed)
    if let shared = layer.shared {
      try gated(shared, x, into: workspace.shared)
      forEach(tokenCount, .addShared(gate: layer.sharedGate))
    }
    forEach(tokenCount, .takeMixed)
  }

  /// The next block with bundles of neurons after a block.
  private func nextNeurons(after number: Int) -> NeuronPrefetcher.Next? {
    for block in weights.blocks[(number + 1)...] {
      guard case .neurons(let layer) = block.feedForward, let norm = block.preNorm else { continue }
      return NeuronPrefetcher.Next(
        layer: layer, norm: norm, residual: UnsafePointer(workspace.residual))
    }
    return nil
  }

  /// The next block with experts after a block.
  private func nextExperts(after number: Int) -> ExpertPrefetcher.Next? {
    for block in weights.blocks[(number + 1)...] {
      guard case .experts(let layer) = block.feedForward, let norm = block.preNorm else { continue }
      return ExpertPrefetcher.Next(
        layer: layer, norm: norm, residual: UnsafePointer(workspace.residual))
    }
    return nil
  }

  // MARK: - Small steps

  /// Does work on the keys and values of every span that is alive; one for which it fails is no longer.
  ///
  /// It is given the span's number: copies of spans, in every layer, cost more than all else here.
  private func forEachSpan(
    of batch: Batch, _ work: (_ number: Int, KeyValueStore) throws(KeyValueError) -> Void
  ) throws(RuntimeError) {
    try clock.measure(.attention) { () throws(RuntimeError) in
      for number in batch.spans.indices where batch.spans[number].isAlive {
        do throws(KeyValueError) { try work(number, batch.spans[number].cache) } catch {
          batch.fail(number, error)
        }
      }
      try batch.checkLife()
    }
  }

  /// Where the time went so far.
  ///
  /// - Parameter keyValueStall: nanoseconds spent waiting for keys and values.
  func times(keyValueStall: Int) -> TimeBreakdown {
    var times = clock.times
    times[.attention] -= keyValueStall
    times[.drive] = stream.statistics.stallNanoseconds + keyValueStall
    return times
  }

  /// hidden = norm(x) * weight + bias, row by row.
  ///
  /// - Parameter part: what made x, to be named where x is not finite.
  private func normalise(
    _ x: UnsafePointer<Float>, _ norm: DecoderWeights.Norm, _ batch: Batch,
    after part: FiniteCheck.Part
  ) throws(RuntimeError) {
    forEach(batch.rowCount, .normalise(x, rows: nil, norm))
    try expectFinite(part, batch)
  }

  /// Fails the spans of rows that a check found not to be finite; throws if none is left.
  ///
  /// - Parameter counts: whether that is a span's failure.
  private func expectFinite(
    _ part: FiniteCheck.Part, _ batch: Batch, _ counts: (Batch.Span) -> Bool = { _ in true }
  ) throws(RuntimeError) {
    let found = finite.takeFailures { row in
      let span = batch.spanNumber(ofRow: row)
      guard batch.spans[span].isAlive, counts(batch.spans[span]) else { return }
      batch.fail(span, .notFinite(path: stream.source.path, part: part.description))
    }
    if found { try batch.checkLife() }
  }

  /// The right-hand side of products with the given tensors; int8 blocks are made where one of them
  /// takes them.
  private func activations(
    _ x: UnsafePointer<Float>, _ columnCount: Int, _ tokenCount: Int, stride: Int? = nil,
    for first: Int, _ second: Int? = nil, _ third: Int? = nil
  ) -> Activations {
    activations(
      x, columnCount, tokenCount, stride: stride,
      withBlocks: takesBlocks(first, second, third))
  }

  /// Whether a product with one of the tensors takes int8 activations.
  private func takesBlocks(_ first: Int?, _ second: Int?, _ third: Int? = nil) -> Bool {
    (first.map(linear.takesBlocks) ?? false) || (second.map(linear.takesBlocks) ?? false)
      || (third.map(linear.takesBlocks) ?? false)
  }

  private func activations(
    _ x: UnsafePointer<Float>, _ columnCount: Int, _ tokenCount: Int, stride: Int? = nil,
    withBlocks: Bool
  ) -> Activations {
    let stride = stride ?? columnCount
    var result = Activations(values: x, stride: stride, blocks: nil, tokenCount: tokenCount)
    guard withBlocks else { return result }
    let blocks = ActivationBlocks(
      memory: workspace.blockMemory, columnCount: columnCount)
    clock.measure(.products) {
      quantiser.quantise(x, stride: stride, tokenCount: tokenCount, into: blocks)
    }
    result.blocks = blocks
    return result
  }
}
