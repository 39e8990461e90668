import ModelFormat

/// Where a token's heads lie: one after the other as products give them, or apart.
///
/// Attention and the cache take heads of a multiple of 16 elements. Shorter ones are moved apart once they are
/// rotated, with zeros between them, which add nothing to any sum.
struct HeadLayout {
  private let headDim: Int
  private let storedHeadDim: Int
  /// Elements of a token's queries, and of its keys, as products give them.
  let queryLength: Int
  let keyLength: Int
  /// Elements from one token's queries, or keys, to the next token's.
  let queryStride: Int
  let keyStride: Int

  init(_ configuration: DecoderConfiguration) {
    headDim = configuration.headDim
    storedHeadDim = configuration.storedHeadDim
    queryLength = configuration.queryHeadCount * headDim
    keyLength = configuration.keyValueHeadCount * headDim
    queryStride = configuration.queryHeadCount * storedHeadDim
    keyStride = configuration.keyValueHeadCount * storedHeadDim
  }

  private var isPadded: Bool { headDim != storedHeadDim }

  /// Moves a token's heads, which lie one after the other, apart.
  func spread(_ heads: UnsafeMutablePointer<Float>, count: Int) {
    guard isPadded else { return }
    for head in (0..<count).reversed() {
      let target = heads + head * storedHeadDim
      target.update(from: heads + head * headDim, count: headDim)
      (target + headDim).update(repeating: 0, count: storedHeadDim - headDim)
    }
  }

  /// Moves the heads of a chunk's queries together again.
  func joinQueries(_ queries: UnsafeMutablePointer<Float>, tokenCount: Int) {
    guard isPadded else { return }
    for token in 0..<tokenCount {
      let heads = queries + token * queryStride
      for head in 0..<queryStride / storedHeadDim {
        (heads + head * headDim).update(from: heads + head * storedHeadDim, count: headDim)
      }
    }
  }
}
