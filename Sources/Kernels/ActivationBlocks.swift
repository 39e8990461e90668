import CKernels

/// Int8 copies of activations, in blocks of 32 columns with an f32 scale: value = scale · q.
///
/// Shape [tokenCapacity, columnCount], in the caller's memory, in panels as wide as the kernels' token
/// tiles (`ck_matmul.h`): what a kernel multiplies a row group by lies in one stream. 256-wide blocks
/// would lose outliers.
public struct ActivationBlocks: @unchecked Sendable {
  // Safety: plain memory; callers quantise disjoint tokens.
  let panels: UnsafeMutablePointer<UInt8>
  let columnCount: Int

  /// Parts of a chunk that are quantised apart begin at multiples of this.
  public static let tokenMultiple = Int(CK_TILE_MULTIPLE)

  /// Bytes of a column: its quant, and its share of what a block carries.
  private static let columnByteCount = 1 + MemoryLayout<ck_block_info>.stride / 32

  /// Bytes for up to `tokenCapacity` tokens, of which the last tile may have room for more; `columnCount` is a
  /// multiple of 32.
  public static func byteCount(tokenCapacity: Int, columnCount: Int) -> Int {
    rowCount(tokenCount: tokenCapacity) * columnCount * columnByteCount
  }

  /// Rows that so many tokens take, whose last tile may have room for more.
  public static func rowCount(tokenCount: Int) -> Int { ck_panel_tokens(tokenCount) }

  /// - Parameter memory: ``byteCount(tokenCapacity:columnCount:)`` bytes, aligned to 64.
  public init(memory: UnsafeMutableRawPointer, columnCount: Int) {
    precondition(columnCount % 32 == 0, "quantised products take multiples of 32 columns")
    self.columnCount = columnCount
    panels = memory.assumingMemoryBound(to: UInt8.self)
  }

  /// Quantises `tokens` of `x` [token, columnCount], rows `stride` apart; several threads may do
  /// disjoint parts at once.
  ///
  /// Every part begins at a multiple of ``tokenMultiple``, and all but the chunk's last end at one.
  ///
  /// - Parameter columns: begin and end at multiples of 32; nil = all.
  public func quantise(
    _ x: UnsafePointer<Float>, stride: Int, tokens: Range<Int>, columns: Range<Int>? = nil,
    instructionSet: InstructionSet? = nil
  ) {
    let columns = columns ?? 0..<columnCount
    precondition(tokens.lowerBound % Self.tokenMultiple == 0, "a part must begin with a tile")
    precondition(
      columns.lowerBound % 32 == 0 && columns.upperBound % 32 == 0
        && columns.upperBound <= columnCount, "a part must be of whole blocks")
    KernelTable.of(instructionSet).pointee.quantise(
      x + tokens.lowerBound * stride, stride, tokens.count, columnCount, columns.lowerBound,
      columns.upperBound,
      panels + tokens.lowerBound * columnCount * Self.columnByteCount)
  }
}

/// Quantises activations, shared among the threads of a pool; allocates nothing.
public final class ActivationQuantiser: ParallelRegion {
  private let pool: ThreadPool
  /// What the region under way quantises.
  private var job: Job?

  private struct Job {
    var x: UnsafePointer<Float>
    var stride: Int
    var tokenCount: Int
    var blocks: ActivationBlocks
    /// Of a part, of which `columnPartCount` are beside one another.
    var columnCount: Int
    var columnPartCount: Int
  }

  /// Values of a part, about: few tokens are shared among the threads too, and a decoded token is not worth it.
  private static let partValueCount = 16 << 10

  public init(pool: ThreadPool) { self.pool = pool }

  /// Quantises all `tokenCount` tokens of `x` [token, columns], rows `stride` apart, into `blocks`.
  public func quantise(
    _ x: UnsafePointer<Float>, stride: Int, tokenCount: Int, into blocks: ActivationBlocks
  ) {
    let part = ActivationBlocks.tokenMultiple
    let columns = max(1, Self.partValueCount / min(part, max(1, tokenCount)) / 32) * 32
    let columnParts = (blocks.columnCount + columns - 1) / columns
    job = Job(
      x: x, stride: stride, tokenCount: tokenCount, blocks: blocks, columnCount: columns,
      columnPartCount: columnParts)
    pool.run(count: (tokenCount + part - 1) / part * columnParts, self)
    job = nil
  }

  public func perform(index: Int, worker: Int) {
    guard let job else { return }
    let first = index / job.columnPartCount * ActivationBlocks.tokenMultiple
    let column = index % job.columnPartCount * job.columnCount
    job.blocks.quantise(
      job.x, stride: job.stride,
      tokens: first..<min(first + ActivationBlocks.tokenMultiple, job.tokenCount),
      columns: column..<min(column + job.columnCount, job.blocks.columnCount))
  }
}

/// Right-hand side of products: [tokenCount, columns].
public struct Activations: @unchecked Sendable {
  // Safety: plain memory that is not written during a product.
  public var values: UnsafePointer<Float>
  /// Elements from one token to the next.
  public var stride: Int
  /// The same values as int8, for quantised weights.
  public var blocks: ActivationBlocks?
  public var tokenCount: Int

  public init(
    values: UnsafePointer<Float>, stride: Int, blocks: ActivationBlocks?, tokenCount: Int
  ) {
    self.values = values
    self.stride = stride
    self.blocks = blocks
    self.tokenCount = tokenCount
  }
}
