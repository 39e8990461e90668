import CKernels

/// The least and greatest elements of keys, channel by channel, from which scores are estimated without the keys.
///
/// As in Quest (arXiv:2406.10774 §3.2), whose pages are our groups; Quest takes the scores' upper bound.
///
/// A summary holds sixteen groups of one KV head: the lowest elements [headDim][16] f16, then the
/// highest ones; a lane is a group, two blocks lie together.
public enum KeySummary {
  /// Groups of a summary.
  public static let laneCount = 16

  public static func byteCount(headDim: Int) -> Int { 4 * laneCount * headDim }

  /// Sums up the keys of every group of a block.
  ///
  /// - Parameters:
  ///   - block: f16, as ``KeyValueBlock`` has them.
  ///   - firstLane: of the block's groups, 0 or 8.
  public static func summarise(
    block: UnsafeRawPointer, headDim: Int, firstLane: Int, into summary: UnsafeMutableRawPointer,
    instructionSet: InstructionSet? = nil
  ) {
    let kernels = KernelTable.of(instructionSet)
    let lowest = summary.assumingMemoryBound(to: UInt16.self)
    let highest = lowest + laneCount * headDim
    let groupByteCount = KeyValueGroup.byteCount(headDim: headDim)
    for group in 0..<KeyValueBlock.positionCount / KeyValueGroup.positionCount {
      kernels.pointee.key_range(
        (block + group * groupByteCount).assumingMemoryBound(to: UInt16.self), headDim,
        lowest + firstLane + group, highest + firstLane + group)
    }
  }

  /// Estimates [16] of the logarithm of what e^score is on average with the keys of each group, for a
  /// `query` [headDim].
  public static func estimateScores(
    query: UnsafePointer<Float>, headDim: Int, summary: UnsafeRawPointer,
    into estimates: UnsafeMutablePointer<Float>, instructionSet: InstructionSet? = nil
  ) {
    let lowest = summary.assumingMemoryBound(to: UInt16.self)
    KernelTable.of(instructionSet).pointee.score_estimates(
      query, headDim, lowest, lowest + laneCount * headDim, estimates)
  }
}
