import CKernels

/// Int8 copies of activations, in blocks of 32 columns with an f32 scale: value = scale · q.
///
/// Shape [tokenCapacity, columnCount], in the caller's memory. 256-wide blocks would lose outliers.
public struct ActivationBlocks: @unchecked Sendable {
  // Safety: plain memory; callers quantise disjoint tokens.
  let quants: UnsafeMutablePointer<Int8>
  let info: UnsafeMutablePointer<ck_block_info>
  let columnCount: Int

  /// Rows are a cache line apart from a power of two, so that the tokens of a tile do not meet in one
  /// cache set.
  var quantStride: Int { columnCount + 64 }
  var infoStride: Int { columnCount / 32 + 2 }

  /// Bytes for `tokenCapacity` tokens; `columnCount` is a multiple of 32.
  public static func byteCount(tokenCapacity: Int, columnCount: Int) -> Int {
    tokenCapacity
      * (columnCount + 64 + (columnCount / 32 + 2) * MemoryLayout<ck_block_info>.stride)
  }

  /// - Parameter memory: ``byteCount(tokenCapacity:columnCount:)`` bytes, aligned to 64.
  public init(memory: UnsafeMutableRawPointer, tokenCapacity: Int, columnCount: Int) {
    precondition(columnCount % 32 == 0, "quantised products take multiples of 32 columns")
    self.columnCount = columnCount
    quants = memory.assumingMemoryBound(to: Int8.self)
    info = (memory + tokenCapacity * (columnCount + 64)).assumingMemoryBound(to: ck_block_info.self)
  }

  /// Quantises `tokens` of `x` [token, columnCount], rows `stride` apart; several threads may do
  /// disjoint tokens at once.
  public func quantise(
    _ x: UnsafePointer<Float>, stride: Int, tokens: Range<Int>,
    instructionSet: InstructionSet = .best
  ) {
    let function = MatrixFunctions.of(instructionSet).quantise
    for token in tokens {
      function(
        x + token * stride, columnCount, quants + token * quantStride, info + token * infoStride)
    }
  }
}

/// Right-hand side of products: [tokenCount, columns].
public struct Activations: @unchecked Sendable {
  // Safety: plain memory that nobody writes during a product.
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
