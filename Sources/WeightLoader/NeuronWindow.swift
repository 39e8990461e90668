import BlockIO
import Glibc
import ModelFormat
import TensorBasics

/// Bundles of neurons in memory: equal slots in one allocation, which all layers share.
///
/// The window is the union of what the last tokens needed, as many tokens as there is room for: a bundle
/// that is read takes the place of the one whose last use is longest ago. So nothing is moved to close a
/// gap, and every layer keeps the same number of tokens however many neurons of it are active
/// (`docs/decisions/0012`). Bookkeeping only decides and addresses: the stream that owns the window
/// submits its reads and hands it their completions.
final class NeuronWindow {
  let layout: NeuronLayout
  let reading: NeuronReading
  let slotCount: Int
  private let path: String
  private let shape: NeuronBundles
  private let readByteCount: Int
  private let contentByteCount: Int
  private let slotByteCount: Int
  private let keepsPadding: Bool
  private let memory: AlignedBuffer
  private let population: BackgroundPopulation

  // Books of keys: a key is layer × bundles of a layer + bundle.
  private let books: AlignedBuffer
  /// The slot of each key, −1 = none.
  private let slotOfKey: UnsafeMutablePointer<Int32>
  /// For each key two checksums (``NeuronBundles/checksumOffset``).
  private let checksums: UnsafeMutablePointer<UInt32>
  private let isVerified: UnsafeMutablePointer<Bool>
  static let keyByteCount = 4 + 8 + 1

  // Books of slots, in a list from the most to the least recently used.
  private let keyOfSlot: UnsafeMutablePointer<Int32>
  private let lastToken: UnsafeMutablePointer<Int32>
  private let newer: UnsafeMutablePointer<Int32>
  private let older: UnsafeMutablePointer<Int32>
  static let slotBookByteCount = 16
  private var newest: Int32 = -1
  private var oldest: Int32 = -1
  private var usedSlotCount = 0
  /// Slots from here on are given anew at each step, where nothing recent is kept.
  private let passingSlot: Int

  // The step in work: what is missing, and the reads that bring it.
  private let missing: UnsafeMutablePointer<Int32>
  private let missingBundle: UnsafeMutablePointer<Int32>
  private let missingSlot: UnsafeMutablePointer<Int32>
  private let planned: UnsafeMutablePointer<PlannedRead>
  static let requestBookByteCount = 12 + 2 * MemoryLayout<PlannedRead>.stride
  private var missingCount = 0
  private var plannedCount = 0
  private var submittedCount = 0
  private var completedCount = 0
  private var layer = 0

  // Where bundles are copied from.
  private let staging: AlignedBuffer
  private let stagedReadByteCount: Int
  private var freeStaging: [Int32]

  /// Running number of the token in work.
  var token: Int32 = 0
  private(set) var statistics = NeuronStatistics()

  /// A read of neighbouring bundles, or of a part of one.
  private struct PlannedRead {
    /// Index into ``missing`` of the first, and how many.
    var first: Int32
    var count: Int32
    /// Bytes of a bundle that are read, where it is one part.
    var offset: Int32
    var byteCount: Int32
    var stagingIndex: Int32 = -1
  }

  /// - Parameter slotCount: at least 1.
  /// - Throws: ``LoaderError`` where memory or the checksums cannot be had.
  init(
    _ layout: NeuronLayout, _ reading: NeuronReading, slotCount: Int, source: ModelSource,
    verifier: ExtentVerifier?
  ) throws(LoaderError) {
    guard let shape = layout.layers.first else { preconditionFailure("a model without layers") }
    self.layout = layout
    self.reading = reading
    self.slotCount = slotCount
    self.shape = shape
    path = source.description.files.first ?? source.path
    readByteCount = reading.readByteCount(shape)
    contentByteCount = reading.contentByteCount(shape)
    slotByteCount = reading.slotByteCount(shape)
    keepsPadding = reading.keepsPadding(shape)
    stagedReadByteCount = reading.stagedReadByteCount(shape)
    let keyCount = layout.layers.count * shape.bundleCount
    do {
      memory = try AlignedBuffer(byteCount: slotCount * slotByteCount, prefersHugePages: true)
      books = try AlignedBuffer(
        byteCount: keyCount * Self.keyByteCount + slotCount * Self.slotBookByteCount
          + shape.bundleCount * Self.requestBookByteCount + 64)
      staging = try AlignedBuffer(
        byteCount: keepsPadding ? 0 : NeuronReading.stagedReadCount * stagedReadByteCount)
    } catch { throw .allocation(error) }
    var next = books.address
    func take<T: BitwiseCopyable>(_ type: T.Type, _ count: Int) -> UnsafeMutablePointer<T> {
      defer { next += count * MemoryLayout<T>.stride }
      return next.bindMemory(to: type, capacity: count)
    }
    planned = take(PlannedRead.self, 2 * shape.bundleCount)
    slotOfKey = take(Int32.self, keyCount)
    checksums = take(UInt32.self, 2 * keyCount)
    keyOfSlot = take(Int32.self, slotCount)
    lastToken = take(Int32.self, slotCount)
    newer = take(Int32.self, slotCount)
    older = take(Int32.self, slotCount)
    missing = take(Int32.self, shape.bundleCount)
    missingBundle = take(Int32.self, shape.bundleCount)
    missingSlot = take(Int32.self, shape.bundleCount)
    isVerified = take(Bool.self, keyCount)
    slotOfKey.update(repeating: -1, count: keyCount)
    keyOfSlot.update(repeating: -1, count: slotCount)
    freeStaging = keepsPadding ? [] : (0..<Int32(NeuronReading.stagedReadCount)).map { $0 }
    passingSlot =
      switch reading.retention {
      case .recent: slotCount
      case .none: 0
      case .fixed: slotCount - max(1, min(slotCount, max(64, slotCount / 8)))
      }
    population = BackgroundPopulation(memory.bytes)
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
      do {
        let buffer = try AlignedBuffer(byteCount: range.byteCount)
        let count = try source.device.readNow(
          fileIndex: 0, offset: range.offset,
          into: UnsafeMutableRawBufferPointer(start: buffer.address, count: range.byteCount))
        guard count >= bundles.checksumOffset + bundles.checksumByteCount - range.offset else {
          throw LoaderError.format(
            FormatError(
              .truncated, at: range.offset + count, path: path,
              "the file ends inside the checksums of layer \(index)'s neurons"))
        }
        if let whole { try verifier?.check(whole.indexes, at: buffer.address) }
        memcpy(
          checksums + 2 * index * shape.bundleCount,
          buffer.address + (bundles.checksumOffset - range.offset), bundles.checksumByteCount)
      } catch let error as LoaderError {
        throw error
      } catch let error as BlockIOError {
        throw .io(error)
      } catch let error as AllocationError {
        throw .allocation(error)
      } catch { throw .closed }
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
    precondition(isComplete, "a step begins before the last one's reads are there")
    let start = monotonicNanoseconds()
    self.layer = layer
    if reading.retention != .recent { dropPassing() }
    let slots = slotOfKey + layer * shape.bundleCount
    missingCount = 0
    for index in bundles.indices {
      let slot = slots[Int(bundles[index])]
      guard slot >= 0 else {
        missing[missingCount] = Int32(index)
        missingBundle[missingCount] = bundles[index]
        missingCount += 1
        continue
      }
      addresses[index] = UnsafeRawPointer(memory.address + Int(slot) * slotByteCount)
      if reading.retention == .recent { touch(slot) }
    }
    // Those that are there were touched, so none of them gives up its place.
    for index in 0..<missingCount {
      let slot = vacate()
      let key = Int32(layer * shape.bundleCount) + missingBundle[index]
      keyOfSlot[Int(slot)] = key
      slotOfKey[Int(key)] = slot
      lastToken[Int(slot)] = token
      missingSlot[index] = slot
      addresses[Int(missing[index])] = UnsafeRawPointer(
        memory.address + Int(slot) * slotByteCount)
    }
    statistics.uses += bundles.count
    statistics.hits += bundles.count - missingCount
    planReads()
    statistics.managementNanoseconds += monotonicNanoseconds() - start
  }

  /// Indexes, into the bundles of the last call of ``hold(layer:_:_:)``, of those that were not there.
  var missingIndexes: UnsafeBufferPointer<Int32> {
    UnsafeBufferPointer(start: missing, count: missingCount)
  }

  private func dropPassing() {
    for slot in passingSlot..<max(passingSlot, usedSlotCount) {
      slotOfKey[Int(keyOfSlot[slot])] = -1
    }
    usedSlotCount = min(usedSlotCount, passingSlot)
  }

  /// Makes a slot the most recently used one.
  private func touch(_ slot: Int32) {
    lastToken[Int(slot)] = token
    guard slot != newest else { return }
    unlink(slot)
    link(slot)
  }

  private func unlink(_ slot: Int32) {
    let (before, behind) = (newer[Int(slot)], older[Int(slot)])
    if before >= 0 { older[Int(before)] = behind } else { newest = behind }
    if behind >= 0 { newer[Int(behind)] = before } else { oldest = before }
  }

  private func link(_ slot: Int32) {
    newer[Int(slot)] = -1
    older[Int(slot)] = newest
    if newest >= 0 { newer[Int(newest)] = slot } else { oldest = slot }
    newest = slot
  }

  /// A slot for another bundle: one never used, or the least recently used one.
  private func vacate() -> Int32 {
    if usedSlotCount < slotCount {
      usedSlotCount += 1
      let slot = Int32(usedSlotCount - 1)
      if reading.retention == .recent { link(slot) }
      return slot
    }
    let slot = oldest
    statistics.evictions += 1
    statistics.evictedAges += Int(token - lastToken[Int(slot)])
    slotOfKey[Int(keyOfSlot[Int(slot)])] = -1
    unlink(slot)
    link(slot)
    return slot
  }

  // MARK: - Reads

  private func planReads() {
    (plannedCount, submittedCount, completedCount) = (0, 0, 0)
    if reading.readsPartsApart {
      var offset = 0
      for part in reading.includesDecidingPart ? shape.parts[...] : shape.parts.dropLast() {
        for index in 0..<missingCount {
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
    let merges = readByteCount == shape.byteStride
    let longest = keepsPadding ? NeuronReading.longestReadByteCount : stagedReadByteCount
    for index in 0..<missingCount {
      if merges, index > 0, missingBundle[index] == missingBundle[index - 1] + 1,
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

  /// The next read of the step; nil where all are under way, or no memory is free to read into.
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
    return (bundles.offset + bundle * bundles.byteStride, readByteCount)
  }

  /// Takes the completion of a read: checks bundles that come for the first time, and copies.
  func completed(_ number: Int, byteCount: Int) throws(LoaderError) {
    let start = monotonicNanoseconds()
    let read = planned[number]
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
          + (index - Int(read.first)) * readByteCount
        memcpy(slot, source, contentByteCount)
      }
      if !reading.readsPartsApart { try verify(index, at: slot) }
    }
    if read.stagingIndex >= 0 { freeStaging.append(read.stagingIndex) }
    if reading.readsPartsApart, isComplete {
      for index in 0..<missingCount {
        try verify(index, at: memory.address + Int(missingSlot[index]) * slotByteCount)
      }
    }
    statistics.managementNanoseconds += monotonicNanoseconds() - start
  }

  /// Compares a bundle with its checksums when it comes for the first time.
  private func verify(_ index: Int, at address: UnsafeRawPointer) throws(LoaderError) {
    let bundle = Int(missingBundle[index])
    let key = layer * shape.bundleCount + bundle
    guard !isVerified[key] else { return }
    let prefix = UnsafeRawBufferPointer(start: address, count: shape.prefixByteCount)
    var isRight = UInt32(truncatingIfNeeded: FlashImage.checksum(prefix)) == checksums[2 * key]
    if isRight, reading.includesDecidingPart {
      let rest = UnsafeRawBufferPointer(
        start: address + prefix.count, count: shape.byteCount - prefix.count)
      isRight = UInt32(truncatingIfNeeded: FlashImage.checksum(rest)) == checksums[2 * key + 1]
    }
    guard isRight else {
      let bundles = layout.layers[layer]
      throw .format(
        FormatError(
          .checksumMismatch, at: bundles.offset + bundle * bundles.byteStride, path: path,
          "bundle \(bundle) of layer \(layer)'s neurons is not what was written: the file or what "
            + "the drive returned is damaged"))
    }
    isVerified[key] = true
  }
}
