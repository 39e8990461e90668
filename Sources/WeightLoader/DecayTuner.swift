import TensorBasics

/// Finds out how fast uses should lose weight, by running small windows beside the real one.
///
/// Each gets every 31st bundle and the same share of the slots, holds only keys, and counts
/// the reads it would have made (sampled ghost caches; set dueling, Qureshi et al., ISCA 2007). Texts differ:
/// where neurons favour certain tokens, a slow decay reads a third less than recency alone; where they come
/// and go in runs it reads half as much again.
final class DecayTuner {
  private let ghosts: [Ghost]
  private var reads: [Double]
  private var token: Int32 = 0
  /// The decay that has read least lately.
  private(set) var best = DecayTuner.candidates[DecayTuner.first]

  static let candidates: [Float] = [0, 0.8, 0.95, 0.98, 0.995]
  private static let first = 2
  private static let sampling = 31
  /// Weight of a read one token later.
  private static let memory = 0.97
  /// How much less another must read to be preferred.
  private static let margin = 0.98

  private final class Ghost {
    let ages: DecayedFrequency
    var slotOfKey: [Int32]
    var keyOfSlot: [Int32]
    var usedSlotCount = 0

    init(keyCount: Int, slotCount: Int, decay: Float) throws(AllocationError) {
      ages = try DecayedFrequency(keyCount: keyCount, slotCount: slotCount, decay: decay)
      slotOfKey = [Int32](repeating: -1, count: keyCount)
      keyOfSlot = [Int32](repeating: -1, count: slotCount)
    }

    /// Uses a bundle; whether it would have been read.
    func use(_ key: Int, at token: Int32) -> Bool {
      if slotOfKey[key] >= 0 {
        ages.remove(slotOfKey[key])
        ages.use(key: key, at: token)
        ages.append(key: key, slot: slotOfKey[key])
        return false
      }
      var slot = Int32(usedSlotCount)
      if usedSlotCount < keyOfSlot.count {
        usedSlotCount += 1
      } else {
        guard let least = ages.removeLeast() else { return true }
        slot = least
        slotOfKey[Int(keyOfSlot[Int(slot)])] = -1
      }
      slotOfKey[key] = slot
      keyOfSlot[Int(slot)] = Int32(key)
      ages.use(key: key, at: token)
      ages.append(key: key, slot: slot)
      return true
    }
  }

  /// Memory of the small windows.
  static func byteCount(keyCount: Int, slotCount: Int) -> Int {
    candidates.count * (keyCount + slotCount) / sampling * 16 + 64 << 10
  }

  /// - Throws: ``AllocationError``.
  init(keyCount: Int, slotCount: Int) throws(AllocationError) {
    var ghosts: [Ghost] = []
    for decay in Self.candidates {
      ghosts.append(
        try Ghost(
          keyCount: keyCount / Self.sampling + 1, slotCount: max(1, slotCount / Self.sampling),
          decay: decay))
    }
    self.ghosts = ghosts
    reads = [Double](repeating: 0, count: ghosts.count)
  }

  /// Notes that `token` uses bundle `key`.
  func use(_ key: Int, at token: Int32) {
    guard key % Self.sampling == 0 else { return }
    if token != self.token { begin(token) }
    for index in ghosts.indices where ghosts[index].use(key / Self.sampling, at: token) {
      reads[index] += 1
    }
  }

  private func begin(_ token: Int32) {
    self.token = token
    guard let current = Self.candidates.firstIndex(of: best) else { return }
    var chosen = current
    for index in reads.indices where reads[index] < reads[chosen] * Self.margin { chosen = index }
    best = Self.candidates[chosen]
    for index in reads.indices { reads[index] *= Self.memory }
  }
}
