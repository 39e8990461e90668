import CKernels

/// The unit of attention: 512 positions, absolute, of one KV head; four blocks, anywhere in memory.
public enum AttentionTile {
  public static let positionCount = 512
  public static let blockCount = positionCount / KeyValueBlock.positionCount
}

/// The positions a query sees, both ends included; none where `last < first`.
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
/// They form a monoid under ``AttentionKernel/merge(into:from:instructionSet:)``; the identity is
/// m = −∞. A view over the caller's memory: m [queryCount], l [queryCount],
/// o [queryCount, headLength].
public struct AttentionPartials: @unchecked Sendable {
  // Safety: plain memory; callers agree on who writes it.
  public let maxima: UnsafeMutablePointer<Float>
  public let sums: UnsafeMutablePointer<Float>
  public let outputs: UnsafeMutablePointer<Float>
  public let queryCount: Int
  public let headLength: Int

  public static func byteCount(queryCount: Int, headLength: Int) -> Int {
    (2 * queryCount + queryCount * headLength) * 4
  }

  public init(memory: UnsafeMutableRawPointer, queryCount: Int, headLength: Int) {
    outputs = memory.assumingMemoryBound(to: Float.self)
    maxima = outputs + queryCount * headLength
    sums = maxima + queryCount
    self.queryCount = queryCount
    self.headLength = headLength
  }

  /// Makes every partial the identity.
  public func reset() {
    maxima.update(repeating: -.infinity, count: queryCount)
    sums.update(repeating: 0, count: queryCount)
    outputs.update(repeating: 0, count: queryCount * headLength)
  }
}

/// Exact attention by tiles with the online softmax (FlashAttention, arXiv:2205.14135 §3.1).
///
/// A query's bits depend on its own tiles alone: not on the other queries of a call, nor on how tiles
/// are divided among callers, as long as partials are merged in ascending order.
public enum AttentionKernel {
  /// Bytes of scratch that ``accumulate`` needs.
  public static func scratchByteCount(queryCount: Int, headLength: Int) -> Int {
    queryCount * (Int(CK_SCORE_STRIDE) + 2 + headLength) * 4
  }

  /// Attends over one tile and merges the result into `partials`.
  ///
  /// - Parameters:
  ///   - blocks: addresses of the tile's ``AttentionTile/blockCount`` blocks; nil for those that are
  ///     not attended over.
  ///   - nextBlocks: those of the tile that the caller attends over next, fetched into the cache
  ///     meanwhile.
  ///   - tileFirstPosition: absolute, a multiple of ``AttentionTile/positionCount``.
  ///   - headLength: a multiple of 16.
  ///   - queries: [queryCount] rows of headLength, `queryStride` apart, scaled and rotated.
  ///   - visible: [queryCount], absolute positions.
  public static func accumulate(
    blocks: UnsafePointer<UnsafeRawPointer?>, nextBlocks: UnsafePointer<UnsafeRawPointer?>? = nil,
    tileFirstPosition: Int, headLength: Int,
    queries: UnsafePointer<Float>, queryStride: Int, visible: UnsafePointer<VisibleRange>,
    queryCount: Int, into partials: AttentionPartials, scratch: UnsafeMutableRawPointer,
    instructionSet: InstructionSet? = nil
  ) {
    precondition(headLength % 16 == 0, "a head must be a multiple of 16 elements long")
    var arguments = ck_attention_tile_arguments(
      blocks: UnsafeRawPointer(blocks).assumingMemoryBound(to: UnsafePointer<UInt16>?.self),
      next_blocks: nextBlocks.map {
        UnsafeRawPointer($0).assumingMemoryBound(to: UnsafePointer<UInt16>?.self)
      },
      first_position: Int32(tileFirstPosition), head_length: headLength, queries: queries,
      query_stride: queryStride,
      visible: UnsafeRawPointer(visible).assumingMemoryBound(to: ck_visible.self),
      query_count: queryCount, m: partials.maxima, l: partials.sums, o: partials.outputs,
      scratch: scratch.assumingMemoryBound(to: Float.self))
    AttentionFunctions.of(instructionSet).tile(&arguments)
  }

  /// Merges `other`, which covers later positions, into `partials`.
  public static func merge(
    into partials: AttentionPartials, from other: AttentionPartials,
    instructionSet: InstructionSet? = nil
  ) {
    AttentionFunctions.of(instructionSet).merge(
      partials.maxima, partials.sums, partials.outputs, other.maxima, other.sums, other.outputs,
      partials.queryCount, partials.headLength)
  }

  /// output = o / l, rows `outputStride` apart; 0 for a query that saw nothing.
  public static func finish(
    _ partials: AttentionPartials, into output: UnsafeMutablePointer<Float>, outputStride: Int
  ) {
    for query in 0..<partials.queryCount {
      let sum = partials.sums[query]
      let row = partials.outputs + query * partials.headLength
      for element in 0..<partials.headLength {
        output[query * outputStride + element] = sum > 0 ? row[element] / sum : 0
      }
    }
  }
}

/// The functions of one instruction set.
struct AttentionFunctions: @unchecked Sendable {
  // Safety: C functions without state.
  var store:
    @convention(c) (
      UnsafePointer<Float>?, UnsafePointer<Float>?, Int, Int, UnsafeMutablePointer<UInt16>?
    ) -> Void
  var tile: @convention(c) (UnsafePointer<ck_attention_tile_arguments>?) -> Void
  var merge:
    @convention(c) (
      UnsafeMutablePointer<Float>?, UnsafeMutablePointer<Float>?, UnsafeMutablePointer<Float>?,
      UnsafePointer<Float>?, UnsafePointer<Float>?, UnsafePointer<Float>?, Int, Int
    ) -> Void

  var keyRange:
    @convention(c) (
      UnsafePointer<UInt16>?, Int, UnsafeMutablePointer<UInt16>?, UnsafeMutablePointer<UInt16>?
    ) -> Void
  var scoreEstimates:
    @convention(c) (
      UnsafePointer<Float>?, Int, UnsafePointer<UInt16>?, UnsafePointer<UInt16>?,
      UnsafeMutablePointer<Float>?
    ) -> Void
  var quantise:
    @convention(c) (UnsafePointer<UInt16>?, Int, Int32, UnsafeMutablePointer<UInt8>?) -> Void
  var expand:
    @convention(c) (UnsafePointer<UInt8>?, Int, Int32, UnsafeMutablePointer<UInt16>?) -> Void

  private static let best = make(.best)

  static func of(_ set: InstructionSet?) -> AttentionFunctions { set.map(make) ?? best }

  private static func make(_ set: InstructionSet) -> AttentionFunctions {
    #if arch(x86_64)
      if set == .avx512, set.isAvailable {
        return AttentionFunctions(
          store: ck_store_group_avx512, tile: ck_attention_tile_avx512,
          merge: ck_attention_merge_avx512,
          keyRange: ck_key_range_avx512, scoreEstimates: ck_score_estimates_avx512,
          quantise: ck_quantise_block_avx512,
          expand: ck_expand_block_avx512)
      }
      if set == .avx2, set.isAvailable {
        return AttentionFunctions(
          store: ck_store_group_avx2, tile: ck_attention_tile_avx2, merge: ck_attention_merge_avx2,
          keyRange: ck_key_range_avx2, scoreEstimates: ck_score_estimates_avx2,
          quantise: ck_quantise_block_avx2, expand: ck_expand_block_avx2)
      }
    #elseif arch(arm64)
      if set == .neon {
        return AttentionFunctions(
          store: ck_store_group_neon, tile: ck_attention_tile_neon, merge: ck_attention_merge_neon,
          keyRange: ck_key_range_neon, scoreEstimates: ck_score_estimates_neon,
          quantise: ck_quantise_block_neon, expand: ck_expand_block_neon)
      }
    #endif
    return AttentionFunctions(
      store: ck_store_group_scalar, tile: ck_attention_tile_scalar,
      merge: ck_attention_merge_scalar,
      keyRange: ck_key_range_scalar, scoreEstimates: ck_score_estimates_scalar,
      quantise: ck_quantise_block_scalar,
      expand: ck_expand_block_scalar)
  }
}
