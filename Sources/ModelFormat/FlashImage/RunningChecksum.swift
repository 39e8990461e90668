import CXXHash

/// ``FlashImage/checksum(_:)`` of bytes that arrive in parts.
public struct RunningChecksum: ~Copyable {
  private let state: OpaquePointer

  public init() {
    guard let state = XXH3_createState() else { fatalError("out of memory") }
    self.state = state
    XXH3_64bits_reset(state)
  }

  deinit { XXH3_freeState(state) }

  public mutating func update(_ bytes: UnsafeRawBufferPointer) {
    XXH3_64bits_update(state, bytes.baseAddress, bytes.count)
  }

  /// The checksum of everything since the last call, after which the next begins.
  public mutating func finish() -> UInt64 {
    let digest = XXH3_64bits_digest(state)
    XXH3_64bits_reset(state)
    return digest
  }
}
