/// What of a decoder model decides the time of its attention and its products.
public struct ModelParameters: Sendable, Equatable {
  public var layerCount: Int
  public var queryHeadCount: Int
  /// Below ``queryHeadCount`` with grouped queries (GQA); the paper only has models where both are equal.
  public var keyValueHeadCount: Int
  /// Elements of a head.
  public var headDim: Int
  /// All weights, elements.
  public var weightCount: Double
  /// Bytes of a weight and of an element of keys and values; 2 for f16.
  public var elementByteCount: Int

  public init(
    layerCount: Int, queryHeadCount: Int, keyValueHeadCount: Int, headDim: Int,
    weightCount: Double, elementByteCount: Int = 2
  ) {
    self.layerCount = layerCount
    self.queryHeadCount = queryHeadCount
    self.keyValueHeadCount = keyValueHeadCount
    self.headDim = headDim
    self.weightCount = weightCount
    self.elementByteCount = elementByteCount
  }

  /// OPT-13B (arXiv 2205.01068, table 1): 40 layers, 40 heads of 128.
  public static let opt13B = ModelParameters(
    layerCount: 40, queryHeadCount: 40, keyValueHeadCount: 40, headDim: 128,
    weightCount: 12.85e9)

  /// OPT-30B (arXiv 2205.01068, table 1): 48 layers, 56 heads of 128.
  public static let opt30B = ModelParameters(
    layerCount: 48, queryHeadCount: 56, keyValueHeadCount: 56, headDim: 128,
    weightCount: 29.97e9)

  /// Llama 2 13B (arXiv 2307.09288): 40 layers, 40 heads of 128.
  public static let llama2With13B = ModelParameters(
    layerCount: 40, queryHeadCount: 40, keyValueHeadCount: 40, headDim: 128,
    weightCount: 13.02e9)

  /// Llama 3 8B (arXiv 2407.21783, table 3): 32 layers, 32 query heads and 8 KV heads of 128.
  public static let llama3With8B = ModelParameters(
    layerCount: 32, queryHeadCount: 32, keyValueHeadCount: 8, headDim: 128, weightCount: 8.03e9)

  /// Query heads that share a KV head.
  public var groupLength: Int { queryHeadCount / max(1, keyValueHeadCount) }

  /// One head's keys, or values, of one token.
  public var headTokenByteCount: Int { headDim * elementByteCount }

  public var weightByteCount: Double { weightCount * Double(elementByteCount) }

  /// Keys and values of one token, all layers, each stored once.
  public var tokenByteCount: Double { Double(layerCount) * layerTokenByteCount }

  /// Keys and values of one token and layer, each stored once.
  public var layerTokenByteCount: Double { 2 * Double(keyValueHeadCount * headTokenByteCount) }

  /// What crosses the bus for one token and layer when a drive computes attention: q and out of all query
  /// heads, k and v of all KV heads.
  public var layerBusByteCount: Double {
    2 * Double((queryHeadCount + keyValueHeadCount) * headTokenByteCount)
  }

  /// What one token and layer take on the link of a drive that holds `headCount` KV heads and returns partials.
  ///
  /// Queries go there, and the maximum, the sum and the output of each query head come back, all f32.
  /// The paper's drive returns outputs, of ``elementByteCount`` bytes an element: ``layerBusByteCount``.
  public func foldTransferNanoseconds(headCount: Int, drive: DriveParameters) -> Double {
    let elements = headCount * groupLength * (headDim + headDim + 2)
    return 4e9 * Double(elements) / drive.linkBytesPerSecond + 2 * drive.linkNanoseconds
  }

  /// - Throws: ``TimingError`` if a count is not positive or heads do not divide.
  func validate() throws(TimingError) {
    try requireCount("layers", layerCount, upTo: 1 << 20)
    try requireCount("query heads", queryHeadCount, upTo: 1 << 20)
    try requireCount("KV heads", keyValueHeadCount, upTo: 1 << 20)
    try requireCount("elements of a head", headDim, upTo: 1 << 20)
    try requireCount("bytes of an element", elementByteCount, upTo: 16)
    try requirePositive("weights", weightCount)
    guard queryHeadCount % keyValueHeadCount == 0 else {
      throw .unevenHeads(queryHeadCount: queryHeadCount, keyValueHeadCount: keyValueHeadCount)
    }
  }
}

/// - Throws: ``TimingError/outOfRange(parameter:value:)`` where `value` is not in `1...limit`; the limits keep
///   products of counts representable and a simulation finite.
func requireCount(_ parameter: String, _ value: Int, upTo limit: Int) throws(TimingError) {
  guard value >= 1, value <= limit else {
    throw .outOfRange(parameter: parameter, value: Double(value))
  }
}

/// - Throws: ``TimingError/outOfRange(parameter:value:)`` where `value` is not a positive number.
func requirePositive(_ parameter: String, _ value: Double) throws(TimingError) {
  guard value.isFinite, value > 0 else { throw .outOfRange(parameter: parameter, value: value) }
}

/// - Throws: ``TimingError/outOfRange(parameter:value:)`` where `value` is negative or no number.
func requireNotNegative(_ parameter: String, _ value: Double) throws(TimingError) {
  guard value.isFinite, value >= 0 else { throw .outOfRange(parameter: parameter, value: value) }
}
