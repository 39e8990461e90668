import CKernels

/// The unit of attention: 512 positions, absolute, of one KV head; 32 groups, anywhere in memory.
public enum AttentionTile {
  public static let positionCount = 512
  public static let groupCount = positionCount / KeyValueGroup.positionCount
  /// Blocks of groups that lie together.
  public static let blockCount = positionCount / KeyValueBlock.positionCount

  /// Writes the addresses of a block's groups among those of its tile [groupCount].
  ///
  /// - Parameters:
  ///   - block: of f16 groups; nil if it is not attended over.
  ///   - index: the block's number in the tile.
  package static func place(
    _ block: UnsafeRawPointer?, at index: Int, headDim: Int,
    in groups: UnsafeMutablePointer<UnsafeRawPointer?>
  ) {
    let (first, count) = (groups + index * KeyValueBlock.groupCount, KeyValueBlock.groupCount)
    guard let block else { return first.update(repeating: nil, count: count) }
    let stride = KeyValueGroup.byteCount(headDim: headDim)
    for group in 0..<count { first[group] = block + group * stride }
  }
}

/// The positions a query sees, both ends included; none if `last < first`.
public struct VisibleRange: Sendable, BitwiseCopyable {
  public var first: Int32
  public var last: Int32

  public init(first: Int32, last: Int32) {
    self.first = first
    self.last = last
  }
}

/// Partial softmax results of queries over some positions: maximum m, sum l, accumulator o.
///
/// The identity of ``AttentionKernel/merge(into:from:instructionSet:)`` is m = −∞. Merging rounds, so
/// partials do not associate to the bit: attention is the left fold of single tiles, in ascending order. A
/// view over the caller's memory: m [queryCount], l [queryCount], o [queryCount, headDim].
public struct AttentionPartials: @unchecked Sendable {
  // Safety: plain memory; callers agree on who writes it.
  public let maxima: UnsafeMutablePointer<Float>
  public let sums: UnsafeMutablePointer<Float>
  public let outputs: UnsafeMutablePointer<Float>
  public let queryCount: Int
  public let headDim: Int

  public static func byteCount(queryCount: Int, headDim: Int) -> Int {
    (2 * queryCount + queryCount * headDim) * 4
  }

  public init(memory: UnsafeMutableRawPointer, queryCount: Int, headDim: Int) {
    outputs = memory.assumingMemoryBound(to: Float.self)
    maxima = outputs + queryCount * headDim
    sums = maxima + queryCount
    self.queryCount = queryCount
    self.headDim = headDim
  }

  /// Makes every partial the identity.
  public func reset() {
    maxima.update(repeating: -.infinity, count: queryCount)
    sums.update(repeating: 0, count: queryCount)
    outputs.update(repeating: 0, count: queryCount * headDim)
  }

  /// Copies partials of as many queries and elements.
  package func update(from other: AttentionPartials) {
    maxima.update(from: other.maxima, count: queryCount)
    sums.update(from: other.sums, count: queryCount)
    outputs.update(from: other.outputs, count: queryCount * headDim)
  }

  /// Makes partials of finished outputs, which are in ``outputs``:
  /// ``AttentionKernel/finish(_:sinks:into:outputStride:instructionSet:)`` gives the same.
  package func close() {
    maxima.update(repeating: 0, count: queryCount)
    sums.update(repeating: 1, count: queryCount)
  }
}

/// Partials of one token's query heads, in the caller's memory: of each KV head in turn, those of the query
/// heads that share it.
public struct TokenPartials: @unchecked Sendable {
  // Safety: plain memory; callers agree on who writes it.
  private let memory: UnsafeMutableRawPointer
  /// Query heads that share a KV head.
  public let groupSize: Int
  public let headDim: Int

  public init(memory: UnsafeMutableRawPointer, groupSize: Int, headDim: Int) {
    self.memory = memory
    self.groupSize = groupSize
    self.headDim = headDim
  }

  /// Those of the query heads that share a KV head.
  public subscript(keyValueHead: Int) -> AttentionPartials {
    AttentionPartials(
      memory: memory
        + keyValueHead * AttentionPartials.byteCount(queryCount: groupSize, headDim: headDim),
      queryCount: groupSize, headDim: headDim)
  }
}

/// Exact attention by tiles with the online softmax (FlashAttention, arXiv:2205.14135 §3.1).
///
/// A query's bits depend on its own tiles alone: not on the other queries of a call, nor on who computes a
/// tile, as long as tiles are merged one by one and in ascending order.
public enum AttentionKernel {
  /// Bytes of scratch that `accumulate` needs.
  public static func scratchByteCount(queryCount: Int, headDim: Int) -> Int {
    queryCount * (Int(CK_SCORE_STRIDE) + 2 + headDim) * 4
  }

  /// Attends over one tile and merges the result into `partials`.
  ///
  /// - Parameters:
  ///   - groups: addresses of the tile's ``AttentionTile/groupCount`` groups; nil for those that are
  ///     not attended over.
  ///   - nextGroups: those of the tile that the caller attends over next, fetched into the cache
  ///     meanwhile.
  ///   - tileFirstPosition: absolute, a multiple of ``AttentionTile/positionCount``.
  ///   - headDim: a multiple of 16.
  ///   - queries: [queryCount] rows of headDim, `queryStride` apart, scaled and rotated.
  ///   - visible: [queryCount], absolute positions.
  ///   - softCap: scores become softCap · tanh(score / softCap); 0 = they stay.
  public static func accumulate(
    groups: UnsafePointer<UnsafeRawPointer?>, nextGroups: UnsafePointer<UnsafeRawPointer?>? = nil,
    tileFirstPosition: Int, headDim: Int,
    queries: UnsafePointer<Float>, queryStride: Int, visible: UnsafePointer<VisibleRange>,
    queryCount: Int, into partials: AttentionPartials, scratch: UnsafeMutableRawPointer,
    softCap: Float = 0, instructionSet: InstructionSet? = nil
  ) {
    precondition(headDim % 16 == 0, "a head must be a multiple of 16 elements long")
    var arguments = ck_attention_tile_arguments(
      groups: UnsafeRawPointer(groups).assumingMemoryBound(to: UnsafePointer<UInt16>?.self),
      next_groups: nextGroups.map {
        UnsafeRawPointer($0).assumingMemoryBound(to: UnsafePointer<UInt16>?.self)
      },
      first_position: Int32(tileFirstPosition), head_length: headDim, queries: queries,
      query_stride: queryStride,
      visible: UnsafeRawPointer(visible).assumingMemoryBound(to: ck_visible.self),
      query_count: queryCount, m: partials.maxima, l: partials.sums, o: partials.outputs,
      scratch: scratch.assumingMemoryBound(to: Float.self), soft_cap: softCap)
    KernelTable.of(instructionSet).pointee.attention_tile(&arguments)
  }

  /// Merges `other`, which covers later positions, into `partials`.
  public static func merge(
    into partials: AttentionPartials, from other: AttentionPartials,
    instructionSet: InstructionSet? = nil
  ) {
    KernelTable.of(instructionSet).pointee.attention_merge(
      partials.maxima, partials.sums, partials.outputs, other.maxima, other.sums, other.outputs,
      partials.queryCount, partials.headDim)
  }

  /// output = o / l, rows `outputStride` apart; 0 for a query that saw nothing.
  ///
  /// - Parameter sinks: numbers that take part in the softmax as scores without a value, in turn: e^sink is added to
  ///   l. The partials' maxima are lost then.
  public static func finish(
    _ partials: AttentionPartials, sinks: UnsafeBufferPointer<Float>? = nil,
    into output: UnsafeMutablePointer<Float>, outputStride: Int,
    instructionSet: InstructionSet? = nil
  ) {
    if let sinks { add(sinks, to: partials, instructionSet) }
    for query in 0..<partials.queryCount {
      let sum = partials.sums[query]
      let row = partials.outputs + query * partials.headDim
      let result = output + query * outputStride
      // Without a branch inside, the compiler divides several elements at once.
      guard sum > 0 else {
        result.update(repeating: 0, count: partials.headDim)
        continue
      }
      for element in 0..<partials.headDim { result[element] = row[element] / sum }
    }
  }

  /// Where a sink is far above all scores its power, and with it the sum, is infinite, and the output 0.
  private static func add(
    _ sinks: UnsafeBufferPointer<Float>, to partials: AttentionPartials,
    _ instructionSet: InstructionSet?
  ) {
    let powers = partials.maxima
    for query in 0..<partials.queryCount {
      powers[query] = sinks[query % sinks.count] - powers[query]
    }
    VectorOps.exp(powers, count: partials.queryCount, instructionSet: instructionSet)
    for query in 0..<partials.queryCount { partials.sums[query] += powers[query] }
  }
}
