import KVCache
import Kernels
import ModelFormat
import TensorBasics
import WeightLoader

/// The graph of a dense decoder: one chunk of tokens through all layers, then the output head.
///
/// Read ``forward(_:at:)`` from top to bottom: it is the whole model. Every family is this graph
/// with other values in its ``DecoderConfiguration``.
final class Decoder {
  let configuration: DecoderConfiguration
  let weights: DecoderWeights
  let stream: WeightStream
  let workspace: DecoderWorkspace
  let cache: KeyValueCache

  private let pool: ThreadPool
  private let clock = StepClock()
  private let linear: LinearExecutor
  private let attention: AttentionStep
  private let rope: RopeTable
  private let slidingRope: RopeTable
  /// Sweeps the stream was told of and that have not begun, oldest first.
  private var announced: [DecoderWeights.Segment] = []

  /// - Throws: ``RuntimeError/allocation(_:)``.
  init(
    configuration: DecoderConfiguration, weights: DecoderWeights, stream: WeightStream,
    workspace: DecoderWorkspace, cache: KeyValueCache, pool: ThreadPool
  ) throws(RuntimeError) {
    self.configuration = configuration
    self.weights = weights
    self.stream = stream
    self.workspace = workspace
    self.cache = cache
    self.pool = pool
    linear = try LinearExecutor(stream: stream, pool: pool, clock: clock)
    attention = try AttentionStep(configuration, cache: cache, pool: pool)
    rope = RopeTable(
      base: configuration.ropeBase, dimensionCount: configuration.ropeDimensionCount,
      linearScale: configuration.ropeLinearScale, frequencyFactors: weights.ropeFactors)
    slidingRope = RopeTable(
      base: configuration.slidingRopeBase ?? configuration.ropeBase,
      dimensionCount: configuration.ropeDimensionCount,
      linearScale: configuration.slidingRopeBase == nil ? configuration.ropeLinearScale : 1,
      frequencyFactors: weights.ropeFactors)
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

  /// Takes the announced sweep that begins now off the list.
  private func begin(_ segment: DecoderWeights.Segment) {
    precondition(announced.first == segment, "this sweep was not announced")
    announced.removeFirst()
  }

  /// Runs `tokens` at positions `position...`; their keys and values enter the cache, and
  /// `workspace.residual` [tokens.count, embeddingLength] holds the last layer's output.
  func forward(_ tokens: UnsafeBufferPointer<Int32>, at position: Int) throws(RuntimeError) {
    precondition(tokens.count <= workspace.tokenCapacity, "the chunk exceeds the workspace")
    try embed(tokens)
    fillRope(position: position, tokenCount: tokens.count)
    begin(.body)
    for layer in 0..<configuration.layerCount {
      try attend(layer, tokenCount: tokens.count, position: position)
      try feedForward(layer, tokenCount: tokens.count)
    }
  }

  /// Logits of chunk rows `rows`, in `workspace.logits` [rows.count, vocabularyCount].
  func logits(rows: Range<Int>) throws(RuntimeError) {
    precondition(rows.count <= workspace.logitRowCapacity, "more logits than the workspace holds")
    begin(.head)
    normalise(
      workspace.residual + rows.lowerBound * configuration.embeddingLength, weights.outputNorm,
      tokenCount: rows.count)
    try linear.multiply(
      activations(
        workspace.hidden, configuration.embeddingLength, rows.count, for: weights.head),
      LinearTask(
        tensor: weights.head, output: workspace.logits,
        outputStride: configuration.vocabularyCount))
  }

  // MARK: - The parts of a layer

  /// Embedding rows into the residual stream.
  private func embed(_ tokens: UnsafeBufferPointer<Int32>) throws(RuntimeError) {
    let width = configuration.embeddingLength
    let table = stream.source.description.tensors[weights.embedding]
    let (residual, scale) = (workspace.residual, configuration.embeddingScale)
    do throws(LoaderError) {
      try stream.readRows(tensor: weights.embedding, rows: tokens) { index, address, layout in
        let destination = residual + index * width
        switch layout {
        case .rowMajor:
          Dequantisation.row(address, type: table.type, columnCount: width, into: destination)
        case .interleaved:
          Dequantisation.row(
            inGroup: address, row: Int(tokens[index]) % RowGroup.rowCount, type: table.type,
            columnCount: width, into: destination)
        }
        if scale != 1 { VectorOps.scale(destination, by: scale, count: width) }
      }
    } catch { throw RuntimeError(error) }
  }

  /// residual += postNorm(output(attention(norm(residual))))
  private func attend(_ number: Int, tokenCount: Int, position: Int) throws(RuntimeError) {
    let layer = weights.layers[number]
    let (queryLength, keyLength) = (
      configuration.queryHeadCount * configuration.headLength,
      configuration.keyValueHeadCount * configuration.headLength
    )
    normalise(workspace.residual, layer.attentionNorm, tokenCount: tokenCount)
    try linear.multiply(
      activations(
        workspace.hidden, configuration.embeddingLength, tokenCount, for: layer.query, layer.key,
        layer.value),
      LinearTask(tensor: layer.query, output: workspace.queries, outputStride: queryLength),
      LinearTask(tensor: layer.key, output: workspace.keys, outputStride: keyLength),
      LinearTask(tensor: layer.value, output: workspace.values, outputStride: keyLength))
    let slides = configuration.slides(layer: number)
    let tables =
      workspace.rope + (slides ? tokenCount * configuration.ropeDimensionCount : 0)
    forEach(token: tokenCount) { token in
      prepareHeads(layer, token: token, rope: tables + token * configuration.ropeDimensionCount)
      cache.store(
        layer: number, position: position + token, keys: workspace.keys + token * keyLength,
        values: workspace.values + token * keyLength)
    }
    clock.measure(.attention) {
      attention.run(
        layer: number, queries: workspace.queries, tokenCount: tokenCount, position: position,
        window: slides ? configuration.slidingWindow : nil)
    }
    try linear.multiply(
      activations(workspace.queries, queryLength, tokenCount, for: layer.output),
      LinearTask(
        tensor: layer.output, output: workspace.hidden,
        outputStride: configuration.embeddingLength))
    addToResidual(layer.postAttentionNorm, tokenCount: tokenCount)
  }

  /// residual += postNorm(down(act(gate(x)) * up(x))), x = norm(residual)
  private func feedForward(_ number: Int, tokenCount: Int) throws(RuntimeError) {
    let layer = weights.layers[number]
    let width = configuration.feedForwardLength
    normalise(workspace.residual, layer.feedForwardNorm, tokenCount: tokenCount)
    try linear.multiply(
      activations(
        workspace.hidden, configuration.embeddingLength, tokenCount, for: layer.gate, layer.up),
      LinearTask(tensor: layer.gate, output: workspace.gate, outputStride: width),
      LinearTask(tensor: layer.up, output: workspace.up, outputStride: width))
    forEach(token: tokenCount) { token in
      let (gate, up) = (workspace.gate + token * width, workspace.up + token * width)
      switch configuration.activation {
      case .silu: VectorOps.siluMultiply(gate, up, count: width)
      case .geluTanh: VectorOps.geluTanhMultiply(gate, up, count: width)
      case .relu: VectorOps.reluMultiply(gate, up, count: width)
      }
    }
    try linear.multiply(
      activations(workspace.gate, width, tokenCount, for: layer.down),
      LinearTask(
        tensor: layer.down, output: workspace.hidden, outputStride: configuration.embeddingLength)
    )
    addToResidual(layer.postFeedForwardNorm, tokenCount: tokenCount)
  }

  /// Biases, per-head norms and RoPE on one token's queries and keys; scales the queries.
  private func prepareHeads(
    _ layer: DecoderWeights.Layer, token: Int, rope: UnsafePointer<Float>
  ) {
    let headLength = configuration.headLength
    let queryLength = configuration.queryHeadCount * headLength
    let keyLength = configuration.keyValueHeadCount * headLength
    let queries = workspace.queries + token * queryLength
    let keys = workspace.keys + token * keyLength
    if let bias = layer.queryBias { VectorOps.add(queries, bias, count: queryLength) }
    if let bias = layer.keyBias { VectorOps.add(keys, bias, count: keyLength) }
    if let bias = layer.valueBias {
      VectorOps.add(workspace.values + token * keyLength, bias, count: keyLength)
    }
    if let norm = layer.queryNorm {
      normaliseHeads(queries, norm, headCount: configuration.queryHeadCount)
    }
    if let norm = layer.keyNorm {
      normaliseHeads(keys, norm, headCount: configuration.keyValueHeadCount)
    }
    rotate(queries, headCount: configuration.queryHeadCount, rope)
    rotate(keys, headCount: configuration.keyValueHeadCount, rope)
    VectorOps.scale(queries, by: configuration.attentionScale, count: queryLength)
  }

  // MARK: - Small steps

  /// Does elementwise work on every token of a chunk.
  private func forEach(token tokenCount: Int, _ work: (_ token: Int) -> Void) {
    clock.measure(.elementwise) { pool.run(count: tokenCount) { token, _ in work(token) } }
  }

  /// Where the time went so far.
  var times: TimeBreakdown {
    var times = clock.times
    times[.drive] = stream.statistics.stallNanoseconds
    return times
  }

  /// hidden = RMSNorm(x) * weight, row by row.
  private func normalise(
    _ x: UnsafePointer<Float>, _ weight: UnsafePointer<Float>, tokenCount: Int
  ) {
    let width = configuration.embeddingLength
    forEach(token: tokenCount) { token in
      VectorOps.rmsNorm(
        x + token * width, weight: weight, epsilon: configuration.normEpsilon, count: width,
        into: workspace.hidden + token * width)
    }
  }

  private func normaliseHeads(
    _ heads: UnsafeMutablePointer<Float>, _ weight: UnsafePointer<Float>, headCount: Int
  ) {
    for head in 0..<headCount {
      let x = heads + head * configuration.headLength
      VectorOps.rmsNorm(
        x, weight: weight, epsilon: configuration.normEpsilon, count: configuration.headLength,
        into: x)
    }
  }

  /// RoPE on one token's heads; `rope` holds its cosines, then its sines.
  private func rotate(
    _ heads: UnsafeMutablePointer<Float>, headCount: Int, _ rope: UnsafePointer<Float>
  ) {
    VectorOps.rotate(
      heads, headCount: headCount, headLength: configuration.headLength,
      dimensionCount: configuration.ropeDimensionCount,
      adjacentPairs: configuration.ropePairing == .adjacent, cosines: rope,
      sines: rope + configuration.ropeDimensionCount / 2)
  }

  /// residual += hidden, through the norm on outputs where the family has one.
  private func addToResidual(_ norm: UnsafePointer<Float>?, tokenCount: Int) {
    let width = configuration.embeddingLength
    forEach(token: tokenCount) { token in
      let x = workspace.hidden + token * width
      if let norm {
        VectorOps.rmsNorm(
          x, weight: norm, epsilon: configuration.normEpsilon, count: width, into: x)
      }
      VectorOps.add(workspace.residual + token * width, x, count: width)
    }
  }

  /// The right-hand side of products with the given tensors; int8 blocks are made where one of them
  /// takes them.
  private func activations(
    _ x: UnsafePointer<Float>, _ columnCount: Int, _ tokenCount: Int, for first: Int,
    _ second: Int? = nil, _ third: Int? = nil
  ) -> Activations {
    var result = Activations(values: x, stride: columnCount, blocks: nil, tokenCount: tokenCount)
    guard
      linear.takesBlocks(first) || (second.map(linear.takesBlocks) ?? false)
        || (third.map(linear.takesBlocks) ?? false)
    else { return result }
    let blocks = ActivationBlocks(
      memory: workspace.blockMemory, columnCount: columnCount)
    let tile = ActivationBlocks.tokenMultiple
    clock.measure(.products) {
      pool.run(count: (tokenCount + tile - 1) / tile) { index, _ in
        let first = index * tile
        blocks.quantise(x, stride: columnCount, tokens: first..<min(first + tile, tokenCount))
      }
    }
    result.blocks = blocks
    return result
  }

  /// Cosines then sines of every token, for whole-context layers and, behind them, sliding ones.
  private func fillRope(position: Int, tokenCount: Int) {
    let length = configuration.ropeDimensionCount
    forEach(token: tokenCount) { token in
      let table = workspace.rope + token * length
      rope.fill(position: position + token, cosines: table, sines: table + length / 2)
      if !configuration.slidingLayers.isEmpty {
        let sliding = table + tokenCount * length
        slidingRope.fill(position: position + token, cosines: sliding, sines: sliding + length / 2)
      }
    }
  }
}
