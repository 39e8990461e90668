import BlockIO
import Glibc
import Kernels
import ModelFormat
import Synchronization
import TensorBasics

/// Bundles of neurons in memory: equal slots in one allocation, which all layers share.
///
/// The window is the union of what the last tokens needed, as many tokens as there is room for: a bundle
/// that is read takes the place of the one whose last use is longest ago. So nothing is moved to close a
/// gap, and every layer keeps the same number of tokens however many neurons of it are active
/// (`docs/decisions/0012`). Bookkeeping only decides and addresses: the stream that owns the window
/// submits its reads and hands it their completions.
final class NeuronWindow: ParallelRegion {
  let layout: NeuronLayout
  let reading: NeuronReading
  let slotCount: Int
  private let path: String
  private let bundleCount: Int
  private let slotByteCount: Int
  private let keepsPadding: Bool
  private let memory: AlignedBuffer
  private let population: PagePrefaulter

  // Bookkeeping by key: a key is layer × bundles of a layer + bundle.
  private let books: AlignedBuffer
  /// The slot of each key, −1 = none.
  private let slotOfKey: UnsafeMutablePointer<Int32>
  /// For each key two checksums (``NeuronBundles/checksumOffset``).
  private let checksums: UnsafeMutablePointer<UInt32>
  private let isVerified: UnsafeMutablePointer<Bool>
  private let checksAlways: Bool
  private let pool: ThreadPool?
  static let keyByteCount = 4 + 8 + 1

  /// The key of each slot, −1 = none.
  private let keyOfSlot: UnsafeMutablePointer<Int32>
  static let slotBookByteCount = 4 + 2
  private let ages: DecayedFrequency
  private let decay: DecayTuner?
  /// Whether a slot is in one of the lists of ``ages``: neither in use nor read ahead.
  private let isListed: UnsafeMutablePointer<Bool>
  /// Whether the read that fills a slot is under way.
  private let isReading: UnsafeMutablePointer<Bool>
  /// Slots that the current step uses, and those read ahead for the next one.
  private let held: UnsafeMutablePointer<Int32>
  private var heldCount = 0
  private let ahead: UnsafeMutablePointer<Int32>
  private var aheadCount = 0
  private var aheadLayer = -1
  private var usedSlotCount = 0
  /// Slots from here on are reassigned at each step, where nothing recent is kept.
  private let passingSlot: Int

  // The current step: what is missing, and the reads that bring it.
  private let missingBundle: UnsafeMutablePointer<Int32>
  private let missingSlot: UnsafeMutablePointer<Int32>
  private let planned: UnsafeMutablePointer<PlannedRead>
  static let requestBookByteCount = 24 + 3 * MemoryLayout<PlannedRead>.stride
  private var missingCount = 0
  /// Places, among the bundles of the step, of those that were not in memory.
  private let waiting: UnsafeMutablePointer<Int32>
  private var waitingCount = 0
  /// Indexes into the missing bundles, of those that have arrived and were not yet verified.
  private let unchecked: UnsafeMutablePointer<Int32>
  private var uncheckedCount = 0
  /// The lowest bundle that differs from its checksum.
  private let firstMismatch = Atomic(Int.max)
  private var plannedCount = 0
  private var submittedCount = 0
  private var completedCount = 0
  private var layer = 0

  // Where bundles are copied from.
  private let staging: AlignedBuffer
  private let stagedReadByteCount: Int
  private var freeStaging: [Int32]

  /// Running number of the current token.
  var token: Int32 = 0
  private(set) var statistics = NeuronStatistics()

  /// A read of neighbouring bundles, or of a part of one.
  private struct PlannedRead {
    /// Index into ``missingBundle`` of the first, and how many.
    var first: Int32
    var count: Int32
    /// Bytes of a bundle that are read, where it is one part.
    var offset: Int32
    var byteCount: Int32
    var stagingIndex: Int32 = -1
  }

  /// - Parameter slotCount: at least 1.
  /// - Throws: ``LoaderError`` if memory or the checksums cannot be had.
  init(
    _ layout: NeuronLayout, _ reading: NeuronReading, slotCount: Int, source: ModelSource,
    verifier: ExtentVerifier?, pool: ThreadPool?
  ) throws(LoaderError) {
    checksAlways = verifier?.checksAlways == true
    self.pool = pool
    bundleCount = layout.layers.first?.bundleCount ?? 0
    self.layout = layout
    self.reading = reading
    self.slotCount = slotCount
    path = source.description.files.first ?? source.path
    slotByteCount = reading.slotByteCount(layout)
    keepsPadding = reading.keepsPadding(layout)
    stagedReadByteCount = reading.stagedReadByteCount(layout)
    let keyCount = layout.layers.count * bundleCount
    do {
      memory = try AlignedBuffer(byteCount: slotCount * slotByteCount, prefersHugePages: true)
      let keepsRecent = reading.retention == .recent
      ages = try DecayedFrequency(
        keyCount: keepsRecent ? keyCount : 0, slotCount: keepsRecent ? slotCount : 0, decay: 0)
      decay = keepsRecent ? try DecayTuner(keyCount: keyCount, slotCount: slotCount) : nil
      books = try AlignedBuffer(
        byteCount: keyCount * Self.keyByteCount + slotCount * Self.slotBookByteCount
          + bundleCount * Self.requestBookByteCount + 64)
      staging = try AlignedBuffer(
        byteCount: keepsPadding ? 0 : NeuronReading.stagedReadCount * stagedReadByteCount)
    } catch { throw .allocation(error) }
    var next = books.address
    func take<T: BitwiseCopyable>(_ type: T.Type, _ count: Int) -> UnsafeMutablePointer<T> {
      defer { next += count * MemoryLayout<T>.stride }
      return next.bindMemory(to: type, capacity: count)
    }
    planned = take(PlannedRead.self, 3 * bundleCount)
    slotOfKey = take(Int32.self, keyCount)
    checksums = take(UInt32.self, 2 * keyCount)
    keyOfSlot = take(Int32.self, slotCount)
    waiting = take(Int32.self, bundleCount)
    unchecked = take(Int32.self, bundleCount)
    held = take(Int32.self, bundleCount)
    ahead = take(Int32.self, bundleCount)
    missingBundle = take(Int32.self, bundleCount)
    missingSlot = take(Int32.self, bundleCount)
    isVerified = take(Bool.self, keyCount)
    isListed = take(Bool.self, slotCount)
    isReading = take(Bool.self, slotCount)
    slotOfKey.update(repeating: -1, count: keyCount)
    keyOfSlot.update(repeating: -1, count: slotCount)
    freeStaging = keepsPadding ? [] : (0..<Int32(NeuronReading.stagedReadCount)).map { $0 }
    passingSlot =
      switch reading.retention {
      case .recent: slotCount
      case .none: 0
      case .fixed: slotCount - max(1, min(slotCount, max(64, slotCount / 8)))
      }
    population = PagePrefaulter(memory.bytes)
    try readChecksums(source, verifier)
  }

  deinit { population.stop() }

  /// Most bundles that can be held at once.
  var batchLimit: Int { reading.retention == .recent ? slotCount : slotCount - passingSlot }

  private func readChecksums(
    _ source: ModelSource, _ verifier: ExtentVerifier?
  ) throws(LoaderError) {
    for (index, bundles) in layout.layers.enumerated() {
      let wanted = Extent(
        fileIndex: 0, offset: bundles.checksumOffset, byteCount: bundles.checksumByteCount
      ).aligned(to: source.readAlignment)
      let whole = ExtentVerifier.wholeExtents(around: wanted, in: source.description)
      let range = whole?.range ?? wanted
      let buffer: AlignedBuffer
      do { buffer = try AlignedBuffer(byteCount: range.byteCount) } catch {
        throw .allocation(error)
      }
      let count: Int
      do {
        count = try source.device.readNow(
          fileIndex: 0, offset: range.offset,
          into: UnsafeMutableRawBufferPointer(start: buffer.address, count: range.byteCount))
      } catch { throw .io(error) }
      guard count >= bundles.checksumOffset + bundles.checksumByteCount - range.offset else {
        throw .format(
          FormatError(
            .truncated, at: range.offset + count, path: path,
            "the file ends inside the checksums of layer \(index)'s neurons"))
      }
      if let whole { try verifier?.check(whole.indexes, at: buffer.address) }
      memcpy(
        checksums + 2 * index * bundleCount,
        buffer.address + (bundles.checksumOffset - range.offset), bundles.checksumByteCount)
    }
  }

  // MARK: - A step

  /// Gives each of a layer's `bundles` (ascending, at most ``batchLimit``) a place in memory and plans
  /// the reads of those that are not there.
  ///
  /// - Parameter addresses: of each bundle's first byte; valid until the next call, the bytes once
  ///   ``isComplete``.
  func hold(
    layer: Int, _ bundles: UnsafeBufferPointer<Int32>,
    _ addresses: UnsafeMutablePointer<UnsafeRawPointer>
  ) {
    precondition(bundles.count <= batchLimit, "more bundles than the window holds")
    let start = monotonicNanoseconds()
    if aheadLayer != layer {
      precondition(isComplete, "a step begins before the last one's reads are there")
      beginReads(of: layer)
    }
    releaseHeld()
    if reading.retention != .recent { dropPassing() }
    let firstKey = layer * bundleCount
    let firstMissing = missingCount
    let keepsRecent = reading.retention == .recent
    var (waits, misses, holds) = (0, firstMissing, 0)
    for index in bundles.indices {
      let key = firstKey + Int(bundles[index])
      let slot = slotOfKey[key]
      if slot < 0 {
        missingBundle[misses] = bundles[index]
        misses += 1
        waiting[waits] = Int32(index)
        waits += 1
        continue
      }
      addresses[index] = address(slot)
      if isReading[Int(slot)] {
        waiting[waits] = Int32(index)
        waits += 1
      }
      guard keepsRecent else { continue }
      if isListed[Int(slot)] {
        ages.remove(slot)
        isListed[Int(slot)] = false
      }
      ages.use(key: key, at: token)
      held[holds] = slot
      holds += 1
    }
    // Resident bundles are held first, so that none of them is evicted for another.
    var next = firstMissing
    for place in 0..<waits where next < misses {
      let index = Int(waiting[place])
      guard bundles[index] == missingBundle[next] else { continue }
      let key = firstKey + Int(bundles[index])
      let slot = evict(for: key)
      missingSlot[next] = slot
      next += 1
      addresses[index] = address(slot)
      guard keepsRecent else { continue }
      ages.use(key: key, at: token)
      held[holds] = slot
      holds += 1
    }
    (waitingCount, missingCount, heldCount) = (waits, misses, holds)
    if let decay {
      for bundle in bundles { decay.use(firstKey + Int(bundle), at: token) }
    }
    endAhead()
    statistics.uses += bundles.count
    statistics.hits += bundles.count - waitingCount
    planReads(from: firstMissing)
    statistics.managementNanoseconds += monotonicNanoseconds() - start
  }

  /// Reads those of a layer's `bundles` that are not there, which the next step will probably need.
  ///
  /// - Precondition: ``isComplete``.
  func expect(layer: Int, _ bundles: UnsafeBufferPointer<Int32>) {
    guard reading.retention == .recent, aheadCount == 0 else { return }
    precondition(isComplete, "reading ahead begins when the step's own reads are there")
    let start = monotonicNanoseconds()
    beginReads(of: layer)
    aheadLayer = layer
    for bundle in bundles {
      let key = layer * bundleCount + Int(bundle)
      // What is in use stays; a window that is full of it has no room for guesses.
      guard slotOfKey[key] < 0, heldCount + aheadCount < slotCount / 2 else { continue }
      let slot = evict(for: key)
      missingBundle[missingCount] = bundle
      missingSlot[missingCount] = slot
      missingCount += 1
      ahead[aheadCount] = slot
      aheadCount += 1
    }
    statistics.readsAhead += aheadCount
    planReads(from: 0)
    statistics.managementNanoseconds += monotonicNanoseconds() - start
  }

  /// Indexes, into the bundles of the last call of ``hold(layer:_:_:)``, of those that were not there.
  var missingIndexes: UnsafeBufferPointer<Int32> {
    UnsafeBufferPointer(start: waiting, count: waitingCount)
  }

  private func address(_ slot: Int32) -> UnsafeRawPointer {
    UnsafeRawPointer(memory.address + Int(slot) * slotByteCount)
  }

  private func releaseHeld() {
    for index in 0..<heldCount { list(held[index]) }
    heldCount = 0
    if let decay, decay.best != ages.decay { ages.decay = decay.best }
  }

  /// Gives up what was read ahead, except what is in use.
  private func endAhead() {
    for index in 0..<aheadCount {
      if ages.lastUse(of: Int(keyOfSlot[Int(ahead[index])])) == token {
        statistics.readsAheadUsed += 1
      } else {
        list(ahead[index])
      }
    }
    (aheadCount, aheadLayer) = (0, -1)
  }

  /// Makes a slot evictable.
  private func list(_ slot: Int32) {
    guard !isListed[Int(slot)] else { return }
    isListed[Int(slot)] = true
    ages.append(key: Int(keyOfSlot[Int(slot)]), slot: slot)
  }

  private func dropPassing() {
    for slot in passingSlot..<max(passingSlot, usedSlotCount) {
      slotOfKey[Int(keyOfSlot[slot])] = -1
    }
    usedSlotCount = min(usedSlotCount, passingSlot)
  }

  /// A slot for bundle `key`: one never used, or that of the bundle that is worth least.
  private func evict(for key: Int) -> Int32 {
    var slot = Int32(usedSlotCount)
    if usedSlotCount < slotCount {
      usedSlotCount += 1
    } else {
      guard let least = ages.removeLeast() else { preconditionFailure("every slot is held") }
      slot = least
      isListed[Int(slot)] = false
      let old = Int(keyOfSlot[Int(slot)])
      statistics.evictions += 1
      statistics.evictedAges += Int(token - ages.lastUse(of: old))
      slotOfKey[old] = -1
    }
    keyOfSlot[Int(slot)] = Int32(key)
    slotOfKey[key] = slot
    isReading[Int(slot)] = true
    statistics.reads += 1
    return slot
  }

  // MARK: - Reads

  private func beginReads(of layer: Int) {
    self.layer = layer
    missingCount = 0
    (plannedCount, submittedCount, completedCount) = (0, 0, 0)
  }

  /// Plans the reads of the missing bundles from number `start` on.
  private func planReads(from start: Int) {
    let bundles = layout.layers[layer]
    if reading.readsPartsApart {
      var offset = 0
      for part in reading.includesDecidingPart ? bundles.parts[...] : bundles.parts.dropLast() {
        for index in start..<missingCount {
          plan(
            PlannedRead(
              first: Int32(index), count: 1, offset: Int32(offset),
              byteCount: Int32(part.byteCount)))
        }
        offset += part.byteCount
      }
      return
    }
    // Neighbours in the file share a read where they are neighbours in memory too, or are copied.
    let readByteCount = reading.readByteCount(bundles)
    let merges = readByteCount == bundles.byteStride
    let longest = keepsPadding ? NeuronReading.longestReadByteCount : stagedReadByteCount
    for index in start..<missingCount {
      if merges, index > start, missingBundle[index] == missingBundle[index - 1] + 1,
        !keepsPadding || missingSlot[index] == missingSlot[index - 1] + 1,
        (Int(planned[plannedCount - 1].count) + 1) * readByteCount <= longest
      {
        planned[plannedCount - 1].count += 1
        planned[plannedCount - 1].byteCount += Int32(readByteCount)
      } else {
        plan(
          PlannedRead(
            first: Int32(index), count: 1, offset: 0, byteCount: Int32(readByteCount)))
      }
    }
  }

  private func plan(_ read: PlannedRead) {
    planned[plannedCount] = read
    plannedCount += 1
  }

  /// Whether all that the step holds is in memory.
  var isComplete: Bool { completedCount == plannedCount }

  /// The next read of the step; nil if all are under way, or no memory is free to read into.
  func nextRead() -> ReadRequest? {
    guard submittedCount < plannedCount else { return nil }
    let read = planned[submittedCount]
    let first = Int(read.first)
    let address: UnsafeMutableRawPointer
    if keepsPadding {
      address = memory.address + Int(missingSlot[first]) * slotByteCount + Int(read.offset)
    } else {
      guard let index = freeStaging.popLast() else { return nil }
      planned[submittedCount].stagingIndex = index
      address = staging.address + Int(index) * stagedReadByteCount
    }
    let bundles = layout.layers[layer]
    let request = ReadRequest(
      fileIndex: 0,
      offset: bundles.offset + Int(missingBundle[first]) * bundles.byteStride + Int(read.offset),
      destination: UnsafeMutableRawBufferPointer(start: address, count: Int(read.byteCount)),
      tag: Tag.neurons(submittedCount))
    submittedCount += 1
    statistics.requests += 1
    statistics.bytesRead += Int(read.byteCount)
    return request
  }

  /// What the read that is needed first brings, for reports.
  var wantedRange: (offset: Int, byteCount: Int) {
    let bundles = layout.layers[layer]
    let bundle = missingCount > 0 ? Int(missingBundle[0]) : 0
    return (bundles.offset + bundle * bundles.byteStride, reading.readByteCount(bundles))
  }

  /// Takes the completion of a read, and copies; call ``checkArrivals()`` before the bundles are used.
  func completed(_ number: Int, byteCount: Int) throws(LoaderError) {
    let start = monotonicNanoseconds()
    let read = planned[number]
    let bundles = layout.layers[layer]
    completedCount += 1
    guard byteCount >= Int(read.byteCount) else {
      throw .format(
        FormatError(
          .truncated, at: wantedRange.offset, path: path,
          "the file ends inside the neurons of layer \(layer); it was complete when it was opened"
        ))
    }
    for index in Int(read.first)..<Int(read.first + read.count) {
      let slot = memory.address + Int(missingSlot[index]) * slotByteCount
      if read.stagingIndex >= 0 {
        let source =
          staging.address + Int(read.stagingIndex) * stagedReadByteCount
          + (index - Int(read.first)) * reading.readByteCount(bundles)
        memcpy(slot, source, reading.contentByteCount(bundles))
      }
      guard !reading.readsPartsApart else { continue }
      noteUnchecked(index)
      isReading[Int(missingSlot[index])] = false
    }
    if read.stagingIndex >= 0 { freeStaging.append(read.stagingIndex) }
    if reading.readsPartsApart, isComplete {
      for index in 0..<missingCount {
        noteUnchecked(index)
        isReading[Int(missingSlot[index])] = false
      }
    }
    statistics.managementNanoseconds += monotonicNanoseconds() - start
  }

  private func noteUnchecked(_ index: Int) {
    guard checksAlways || !isVerified[layer * bundleCount + Int(missingBundle[index])] else {
      return
    }
    unchecked[uncheckedCount] = Int32(index)
    uncheckedCount += 1
  }

  /// Compares bundles that came with their checksums: for the first time, or every time.
  ///
  /// - Throws: ``LoaderError/format(_:)`` with the bundle's offset.
  func checkArrivals() throws(LoaderError) {
    guard uncheckedCount > 0 else { return }
    let start = monotonicNanoseconds()
    defer { statistics.checkNanoseconds += monotonicNanoseconds() - start }
    firstMismatch.store(.max, ordering: .relaxed)
    if let pool {
      pool.run(count: uncheckedCount, self)
    } else {
      for index in 0..<uncheckedCount { perform(index: index, worker: 0) }
    }
    let bundle = firstMismatch.load(ordering: .relaxed)
    guard bundle == .max else {
      let bundles = layout.layers[layer]
      throw .format(
        FormatError(
          .checksumMismatch, at: bundles.offset + bundle * bundles.byteStride, path: path,
          "bundle \(bundle) of layer \(layer)'s neurons is not what was written: the file or what "
            + "the drive returned is damaged"))
    }
    for index in 0..<uncheckedCount {
      isVerified[layer * bundleCount + Int(missingBundle[Int(unchecked[index])])] = true
    }
    uncheckedCount = 0
  }

  /// Compares one of the bundles that came with its checksums.
  func perform(index: Int, worker: Int) {
    let number = Int(unchecked[index])
    let bundle = Int(missingBundle[number])
    let key = layer * bundleCount + bundle
    let bundles = layout.layers[layer]
    let address = UnsafeRawPointer(memory.address + Int(missingSlot[number]) * slotByteCount)
    let prefix = UnsafeRawBufferPointer(start: address, count: bundles.prefixByteCount)
    var isRight = UInt32(truncatingIfNeeded: Checksum.of(prefix)) == checksums[2 * key]
    if isRight, reading.includesDecidingPart {
      let rest = UnsafeRawBufferPointer(
        start: address + prefix.count, count: bundles.byteCount - prefix.count)
      isRight = UInt32(truncatingIfNeeded: Checksum.of(rest)) == checksums[2 * key + 1]
    }
    if !isRight { firstMismatch.min(bundle, ordering: .relaxed) }
  }
}
