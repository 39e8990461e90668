public import KVCache
public import Kernels
public import ModelFormat

extension KeyValueShape {
  /// The shape of a model's keys and values.
  public init(
    _ configuration: DecoderConfiguration, contextLength: Int, type: KeyValueType = .f16
  ) {
    self.init(
      layerCount: configuration.windows.count,
      keyValueHeadCount: configuration.storedKeyValueHeadCount,
      headDim: configuration.storedHeadDim, contextLength: contextLength, type: type,
      windows: configuration.windows,
      stateByteCounts: configuration.scans.map { $0.stateCount * MemoryLayout<Float>.stride })
  }
}
