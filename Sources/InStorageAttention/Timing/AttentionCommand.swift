/// What one attend command, one KV head of one sequence, asks of a drive.
public struct AttentionCommand: Sendable, Equatable {
  /// Tokens of one head in a page.
  public let tokensPerPage: Int
  /// Pages of all tokens of the head's keys, or of its values; tokens that do not fill a page yet are in
  /// device DRAM.
  public let storedPageCount: Int
  /// Pages of keys by channel that are read; 0 unless sparse.
  public let channelPageCount: Int
  /// Pages of keys by token that are read, and of values.
  public let tokenPageCount: Int
  /// Tokens in device DRAM.
  public let bufferedTokenCount: Int
  /// Scores of all tokens and query heads of the group.
  public let scoreCount: Double
  /// Scores of those tokens that are attended to exactly.
  public let exactScoreCount: Double
  /// Of a page that was read, the share that leaves the filter.
  public let keptFraction: Double
  /// Operations per page's kept entries: a product and a sum, for each query head of the group.
  public let operationsPerPage: Double
  /// Operations on one buffered token's keys, or values.
  public let operationsPerBufferedToken: Double

  /// - Throws: ``TimingError`` where `context` is not positive or the mode's compression is not in (0, 1].
  public init(
    model: ModelParameters, drive: DriveParameters, context: Int, mode: AttentionMode
  ) throws(TimingError) {
    try drive.validate(for: model)
    try requireCount("context", context, upTo: 1 << 25)
    let entries = mode.entryFraction
    guard entries > 0, entries <= 1 else {
      throw .outOfRange(parameter: "compression", value: entries)
    }
    tokensPerPage = drive.geometry.pageByteCount / model.headTokenByteCount
    let group = Double(model.groupLength)
    storedPageCount = context / tokensPerPage
    bufferedTokenCount = context % tokensPerPage
    let read = Int((Double(storedPageCount) * mode.pageFraction).rounded(.up))
    tokenPageCount = read
    channelPageCount = mode.storesKeysTwice ? read : 0
    keptFraction = entries / mode.pageFraction
    scoreCount = Double(context) * group
    exactScoreCount =
      mode == .dense
      ? scoreCount
      : (Double(read * tokensPerPage) * keptFraction + Double(bufferedTokenCount)) * group
    operationsPerBufferedToken = 2 * Double(model.headDim) * group
    operationsPerPage = operationsPerBufferedToken * Double(tokensPerPage) * keptFraction
  }

  /// Of the exact scores, those of tokens in device DRAM.
  public var bufferedScoreCount: Double {
    let tokens = storedPageCount * tokensPerPage + bufferedTokenCount
    return scoreCount * Double(bufferedTokenCount) / Double(tokens)
  }

  /// Pages of keys and values that are read.
  public var pageCount: Int { channelPageCount + 2 * tokenPageCount }

  /// Operations of the matrix-vector units.
  public var operationCount: Double {
    Double(pageCount) * operationsPerPage + 2 * Double(bufferedTokenCount)
      * operationsPerBufferedToken
  }

  /// Scores through the softmax units: the approximate ones first if there are any.
  public var softmaxScoreCount: Double {
    exactScoreCount + (channelPageCount > 0 ? scoreCount : 0)
  }
}
