/// What a draft model drew after paths that it read: the latest, by their hashes.
struct KnownContinuations {
  /// The tokens that it drew after a path, the likeliest first.
  struct Continuation {
    /// Hash of the path.
    fileprivate var hash: UInt64 = 0
    /// Of its first token's probability; see ``DraftAcceptance``.
    var grade: Int32 = 0
    var count: Int32 = 0
    var tokens: [4 of Int32] = .init(repeating: -1)

    static let mostTokens = 1 + DraftAcceptance.rankCount
  }

  private static let capacity = 512
  /// Memory of one.
  static let byteCount = MemoryLayout<Continuation>.stride * capacity

  /// By the hash's lowest bits.
  private var slots = [Continuation](repeating: Continuation(), count: capacity)

  /// The hash of a path with another token.
  static func hash(_ hash: UInt64, _ token: Int32) -> UInt64 {
    // The multiplier of splitmix64, arXiv:1410.0530.
    let mixed = (hash ^ UInt64(UInt32(bitPattern: token))) &* 0xbf58_476d_1ce4_e5b9
    return mixed ^ (mixed >> 29) ^ 1
  }

  subscript(hash: UInt64) -> Continuation? {
    let slot = slots[Int(hash % UInt64(Self.capacity))]
    return slot.hash == hash && slot.count > 0 ? slot : nil
  }

  mutating func insert(_ continuation: Continuation, after hash: UInt64) {
    var continuation = continuation
    continuation.hash = hash
    slots[Int(hash % UInt64(Self.capacity))] = continuation
  }
}
