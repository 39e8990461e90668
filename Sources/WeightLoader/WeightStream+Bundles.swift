import BlockIO
package import TensorBasics

// Bundles go through the stream's device, so the thread that owns the stream asks for them too.
extension WeightStream {
  /// What the bundle cache did so far.
  public var bundleStatistics: BundleStatistics { bundles?.statistics ?? BundleStatistics() }

  /// Tells the caches that the next sweep begins.
  ///
  /// - Parameter rowCount: tokens that it serves.
  public func beginSweep(rowCount: Int) {
    bundles?.beginSweep(rowCount: rowCount)
    neurons?.token += 1
  }

  /// Whether another bundle of `family` can be asked for before one is released.
  public func hasRoomForBundle(of family: Int) -> Bool { bundles?.hasRoom(family) ?? false }

  /// Whether a bundle is in memory or on its way.
  public func holds(bundle: Int, of family: Int) -> Bool {
    bundles?.contains(family, bundle) ?? false
  }

  /// The share of a sweep's rows that will probably use a bundle, as those of the last sweeps did.
  ///
  /// - Parameter share: what is assumed where nothing is known.
  public func shareOfRows(using bundle: Int, of family: Int, assuming share: Double) -> Double {
    bundles?.shareOfRows(family, bundle, assuming: share) ?? share
  }

  /// Asks for a bundle, which is read where it is not in memory, and holds it until it is released.
  ///
  /// - Parameter users: rows of the sweep that use it.
  /// - Precondition: ``hasRoomForBundle(of:)``, unless the bundle is in memory or on its way.
  public func request(
    bundle: Int, of family: Int, users: Int = 1
  ) throws(LoaderError) {
    if let failure { throw failure }
    guard let bundles, let slot = bundles.hold(family, bundle, users: users) else { return }
    try read(bundle, of: family, slot: slot, bundles)
  }

  /// Whether the drive's queue has room for a read.
  public var canRead: Bool { device.inFlight < device.capacity }

  /// Whether a read ahead would start at once, and leave room for others.
  public var canReadAhead: Bool { device.inFlight < device.capacity - rowReader.slotCount }

  /// Reads a bundle that will probably be asked for, and keeps it until ``endPrefetching(of:)``.
  ///
  /// - Precondition: ``hasRoomForBundle(of:)``.
  public func prefetch(bundle: Int, of family: Int) throws(LoaderError) {
    if let failure { throw failure }
    guard let bundles, let slot = bundles.reserve(family, bundle) else { return }
    try read(bundle, of: family, slot: slot, bundles)
  }

  /// Families, and bundles of each; nil if there are none or the families differ.
  public var bundleShape: (familyCount: Int, bundleCount: Int)? {
    guard let families = bundles?.families, let first = families.first,
      families.allSatisfy({ $0.bundleCount == first.bundleCount })
    else { return nil }
    return (families.count, first.bundleCount)
  }

  /// The use of every bundle so far, to be told to ``seedBundles(_:)`` in a later run; by family, one
  /// number a bundle, 0...1.
  public var expertUsage: [Float] { bundles?.hotness ?? [] }

  /// Tells of the use of every bundle in an earlier run, whose hottest are then read while the drive
  /// has little to do.
  ///
  /// - Precondition: no bundle was asked for yet.
  public func seedBundles(_ hotness: [Float]) throws(LoaderError) {
    bundles?.seed(hotness)
    try readExpectedBundles()
  }

  /// Reads bundles that an earlier run used much into empty slots, as many as do not hold up others.
  public func readExpectedBundles() throws(LoaderError) {
    if let failure { throw failure }
    guard let bundles, bundles.expectsMore else { return }
    while device.inFlight > 0 {
      guard try reapOne(for: .bundle(0), waiting: false) else { break }
    }
    while device.inFlight < min(Self.idleReadCount, device.capacity - rowReader.slotCount),
      let next = bundles.takeExpected()
    {
      try read(next.bundle, of: next.family, slot: next.slot, bundles)
    }
  }

  /// Reads in flight below which the drive has little to do.
  private static let idleReadCount = 4

  /// Gives up a family's bundles that were read ahead and not asked for; they may leave.
  public func endPrefetching(of family: Int) { bundles?.endReservations(of: family) }

  /// Makes sure that a bundle of `family` can be asked for, if need be by giving up what was read ahead.
  ///
  /// - Precondition: not every slot for it is held.
  public func makeRoomForBundle(of family: Int) throws(LoaderError) {
    guard let bundles, !bundles.hasRoom(family) else { return }
    bundles.endReservations()
    while !bundles.hasRoom(family) {
      precondition(device.inFlight > 0, "every bundle in memory is held")
      try reapOne(for: .bundle(0))
    }
  }

  private func read(
    _ bundle: Int, of family: Int, slot: Int, _ bundles: BundleCache
  ) throws(LoaderError) {
    try bundles.forEachRead(family, bundle, slot: slot) { request throws(LoaderError) in
      while device.inFlight >= device.capacity { try reapOne(for: .bundle(family)) }
      try submit(request)
    }
    do { try device.flush() } catch { throw fail(.io(error)) }
  }

  /// Whether a bundle that was asked for is in memory.
  public func isReady(bundle: Int, of family: Int) throws(LoaderError) -> Bool {
    guard let bundles else { return false }
    while !bundles.isReady(family, bundle) {
      // Take the completions that have arrived meanwhile, without waiting.
      guard try reapOne(for: .bundle(family), waiting: false) else { return false }
    }
    return true
  }

  /// Waits for a bundle that was asked for.
  public func wait(forBundle bundle: Int, of family: Int) throws(LoaderError) {
    guard let bundles, !bundles.isReady(family, bundle) else { return }
    let start = monotonicNanoseconds()
    statistics.stalls += 1
    while !bundles.isReady(family, bundle) {
      try reapOne(for: .bundle(family))
    }
    statistics.stallNanoseconds += monotonicNanoseconds() - start
  }

  /// The first byte and the layout of a part of a bundle that is held and in memory.
  package func part(
    _ part: Int, ofBundle bundle: Int, of family: Int
  ) -> (address: UnsafeMutableRawPointer, layout: RowLayout) {
    guard let bundles else { preconditionFailure("this stream has no bundles") }
    return bundles.part(part, family, bundle)
  }

  /// Records that the user of a bundle interleaved a part's rows in place.
  public func markInterleaved(part: Int, ofBundle bundle: Int, of family: Int) {
    bundles?.markInterleaved(part: part, family, bundle)
  }

  /// Gives a bundle back; it stays in memory until another needs its place.
  public func release(bundle: Int, of family: Int) { bundles?.release(family, bundle) }
}
