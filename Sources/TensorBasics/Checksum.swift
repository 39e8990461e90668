import CXXHash
import Glibc

/// XXH3-64, the checksum of everything that the project writes or verifies.
public enum Checksum {
  /// With seed 0, as files have it.
  public static func of(_ bytes: UnsafeRawBufferPointer) -> UInt64 {
    XXH3_64bits(bytes.baseAddress, bytes.count)
  }

  /// With a seed, where equal bytes in different places must have different checksums.
  public static func of(_ bytes: UnsafeRawBufferPointer, seed: UInt64) -> UInt64 {
    XXH3_64bits_withSeed(bytes.baseAddress, bytes.count, seed)
  }
}

/// ``Checksum/of(_:)`` of bytes that arrive in parts.
public struct RunningChecksum: ~Copyable {
  private let state: OpaquePointer

  /// What libxxhash keeps of the bytes so far, rounded up; only for messages.
  private static let stateByteCount = 640

  /// - Throws: ``AllocationError`` if the system refuses the memory.
  public init() throws(AllocationError) {
    let refusal = FaultPlan.refusal(of: .allocate)
    guard refusal == 0, let state = XXH3_createState() else {
      throw AllocationError(
        byteCount: Self.stateByteCount, errno: refusal == 0 ? ENOMEM : refusal)
    }
    self.state = state
    reset()
  }

  deinit { XXH3_freeState(state) }

  public mutating func update(_ bytes: UnsafeRawBufferPointer) {
    XXH3_64bits_update(state, bytes.baseAddress, bytes.count)
  }

  /// The checksum of everything since the last call, after which the next begins.
  public mutating func finish() -> UInt64 {
    let digest = XXH3_64bits_digest(state)
    reset()
    return digest
  }

  /// Forgets the bytes so far.
  public mutating func reset() { XXH3_64bits_reset(state) }
}
