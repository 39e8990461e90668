/// Why a drive, a machine or a workload cannot be simulated.
public enum TimingError: Error, Equatable, CustomStringConvertible {
  /// A count, rate or time that must be positive (or, of a latency, not negative) is not.
  case outOfRange(parameter: String, value: Double)
  /// A flash page does not hold one head's keys of one token.
  case pageTooSmall(pageByteCount: Int, tokenByteCount: Int)
  /// Query heads do not divide among the KV heads.
  case unevenHeads(queryHeadCount: Int, keyValueHeadCount: Int)
  /// The drive has no attention engine.
  case noEngine
  /// Keys and values of the whole context exceed the drives.
  case driveFull(neededByteCount: Double, capacityByteCount: Double)

  public var description: String {
    switch self {
    case .outOfRange(let parameter, let value):
      "impossible device: \(parameter) is \(value)"
    case .pageTooSmall(let pageByteCount, let tokenByteCount):
      "impossible device: a page of \(pageByteCount) bytes does not hold one head's token of "
        + "\(tokenByteCount) bytes"
    case .unevenHeads(let queryHeadCount, let keyValueHeadCount):
      "\(queryHeadCount) query heads do not divide among \(keyValueHeadCount) KV heads"
    case .noEngine:
      "the drive has no attention engine"
    case .driveFull(let neededByteCount, let capacityByteCount):
      "keys and values need \(neededByteCount / 1e9) GB, the drives hold \(capacityByteCount / 1e9) GB"
    }
  }
}
