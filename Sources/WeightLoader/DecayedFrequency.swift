import Glibc
import TensorBasics

/// The order in which bundles of neurons leave a window: by their uses, each of which counts less with
/// every token that passes.
///
/// A bundle's worth at token T is Σ d^(T − t) over the tokens t that used it. All worths shrink by the
/// same factor from token to token, so their order changes only when one is used: each use makes the
/// bundle as young as if it had been used once, log(worth) ÷ log(1/d) tokens later. Slots lie in lists by
/// that virtual token; the oldest list's first slot leaves. Every step takes constant time.
final class DecayedFrequency {
  private let memory: AlignedBuffer
  /// Per key, its worth as of its last use, and that token.
  private let worth: UnsafeMutablePointer<Float>
  private let lastToken: UnsafeMutablePointer<Int32>
  /// Per slot, its neighbours in its list and the list's virtual token.
  private let next: UnsafeMutablePointer<Int32>
  private let previous: UnsafeMutablePointer<Int32>
  private let virtualToken: UnsafeMutablePointer<Int32>
  /// The lists of the last ``listCount`` virtual tokens, in a ring: first and last slot, −1 = none.
  private let first: UnsafeMutablePointer<Int32>
  private let last: UnsafeMutablePointer<Int32>
  /// The oldest virtual token that has a list of its own; older slots lie in it too.
  private var oldest: Int32 = 0
  /// decay to the power of an age below ``listCount``.
  private let powers: UnsafeMutablePointer<Float>
  private var logOfDecay: Float

  /// Weight of a use one token later; 0 = only the last use counts. May change at any time.
  var decay: Float {
    didSet {
      setPowers()
    }
  }
  private static let listCount: Int32 = 1024
  private static let listByteCount = 12 * Int(listCount)
  /// What a bundle of each kind takes in memory.
  static let keyByteCount = 8
  static let slotByteCount = 12

  /// - Throws: ``AllocationError``.
  init(keyCount: Int, slotCount: Int, decay: Float) throws(AllocationError) {
    memory = try AlignedBuffer(
      byteCount: keyCount * Self.keyByteCount + slotCount * Self.slotByteCount
        + Self.listByteCount)
    var place = memory.address
    func take<T: BitwiseCopyable>(_ type: T.Type, _ count: Int) -> UnsafeMutablePointer<T> {
      defer { place += count * MemoryLayout<T>.stride }
      return place.bindMemory(to: type, capacity: count)
    }
    worth = take(Float.self, keyCount)
    lastToken = take(Int32.self, keyCount)
    next = take(Int32.self, slotCount)
    previous = take(Int32.self, slotCount)
    virtualToken = take(Int32.self, slotCount)
    first = take(Int32.self, Int(Self.listCount))
    last = take(Int32.self, Int(Self.listCount))
    powers = take(Float.self, Int(Self.listCount))
    first.update(repeating: -1, count: Int(Self.listCount))
    last.update(repeating: -1, count: Int(Self.listCount))
    logOfDecay = 0
    self.decay = decay
    setPowers()
  }

  private func setPowers() {
    for age in 0..<Int(Self.listCount) { powers[age] = powf(decay, Float(age)) }
    logOfDecay = logf(decay)
  }

  /// Notes that `token` uses bundle `key`; its slot is in no list, or is taken out and put back for the
  /// use to count.
  func use(key: Int, at token: Int32) {
    let age = Int(token - lastToken[key])
    worth[key] = 1 + (age < Int(Self.listCount) ? worth[key] * powers[age] : 0)
    lastToken[key] = token
  }

  /// Puts a slot into the list for its bundle's worth.
  func append(key: Int, slot: Int32) {
    let credit = decay > 0 && worth[key] > 0 ? logf(worth[key]) / -logOfDecay : 0
    append(slot, at: lastToken[key] + Int32(credit))
  }

  /// The token that used bundle `key` last.
  func lastUse(of key: Int) -> Int32 { lastToken[key] }

  /// Takes a slot out of its list.
  func remove(_ slot: Int32) {
    let list = index(virtualToken[Int(slot)])
    let (before, behind) = (previous[Int(slot)], next[Int(slot)])
    if before >= 0 { next[Int(before)] = behind } else { first[list] = behind }
    if behind >= 0 { previous[Int(behind)] = before } else { last[list] = before }
  }

  /// The slot whose bundle is worth least, taken out of its list; nil if there is none.
  func removeLeast() -> Int32? {
    for virtual in oldest..<oldest + Self.listCount where first[index(virtual)] >= 0 {
      let slot = first[index(virtual)]
      remove(slot)
      return slot
    }
    return nil
  }

  private func append(_ slot: Int32, at virtual: Int32) {
    while virtual >= oldest + Self.listCount { mergeOldest() }
    virtualToken[Int(slot)] = max(virtual, oldest)
    let list = index(max(virtual, oldest))
    previous[Int(slot)] = last[list]
    next[Int(slot)] = -1
    if last[list] >= 0 { next[Int(last[list])] = slot } else { first[list] = slot }
    last[list] = slot
  }

  /// Puts the oldest list in front of the next one.
  private func mergeOldest() {
    let (old, new) = (index(oldest), index(oldest + 1))
    oldest += 1
    guard first[old] >= 0 else { return }
    var slot = first[old]
    while slot >= 0 {
      virtualToken[Int(slot)] = oldest
      slot = next[Int(slot)]
    }
    next[Int(last[old])] = first[new]
    if first[new] >= 0 { previous[Int(first[new])] = last[old] } else { last[new] = last[old] }
    first[new] = first[old]
    (first[old], last[old]) = (-1, -1)
  }

  private func index(_ virtual: Int32) -> Int { Int(virtual & (Self.listCount - 1)) }
}
