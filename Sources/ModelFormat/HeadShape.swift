/// The heads of one layer's attention.
public struct HeadShape: Sendable, Equatable {
  public let queryHeadCount: Int
  public let keyValueHeadCount: Int
  /// Elements of a query or key head.
  public let headDim: Int
  /// Elements of a value head.
  public let valueLength: Int

  /// Rows of the query projection.
  public var queryLength: Int { queryHeadCount * headDim }
  /// Rows of the key projection.
  public var keyLength: Int { keyValueHeadCount * headDim }
  /// Rows of the value projection.
  public var valuesLength: Int { keyValueHeadCount * valueLength }
  /// Columns of the output projection.
  public var outputLength: Int { queryHeadCount * valueLength }
}

extension DecoderConfiguration {
  /// The heads of an attention: the decoder's, where it states none.
  public func heads(of spec: AttentionSpec) -> HeadShape {
    HeadShape(
      queryHeadCount: spec.queryHeadCount ?? queryHeadCount,
      keyValueHeadCount: spec.keyValueHeadCount ?? keyValueHeadCount,
      headDim: headDim, valueLength: spec.valueLength ?? headDim)
  }

  /// Width of a dense FFN.
  public func length(of spec: FeedForwardSpec) -> Int { spec.length ?? feedForwardLength }

  /// The heads of each attention, in the order of layers.
  public var headShapes: [HeadShape] { layers.compactMap(\.attention).map(heads) }

  /// Whether attention has the same heads everywhere, with values as long as keys.
  public var hasEqualHeads: Bool {
    let first = headShapes.first
    return headShapes.allSatisfy { $0 == first && $0.valueLength == $0.headDim }
  }

  /// Elements that a head takes among keys and values: a multiple of 16, the last ones zeros.
  public var storedHeadDim: Int {
    (headShapes.reduce(headDim) { max($0, $1.valueLength) } + 15) / 16 * 16
  }

  /// KV heads that keys and values of every layer have room for; those that a layer does not have are zeros.
  public var storedKeyValueHeadCount: Int {
    headShapes.map(\.keyValueHeadCount).max() ?? keyValueHeadCount
  }

  /// Width of the widest dense FFN; 0 where there is none.
  public var longestFeedForwardLength: Int {
    layers.compactMap(\.feedForward).map(length).max() ?? 0
  }
}
