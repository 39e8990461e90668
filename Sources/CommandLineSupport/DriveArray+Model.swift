public import InStorageAttention
import KVCache
public import ModelFormat
import Runtime

extension DriveArray.Shape {
  /// The attention of a model.
  ///
  /// - Parameter hostWindow: how many of the newest positions the host attends over.
  public init(_ configuration: DecoderConfiguration, contextLength: Int, hostWindow: Int = 0) {
    let keyValues = KeyValueShape(configuration, contextLength: contextLength)
    self.init(
      layerCount: keyValues.layerCount, queryHeadCount: configuration.queryHeadCount,
      keyValueHeadCount: keyValues.keyValueHeadCount, headDim: keyValues.headDim,
      contextLength: contextLength, windows: keyValues.windows, hostWindow: hostWindow)
  }

  /// Flash of each of `driveCount` drives that holds a context, and a quarter as much again.
  ///
  /// - Throws: ``DriveError/impossible(_:)``.
  public func flash(
    driveCount: Int, engine: AttentionEngineKind
  ) throws(DriveError) -> FlashGeometry {
    let pageCounts = try DriveArray.contents(self, driveCount: driveCount).map {
      ComputationalDrive.pageCount(
        $0, engine: engine, pageByteCount: FlashGeometry.standardPageByteCount)
    }
    let most = pageCounts.max() ?? 0
    return .holding(pageCount: most + most / 4)
  }
}

extension ModelParameters {
  /// What of a model decides the time of its attention; weights are left out.
  public init(_ configuration: DecoderConfiguration) {
    self.init(
      layerCount: configuration.layerCount, queryHeadCount: configuration.queryHeadCount,
      keyValueHeadCount: configuration.keyValueHeadCount, headDim: configuration.storedHeadDim,
      weightCount: 1)
  }
}

extension SparseAttention {
  /// Reads the share of a query's elements and of positions: `1/8` or `0.125` for both, `1/4,1/8` for each;
  /// nil if the text is none. The shares may be out of range.
  public init?(shares text: Substring) {
    let parts = text.split(separator: ",", omittingEmptySubsequences: false)
    let shares = parts.compactMap(Self.share)
    guard shares.count == parts.count, (1...2).contains(shares.count) else { return nil }
    self.init(channelFraction: shares[0], tokenFraction: shares[shares.count - 1])
  }

  private static func share(_ text: Substring) -> Double? {
    let parts = text.split(separator: "/", omittingEmptySubsequences: false).map { Double($0) }
    switch (parts.count, parts.first ?? nil, parts.last ?? nil) {
    case (1, let value?, _): return value
    case (2, let numerator?, let denominator?): return numerator / denominator
    default: return nil
    }
  }
}
