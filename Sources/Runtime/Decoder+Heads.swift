import KVCache
import Kernels
import ModelFormat

/// What happens to queries, keys and values between their products and attention.
extension Decoder {
  /// Checks and prepares a row's heads; its keys and values enter their cache where its span is alive.
  ///
  /// - Parameter rope: of the row's position.
  func storeHeads(_ batch: Batch, _ row: Int, layer: Int, rope: UnsafePointer<Float>) {
    let heads = heads[layer]
    if weights.attentions[layer].hasGate { takeQueries(row, heads) }
    let queries = workspace.queries + row * heads.queryStride
    let keys = workspace.keys + row * heads.keyStride
    let values = workspace.values + row * heads.keyStride
    finite.check(queries, count: heads.shape.queryLength, row: row)
    finite.check(keys, count: heads.shape.keyLength, row: row)
    finite.check(values, count: heads.shape.valuesLength, row: row)
    prepareHeads(weights.attentions[layer], heads, token: row, rope: rope)
    batch.liveCache(ofRow: row)?.store(
      layer: layer, position: Int(batch.positions[row]), keys: keys, values: values)
  }

  /// Takes a row's queries from between their gates, which are checked.
  private func takeQueries(_ row: Int, _ heads: HeadLayout) {
    let (length, count) = (heads.shape.headDim, 2 * heads.shape.queryLength)
    let both = workspace.gatedQueries + row * count
    finite.check(both, count: count, row: row)
    for head in 0..<heads.shape.queryHeadCount {
      (workspace.queries + row * heads.queryStride + head * length).update(
        from: both + 2 * head * length, count: length)
    }
  }

  /// Multiplies a row's attention, its heads one after the other, with the sigmoids of its gates.
  func gateHeads(_ row: Int, layer: Int) {
    let heads = heads[layer]
    let length = heads.shape.headDim
    for head in 0..<heads.shape.queryHeadCount {
      VectorOps.gate(
        workspace.queries + row * heads.queryStride + head * length,
        bySigmoidOf: workspace.gatedQueries + row * 2 * heads.shape.queryLength
          + (2 * head + 1) * length, count: length)
    }
  }

  /// Keys and values of one head enter the branches of spans that are alive, each after what it leaves.
  func storeBranches(_ batch: Batch, layer: Int, head: Int) {
    let heads = heads[layer]
    let offset = head * heads.storedHeadDim
    for branch in batch.branches where batch.spans[branch.span].isAlive {
      let first = branch.rows.lowerBound * heads.keyStride + offset
      batch.keyValueBranches?.store(
        branch.number, layer: layer, head: head, keys: workspace.keys + first,
        values: workspace.values + first, stride: heads.keyStride)
    }
  }

  /// Biases, norms of heads and RoPE on one token's queries and keys; scales the queries.
  private func prepareHeads(
    _ layer: DecoderWeights.Attention, _ heads: HeadLayout, token: Int, rope: UnsafePointer<Float>
  ) {
    let shape = heads.shape
    let (queryLength, keyLength) = (shape.queryLength, shape.keyLength)
    let queries = workspace.queries + token * heads.queryStride
    let keys = workspace.keys + token * heads.keyStride
    let values = workspace.values + token * heads.keyStride
    if let bias = layer.queryBias { VectorOps.add(queries, bias, count: queryLength) }
    if let bias = layer.keyBias { VectorOps.add(keys, bias, count: keyLength) }
    if let bias = layer.valueBias { VectorOps.add(values, bias, count: shape.valuesLength) }
    // Over each head, or over the projection as if it were one.
    let isWhole = layer.normalisesWhole
    if let norm = layer.queryNorm {
      normaliseHeads(
        queries, norm, headCount: isWhole ? 1 : shape.queryHeadCount,
        headDim: isWhole ? queryLength : shape.headDim)
    }
    if let norm = layer.keyNorm {
      normaliseHeads(
        keys, norm, headCount: isWhole ? 1 : shape.keyValueHeadCount,
        headDim: isWhole ? keyLength : shape.headDim)
    }
    if layer.rope != nil {
      rotate(queries, headCount: shape.queryHeadCount, rope)
      rotate(keys, headCount: shape.keyValueHeadCount, rope)
    }
    if layer.valueScale != 1 {
      VectorOps.scale(values, by: layer.valueScale, count: shape.valuesLength)
    }
    VectorOps.scale(queries, by: configuration.attentionScale, count: queryLength)
    heads.spreadQueries(queries)
    heads.spread(keys: keys, values: values)
  }

  private func normaliseHeads(
    _ heads: UnsafeMutablePointer<Float>, _ weight: UnsafePointer<Float>, headCount: Int,
    headDim: Int
  ) {
    for head in 0..<headCount {
      let x = heads + head * headDim
      VectorOps.rmsNorm(
        x, weight: weight, epsilon: configuration.normEpsilon, count: headDim, into: x)
    }
  }

  /// RoPE on one token's heads; `rope` holds its cosines, then its sines.
  private func rotate(
    _ heads: UnsafeMutablePointer<Float>, headCount: Int, _ rope: UnsafePointer<Float>
  ) {
    VectorOps.rotate(
      heads, headCount: headCount, headDim: configuration.headDim,
      dimensionCount: configuration.ropeDimensionCount,
      adjacentPairs: configuration.ropePairing == .adjacent, cosines: rope,
      sines: rope + configuration.ropeDimensionCount / 2)
  }

  /// Cosines then sines of a row's position, for whole-context layers and, after those of all rows, sliding ones.
  func fillRope(_ batch: Batch, _ row: Int) {
    let length = configuration.ropeDimensionCount
    let table = workspace.rope + row * length
    let position = Int(batch.positions[row])
    rope.fill(position: position, cosines: table, sines: table + length / 2)
    if usesSlidingRope {
      let sliding = table + batch.rowCount * length
      slidingRope.fill(position: position, cosines: sliding, sines: sliding + length / 2)
    }
  }
}
