import BlockIO
import Glibc
import ModelFormat
import TensorBasics

/// Bundles in memory: for families of about equal bundles a pool of equal slots each, filled on demand.
///
/// A bundle that is asked for is held until it is released. To make room, the cache evicts, of those not
/// held, the one whose score by use is lowest. Bookkeeping only decides and addresses: the stream that
/// owns the cache submits its reads and hands it their completions.
final class BundleCache {
  let families: [BundleFamily]
  private let firstKey: [Int]
  private let classOfFamily: [Int]
  private let memory: AlignedBuffer
  /// Of each class, the slots after those in `memory`.
  private let borrowed: AlignedBuffer
  let borrowableByteCount: Int
  private let population: PagePrefaulter
  private let alignment: Int
  private let verifier: ExtentVerifier?
  private let model: ModelDescription

  /// The slot of each bundle, −1 = none.
  private var slotOfKey: [Int32]
  private struct Slot {
    var key: Int32 = -1
    /// Reads under way.
    var pending: Int32 = 0
    /// Users that hold it.
    var holders: Int32 = 0
    /// It was read ahead, and has not been asked for yet.
    var isReserved = false
    /// Parts that were interleaved in place, as bits.
    var interleaved: UInt32 = 0
  }
  private var slots: [Slot]
  /// Slots of one length.
  private struct Pool {
    /// Those that there is memory for now.
    var slots: Range<Int>
    var slotByteCount: Int
    var firstByte: Int
    /// The first of those in borrowed memory, how many there may be, and where that memory begins.
    var firstBorrowed: Int
    var borrowableCount: Int
    var firstBorrowedByte: Int
    /// Slots that were ever used, the first ones.
    var usedCount = 0
    /// Slots that are held or reserved.
    var keptCount = 0

    var hasUnused: Bool { usedCount < slots.count }
    mutating func takeUnused() -> Int {
      usedCount += 1
      return slots.lowerBound + usedCount - 1
    }
  }
  private var pools: [Pool]
  private var policy: BundlePolicy
  /// Bundles to read before they are asked for, the hottest last; see ``seed(_:)``.
  private var expected: [Int32] = []
  /// Running number of the current sweep.
  private var sweep = 0
  private(set) var statistics = BundleStatistics()

  /// - Throws: ``LoaderError/allocation(_:)``.
  init(
    _ families: [BundleFamily], _ division: BundleSlots, source: ModelSource,
    verifier: ExtentVerifier?
  ) throws(LoaderError) {
    self.families = families
    classOfFamily = division.classOfFamily
    self.verifier = verifier
    model = source.description
    alignment = source.readAlignment
    var keyCount = 0
    var firstKey: [Int] = []
    for family in families {
      firstKey.append(keyCount)
      keyCount += family.bundleCount
    }
    self.firstKey = firstKey
    var pools: [Pool] = []
    var (slotCount, byteCount, borrowableByteCount) = (0, 0, 0)
    for item in division.classes {
      pools.append(
        Pool(
          slots: slotCount..<slotCount + item.slotCount, slotByteCount: item.slotByteCount,
          firstByte: byteCount, firstBorrowed: slotCount + item.slotCount,
          borrowableCount: item.borrowableCount, firstBorrowedByte: borrowableByteCount))
      slotCount += item.slotCount + item.borrowableCount
      byteCount += item.slotCount * item.slotByteCount
      borrowableByteCount += item.borrowableCount * item.slotByteCount
    }
    self.pools = pools
    self.borrowableByteCount = borrowableByteCount
    do {
      memory = try AlignedBuffer(byteCount: byteCount, prefersHugePages: true)
      borrowed = try AlignedBuffer(byteCount: borrowableByteCount)
    } catch { throw .allocation(error) }
    population = PagePrefaulter(memory.bytes)
    slotOfKey = [Int32](repeating: -1, count: keyCount)
    slots = [Slot](repeating: Slot(), count: slotCount)
    policy = BundlePolicy(.standard, bundleCount: keyCount)
  }

  deinit { population.stop() }

  /// Whether another bundle of `family` can be asked for without one being released first.
  func hasRoom(_ family: Int) -> Bool {
    let pool = pools[classOfFamily[family]]
    return pool.keptCount < pool.slots.count && (pool.hasUnused || hasVictim(pool))
  }

  private func address(ofSlot slot: Int, in pool: Pool) -> UnsafeMutableRawPointer {
    guard slot < pool.firstBorrowed else {
      return borrowed.address + pool.firstBorrowedByte
        + (slot - pool.firstBorrowed) * pool.slotByteCount
    }
    return memory.address + pool.firstByte + (slot - pool.slots.lowerBound) * pool.slotByteCount
  }

  // MARK: - Borrowed memory

  /// Bytes of borrowed memory that slots have.
  var borrowedByteCount: Int {
    pools.reduce(0) { $0 + ($1.slots.upperBound - $1.firstBorrowed) * $1.slotByteCount }
  }

  /// Uses at most so much borrowed memory: each class the same share of what it may have. Bundles in slots that are given
  /// back are forgotten.
  ///
  /// - Precondition: to give something back, no bundle is held, and no read is under way.
  func borrow(_ byteCount: Int) {
    guard borrowableByteCount > 0 else { return }
    let share = min(1, Double(byteCount) / Double(borrowableByteCount))
    for number in pools.indices {
      let pool = pools[number]
      let end = pool.firstBorrowed + Int(share * Double(pool.borrowableCount))
      for slot in end..<max(end, pool.slots.upperBound) { giveBack(slot, in: pool) }
      pools[number].slots = pool.slots.lowerBound..<end
      pools[number].usedCount = min(pool.usedCount, pools[number].slots.count)
    }
  }

  private func giveBack(_ slot: Int, in pool: Pool) {
    precondition(
      slots[slot].pending == 0 && slots[slot].holders == 0, "a slot in use is given back")
    if slots[slot].isReserved { pools[self.pool(ofSlot: slot)].keptCount -= 1 }
    if slots[slot].key >= 0, !isDropped(slot) { slotOfKey[Int(slots[slot].key)] = -1 }
    slots[slot] = Slot()
    madvise(address(ofSlot: slot, in: pool), pool.slotByteCount, MADV_DONTNEED)
  }

  /// Begins the next sweep, which serves so many tokens.
  func beginSweep(rowCount: Int) {
    sweep += 1
    policy.rowCount = rowCount
  }

  /// The share of rows that will probably use `bundle`; `share` where nothing is known.
  func shareOfRows(_ family: Int, _ bundle: Int, assuming share: Double) -> Double {
    policy.shareOfRows(using: firstKey[family] + bundle, at: sweep, assuming: share)
  }

  /// Holds `bundle` for so many rows; its slot where it must be read.
  func hold(_ family: Int, _ bundle: Int, users: Int) -> Int? {
    let key = firstKey[family] + bundle
    let number = classOfFamily[family]
    policy.recordUse(of: key, at: sweep, by: users)
    statistics.uses += 1
    if slotOfKey[key] >= 0 {
      let slot = Int(slotOfKey[key])
      if slots[slot].holders == 0, !slots[slot].isReserved { pools[number].keptCount += 1 }
      slots[slot].holders += 1
      if slots[slot].isReserved { statistics.usedPrefetches += 1 }
      slots[slot].isReserved = false
      statistics.hits += 1
      return nil
    }
    let slot = evict(number)
    slots[slot] = Slot(key: Int32(key), holders: 1)
    slotOfKey[key] = Int32(slot)
    pools[number].keptCount += 1
    statistics.bytesWanted += families[family].bundleByteCount
    return slot
  }

  /// Reserves a slot for `bundle`, which will probably be asked for; nil if it is in memory.
  ///
  /// - Precondition: ``hasRoom(_:)``.
  func reserve(_ family: Int, _ bundle: Int) -> Int? {
    let key = firstKey[family] + bundle
    guard slotOfKey[key] < 0 else { return nil }
    let number = classOfFamily[family]
    let slot = evict(number)
    slots[slot] = Slot(key: Int32(key), isReserved: true)
    slotOfKey[key] = Int32(slot)
    pools[number].keptCount += 1
    statistics.prefetches += 1
    statistics.bytesWanted += families[family].bundleByteCount
    return slot
  }

  /// Seeds the cache with the use of every bundle in an earlier run, before the first use in this one.
  func seed(_ hotness: [Float]) {
    policy.seed(hotness)
    let used = hotness.indices.filter { hotness[$0] > 0 }
    let hottestFirst = used.sorted {
      hotness[$0] != hotness[$1] ? hotness[$0] > hotness[$1] : $0 < $1
    }
    var room = pools.map(\.slots.count)
    let fitting = hottestFirst.filter { key in
      let number = classOfFamily[place(of: key).family]
      room[number] -= 1
      return room[number] >= 0
    }
    expected = fitting.reversed().map(Int32.init)
  }

  /// Per bundle, the share of the last tokens that used it.
  var hotness: [Float] { policy.hotness }

  /// Whether ``takeExpected()`` may have something to read.
  var expectsMore: Bool { !expected.isEmpty && pools.contains(where: \.hasUnused) }

  /// Takes a slot that was never used for the hottest bundle of an earlier run that is not in memory;
  /// nil if there is no such slot or bundle.
  func takeExpected() -> (family: Int, bundle: Int, slot: Int)? {
    while expectsMore, let key = expected.popLast() {
      let (family, bundle) = place(of: Int(key))
      let number = classOfFamily[family]
      guard slotOfKey[Int(key)] < 0, pools[number].hasUnused else { continue }
      let slot = pools[number].takeUnused()
      slots[slot] = Slot(key: key)
      slotOfKey[Int(key)] = Int32(slot)
      statistics.recalls += 1
      statistics.bytesWanted += families[family].bundleByteCount
      return (family, bundle, slot)
    }
    return nil
  }

  /// Ends reservations that were not taken up, of one family or of all.
  func endReservations(of family: Int? = nil) {
    let keys = family.map { firstKey[$0]..<firstKey[$0] + families[$0].bundleCount }
    for index in slots.indices
    where slots[index].isReserved && keys?.contains(Int(slots[index].key)) != false {
      slots[index].isReserved = false
      pools[pool(ofSlot: index)].keptCount -= 1
    }
  }

  /// A slot for another bundle of a class: one never used, or that of the lowest score.
  private func evict(_ number: Int) -> Int {
    if pools[number].hasUnused { return pools[number].takeUnused() }
    var lowest = -1
    var lowestScore = Double.infinity
    for index in pools[number].slots where isVictim(slots[index]) {
      let score =
        isDropped(index) ? -.infinity : policy.score(of: Int(slots[index].key), at: sweep)
      if lowest < 0 || score < lowestScore
        || (score == lowestScore && slots[index].key < slots[lowest].key)
      {
        (lowest, lowestScore) = (index, score)
      }
    }
    precondition(lowest >= 0, "every bundle in memory is held, or was released before it was read")
    guard !isDropped(lowest) else { return lowest }
    slotOfKey[Int(slots[lowest].key)] = -1
    statistics.evictions += 1
    return lowest
  }

  /// Whether a slot in use has lost its bundle, which is not looked for there any more.
  private func isDropped(_ slot: Int) -> Bool { slotOfKey[Int(slots[slot].key)] != Int32(slot) }

  /// Forgets a bundle of which not every read was submitted; its slot is free once the others are there.
  private func drop(_ slot: Int) {
    if slots[slot].holders > 0 || slots[slot].isReserved {
      pools[pool(ofSlot: slot)].keptCount -= 1
    }
    slots[slot].holders = 0
    slots[slot].isReserved = false
    slotOfKey[Int(slots[slot].key)] = -1
  }

  /// Releases everything that is held or reserved; bundles stay where they are.
  func abandon() {
    for index in slots.indices {
      slots[index].holders = 0
      slots[index].isReserved = false
    }
    for number in pools.indices { pools[number].keptCount = 0 }
  }

  private func isVictim(_ slot: Slot) -> Bool {
    slot.holders == 0 && slot.pending == 0 && !slot.isReserved
  }

  private func hasVictim(_ pool: Pool) -> Bool { slots[pool.slots].contains(where: isVictim) }

  /// The class that a slot belongs to.
  private func pool(ofSlot slot: Int) -> Int {
    var number = 0
    while pools[number].firstBorrowed + pools[number].borrowableCount <= slot { number += 1 }
    return number
  }

  /// The reads that bring `bundle` into `slot`, one after the other; what `submit` throws drops the bundle.
  func forEachRead(
    _ family: Int, _ bundle: Int, slot: Int,
    _ submit: (ReadRequest) throws(LoaderError) -> Void
  ) throws(LoaderError) {
    let slotAddress = address(ofSlot: slot, in: pools[classOfFamily[family]])
    for fragment in families[family].fragments {
      let extent = fragment.extent(of: bundle).aligned(to: alignment)
      let address = slotAddress + fragment.slotOffset
      var done = 0
      while done < extent.byteCount {
        let count = min(Self.longestRead, extent.byteCount - done)
        slots[slot].pending += 1
        do throws(LoaderError) {
          try submit(
            ReadRequest(
              fileIndex: extent.fileIndex, offset: extent.offset + done,
              destination: UnsafeMutableRawBufferPointer(start: address + done, count: count),
              tag: Tag.bundle(slot)))
        } catch {
          slots[slot].pending -= 1
          drop(slot)
          throw error
        }
        done += count
      }
    }
  }

  private static let longestRead = 8 << 20

  /// Takes the completion of one of a slot's reads; checks the bundle when it was the last.
  func completed(slot: Int) throws(LoaderError) {
    slots[slot].pending -= 1
    guard slots[slot].pending == 0, !isDropped(slot), let verifier else { return }
    let (family, bundle) = place(of: Int(slots[slot].key))
    let slotAddress = address(ofSlot: slot, in: pools[classOfFamily[family]])
    for fragment in families[family].fragments {
      let extent = fragment.extent(of: bundle).aligned(to: alignment)
      guard
        let (whole, covered) = ExtentVerifier.wholeExtents(around: extent, in: model),
        covered == extent
      else { continue }
      try verifier.check(whole, at: slotAddress + fragment.slotOffset)
    }
  }

  private func place(of key: Int) -> (family: Int, bundle: Int) {
    var family = 0
    while family + 1 < firstKey.count, firstKey[family + 1] <= key { family += 1 }
    return (family, key - firstKey[family])
  }

  private func slot(_ family: Int, _ bundle: Int) -> Int {
    let slot = Int(slotOfKey[firstKey[family] + bundle])
    precondition(slot >= 0, "bundle \(bundle) was not asked for")
    return slot
  }

  func contains(_ family: Int, _ bundle: Int) -> Bool { slotOfKey[firstKey[family] + bundle] >= 0 }

  func isReady(_ family: Int, _ bundle: Int) -> Bool { slots[slot(family, bundle)].pending == 0 }

  func release(_ family: Int, _ bundle: Int) {
    let slot = slot(family, bundle)
    slots[slot].holders -= 1
    if slots[slot].holders == 0 { pools[classOfFamily[family]].keptCount -= 1 }
  }

  /// A part's first byte and layout, of a bundle that is held and ready.
  func part(
    _ part: Int, _ family: Int, _ bundle: Int
  ) -> (address: UnsafeMutableRawPointer, layout: RowLayout) {
    let slot = slot(family, bundle)
    let offset = families[family].slotOffset(ofPart: part, of: bundle, alignment: alignment)
    return (
      address(ofSlot: slot, in: pools[classOfFamily[family]]) + offset,
      slots[slot].interleaved & (1 << UInt32(part)) != 0
        ? .interleaved : families[family].parts[part].layout
    )
  }

  func markInterleaved(part: Int, _ family: Int, _ bundle: Int) {
    slots[slot(family, bundle)].interleaved |= 1 << UInt32(part)
  }
}

/// Counters of a bundle cache.
public struct BundleStatistics: Sendable {
  /// Bundles asked for.
  public var uses = 0
  /// Of those, bundles that were in memory or on their way.
  public var hits = 0
  public var evictions = 0
  /// Bundles read ahead of being asked for, and those of them that were asked for.
  public var prefetches = 0
  public var usedPrefetches = 0
  /// Bundles read into empty slots because an earlier run used them much.
  public var recalls = 0
  /// Bytes of the bundles that were read.
  public var bytesWanted = 0
}
