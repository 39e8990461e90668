public import BlockIO
public import Kernels
public import ModelFormat
public import TensorBasics

/// Delivers a model's weights in the order of use: pinned ones from memory, the others from the drive.
///
/// Those are read ahead through a staging ring, across the boundaries of sweeps. One thread owns a stream. It
/// announces sweeps, acquires each piece when it needs it (which waits if the drive is behind), lets any
/// threads read the bytes, and releases the piece. Streamed pieces must be acquired and released in the plan's
/// order.
///
/// ```swift
/// try stream.announce(segments: 0b11)
/// for piece in plan.pieces.indices {
///   let bytes = try stream.acquire(piece)
///   …
///   stream.release(piece)
/// }
/// ```
public final class WeightStream {
  public let source: ModelSource
  public let plan: ResidencyPlan
  /// Raised, it makes every wait for the drive throw ``LoaderError/interrupted``.
  public let cancellation: CancellationFlag

  /// What the stream did so far.
  public struct Statistics: Sendable {
    /// Pieces acquired that were not in memory yet.
    public var stalls = 0
    /// Time spent waiting for them.
    public var stallNanoseconds: Int = 0
    /// Sweeps completed or under way.
    public var sweeps = 0
  }
  public internal(set) var statistics = Statistics()

  /// Called, on the thread that waits, while the drive has not answered for a while; see `Stall`.
  public var onStall: ((Stall) -> Void)?
  var stallWatch = StallWatch()
  /// Called once, when a file of the model is found replaced or removed.
  public var onReplacement: ((BlockIOError) -> Void)?
  private var replacementIsKnown = false

  /// What is done while the drive is waited for; nil = nothing.
  package var idleWork: (any IdleWork)?
  /// Bytes of runs that were asked for and have not come.
  package internal(set) var readingByteCount = 0

  let device: any BlockDevice
  private let pinned: AlignedBuffer
  private let population: PagePrefaulter
  /// Where runs stay for a while, and the pages that those of the first time need.
  let borrowed: AlignedBuffer
  var borrowedPopulation: PagePrefaulter?
  /// How many of the plan's borrowers have a place there: the first ones.
  var borrowerCount = 0
  /// For tests: stands for how much of pinned memory is committed.
  package var committedByteCount: (() -> Int)?
  private let staging: AlignedBuffer
  private var ring: StagingRing

  /// A run has a place in pinned or borrowed memory; it was asked for; it is there and stays.
  var hasPlace: [Bool]
  var placedSubmitted: [Bool]
  var placedReady: [Bool]
  var placedReadyCount = 0
  /// Layout of placed pieces, which their user may interleave in place.
  var layouts: [RowLayout]

  /// What is known of each tensor's place.
  private enum Residence {
    case unknown
    case never
    case resident(UnsafeMutableRawPointer)
  }
  private var residence: [Residence]

  /// Announced sweeps, oldest first: segments as bits.
  private(set) var sweeps: [UInt64] = []
  private var sweepCursor = SweepCursor()

  /// Streamed runs under way, oldest first, in a ring indexed by sequence number.
  struct InFlightRun {
    var run = -1
    var address: UnsafeMutableRawPointer?
    var isReady = false
    /// The bytes of this reading were compared.
    var isCompared = false
    var piecesLeft = 0
  }
  var flights: [InFlightRun]
  private(set) var firstSequence = 0
  private(set) var nextSequence = 0
  /// The latest sequence number of each streamed run, −1 = none outstanding.
  private(set) var sequenceOfRun: [Int]

  let rowReader: RowReader
  let verifier: ExtentVerifier?
  /// Where every reading of a run is compared; nil if only the first is.
  let rereads: RereadVerifier?
  let bundles: BundleCache?
  let neurons: NeuronWindow?
  /// Runs whose bytes have been through the verifier.
  var isVerified: [Bool]
  /// Runs whose bytes in pinned memory were compared.
  var isHomeCompared: [Bool]
  /// The first error that left the stream unusable; every later call throws it again.
  private(set) var failure: LoaderError?
  /// What is under way belongs to sweeps that were broken off (``abandon()``).
  var isAbandoned = false

  /// - Parameters:
  ///   - tables: tensors that `readRows(tensor:rows:_:)` will be asked for.
  ///   - families: bundles that ``request(bundle:of:users:)`` will be asked for.
  ///   - slots: room for bundles of these families.
  ///   - neurons: how an image's bundles of neurons are read and how many are kept; nil if none are asked for.
  ///   - verification: when an image's bytes are compared with its checksums.
  ///   - pool: shares the work of comparing, outside of its own regions; nil = the caller alone does it.
  /// - Throws: ``LoaderError/allocation(_:)``; ``LoaderError/notVerifiable(path:_:)``.
  public init(
    source: ModelSource, plan: ResidencyPlan, tables: [Int] = [], families: [BundleFamily] = [],
    slots: BundleSlots? = nil, neurons: (reading: NeuronReading, slotCount: Int)? = nil,
    verification: Verification = .first,
    pool: ThreadPool? = nil, cancellation: CancellationFlag = CancellationFlag()
  ) throws(LoaderError) {
    try verification.check(source, tables: tables, families: families)
    self.source = source
    self.cancellation = cancellation
    self.plan = plan
    device = source.device
    do {
      pinned = try AlignedBuffer(byteCount: plan.pinnedByteCount, prefersHugePages: true)
      staging = try AlignedBuffer(byteCount: plan.stagingByteCount, prefersHugePages: true)
      borrowed = try AlignedBuffer(
        byteCount: plan.borrowableByteCount,
        prefersHugePages: plan.borrowableByteCount >= Self.hugePagesByteCount)
    } catch { throw .allocation(error) }
    population = PagePrefaulter(pinned.bytes)
    let smallestRun = plan.runs.lazy.map(\.byteCount).min() ?? 1
    let flightCapacity = max(2, min(4096, plan.stagingByteCount / max(1, smallestRun) + 1))
    ring = StagingRing(byteCount: plan.stagingByteCount, capacity: flightCapacity)
    flights = [InFlightRun](repeating: InFlightRun(), count: flightCapacity)
    hasPlace = plan.runs.map(\.isPinned)
    placedReady = [Bool](repeating: false, count: plan.runs.count)
    placedSubmitted = placedReady
    sequenceOfRun = [Int](repeating: -1, count: plan.runs.count)
    layouts = plan.pieces.map(\.layout)
    residence = [Residence](repeating: .unknown, count: source.description.tensors.count)
    sweeps.reserveCapacity(16)
    verifier = try ExtentVerifier(source.description, verification, pool: pool)
    rereads = verification == .always ? RereadVerifier(plan.runs, pool: pool) : nil
    isVerified = [Bool](repeating: verifier == nil, count: plan.runs.count)
    isHomeCompared = [Bool](repeating: rereads == nil, count: plan.runs.count)
    rowReader = try RowReader(source: source, tables: tables, verifier: verifier)
    if let neurons, let layout = source.description.neurons {
      self.neurons = try NeuronWindow(
        layout, neurons.reading, slotCount: neurons.slotCount, source: source, verifier: verifier,
        pool: pool)
    } else {
      self.neurons = nil
    }
    if let slots {
      bundles = try BundleCache(families, slots, source: source, verifier: verifier)
    } else {
      bundles = nil
    }
    device.register(staging.bytes)
  }

  /// Waits for what is under way: the device lives on, and the next stream's memory may lie in the same
  /// place.
  deinit {
    population.stop()
    borrowedPopulation?.stop()
    device.drain(unless: cancellation)
    device.unregister(staging.bytes)
  }

  /// Whether the processors have more to do than the drive.
  ///
  /// Committing memory for weights to be pinned then waits where it is slow, and these are streamed meanwhile.
  public var isComputeBound: Bool {
    get { population.yields }
    set {
      guard plan.stagingByteCount > 0 else { return }
      population.yields = newValue
      borrowedPopulation?.yields = newValue
    }
  }

  /// Promises a sweep over `segments` (bit i = segment i), in ascending order; reading ahead may begin
  /// at once.
  ///
  /// - Throws: ``LoaderError/io(_:)`` when the drive fails; ``LoaderError/interrupted`` only after
  ///   ``abandon()``, where reads are waited for.
  public func announce(segments: UInt64) throws(LoaderError) {
    try settleAbandoned()
    sweeps.append(segments)
    statistics.sweeps += 1
    try pump()
  }

  /// Takes back every announcement and drops what was read ahead; no piece may be acquired.
  ///
  /// - Throws: as `acquire(_:)`; after ``LoaderError/interrupted`` the sweeps are to be abandoned.
  public func cancelAnnounced() throws(LoaderError) {
    for sequence in firstSequence..<nextSequence {
      while !flights[sequence % flights.count].isReady {
        try reapOne(for: .run(flights[sequence % flights.count].run))
      }
    }
    dropFlights()
  }

  /// Gives up what was read into staging memory, all of which has come.
  func dropFlights() {
    sweeps.removeAll(keepingCapacity: true)
    sweepCursor = SweepCursor()
    for sequence in firstSequence..<nextSequence {
      flights[sequence % flights.count].piecesLeft = 0
    }
    retireFlights()
  }

  /// How a piece's rows lie in memory right now.
  public func layout(of piece: Int) -> RowLayout { layouts[piece] }

  /// Records that the user of a placed piece interleaved its rows in place.
  public func markInterleaved(_ piece: Int) {
    precondition(isPlaced(piece), "only pieces that stay may be changed")
    layouts[piece] = .interleaved
  }

  /// Whether a piece is where it stays: pinned or borrowed memory, and not staging.
  public func isPlaced(_ piece: Int) -> Bool {
    let run = plan.runOfPiece[piece]
    return sequenceOfRun[run] < 0 && placedReady[run]
  }

  /// Whether all runs that have a place are there, so that a sweep reads no more than it has to.
  public var isSettled: Bool { placedReadyCount == plan.pinnedRunCount + borrowerCount }

  /// Where a run stays; nil if it has no place.
  private func place(ofRun index: Int) -> UnsafeMutableRawPointer? {
    guard hasPlace[index] else { return nil }
    let run = plan.runs[index]
    return run.pinnedOffset.map { pinned.address + $0 }
      ?? run.borrowedOffset.map { borrowed.address + $0 }
  }

  /// Whether the memory of a run's place is committed.
  private func isCommitted(_ run: ResidencyPlan.Run) -> Bool {
    guard plan.stagingByteCount > 0 else { return true }
    if let offset = run.pinnedOffset {
      return offset + run.byteCount <= committedByteCount?() ?? population.populatedByteCount
    }
    let end = (run.borrowedOffset ?? 0) + run.byteCount
    return end <= borrowedPopulation?.populatedByteCount ?? .max
  }

  /// Whether `acquire(_:)` would not wait.
  public func isReady(_ piece: Int) -> Bool {
    let run = plan.runOfPiece[piece]
    let sequence = sequenceOfRun[run]
    return sequence >= 0 ? flights[sequence % flights.count].isReady : placedReady[run]
  }

  /// The address of a piece's first byte, once it is in memory.
  ///
  /// - Throws: ``LoaderError/io(_:)`` when the drive fails, ``LoaderError/interrupted``,
  ///   ``LoaderError/notExpected(piece:)`` for a piece that nothing will bring.
  package func acquire(_ piece: Int) throws(LoaderError) -> UnsafeMutableRawPointer {
    try pump()
    if !isReady(piece) { try wait(for: piece) }
    let index = plan.runOfPiece[piece]
    let run = plan.runs[index]
    let base =
      if sequenceOfRun[index] < 0, let place = place(ofRun: index) {
        place
      } else {
        flights[sequenceOfRun[index] % flights.count].address!
      }
    if !isVerified[index] || rereads != nil && !isCompared(index) { try compare(index, at: base) }
    return base + (plan.pieces[piece].offset - run.offset)
  }

  /// Throws if a file of the model was changed since it was opened.
  ///
  /// To be called before what a sweep computed is shown to anyone. A file that was replaced or removed
  /// is no error: the one that was opened is still read. ``onReplacement`` hears of it once.
  public func checkFiles() throws(LoaderError) {
    do throws(BlockIOError) { try device.checkUnchanged() } catch {
      guard error.isReplacement else { throw fail(.io(error)) }
      if !replacementIsKnown { onReplacement?(error) }
      replacementIsKnown = true
    }
  }

  /// Where all rows of a tensor lie one after the other, interleaved and pinned; nil where or
  /// while they do not.
  ///
  /// Spares the user of a model in memory the look at each piece. Once given, it stays.
  package func residentAddress(ofTensor tensor: Int) -> UnsafeMutableRawPointer? {
    switch residence[tensor] {
    case .resident(let address): return address
    case .never: return nil
    case .unknown:
      let pieces = plan.piecesOfTensor[tensor]
      guard plan.isContiguous(tensor) else {
        residence[tensor] = .never
        return nil
      }
      for piece in pieces {
        guard isPlaced(piece), layouts[piece] == .interleaved, isVerified[plan.runOfPiece[piece]],
          isHomeCompared[plan.runOfPiece[piece]]
        else { return nil }
      }
      let run = plan.runs[plan.runOfPiece[pieces.lowerBound]]
      let address =
        pinned.address + run.pinnedOffset! + (plan.pieces[pieces.lowerBound].offset - run.offset)
      residence[tensor] = .resident(address)
      return address
    }
  }

  /// Gives a piece's bytes back; a streamed piece's memory is read into again.
  public func release(_ piece: Int) {
    let run = plan.runOfPiece[piece]
    let sequence = sequenceOfRun[run]
    if sequence < 0, placedReady[run] { return }
    precondition(sequence >= firstSequence, "piece \(piece) was not acquired")
    flights[sequence % flights.count].piecesLeft -= 1
    retireFlights()
  }

  /// Frees the staging memory of the oldest runs that are not needed any more.
  private func retireFlights() {
    while firstSequence < nextSequence, case let slot = firstSequence % flights.count,
      flights[slot].piecesLeft == 0
    {
      if sequenceOfRun[flights[slot].run] == firstSequence { sequenceOfRun[flights[slot].run] = -1 }
      flights[slot] = InFlightRun()
      ring.releaseOldest()
      firstSequence += 1
    }
  }

  /// Brings `rows` of a table (the embedding), which need not be in the plan, and hands each to `use`
  /// in order.
  ///
  /// - Parameter use: index into `rows`, address of the row (row-major) or of its row group
  ///   (interleaved), and that layout.
  package func readRows(
    tensor: Int, rows: UnsafeBufferPointer<Int32>,
    _ use: (_ index: Int, _ address: UnsafeRawPointer, _ layout: RowLayout) -> Void
  ) throws(LoaderError) {
    if let failure { throw failure }
    var requested = 0
    for index in rows.indices {
      while true {
        while requested < rows.count, rowReader.hasFreeSlot, device.inFlight < device.capacity {
          if let (address, layout) = residentRow(tensor: tensor, row: Int(rows[requested])) {
            rowReader.appendResident(address, layout)
          } else {
            try submit(rowReader.request(table: tensor, row: Int(rows[requested])))
          }
          requested += 1
        }
        do { try device.flush() } catch { throw fail(.io(error)) }
        if rowReader.isNextReady { break }
        try reapOne(for: .row(tensor: tensor, row: Int(rows[index])))
      }
      let (address, layout) = rowReader.next
      use(index, address, layout)
      rowReader.consumeNext()
    }
  }

  /// Memory that a stream takes to bring rows of `tables`.
  public static func rowBufferByteCount(
    _ tables: [TensorRecord], in model: ModelDescription
  ) -> Int {
    RowReader.byteCount(tables, in: model)
  }

  // MARK: - Reading ahead

  /// A row of a piece that stays in memory.
  private func residentRow(tensor: Int, row: Int) -> (UnsafeRawPointer, RowLayout)? {
    let pieces = plan.piecesOfTensor[tensor]
    guard !pieces.isEmpty else { return nil }
    let rowsPerPiece = plan.pieces[pieces.lowerBound].rowCount
    let piece = pieces.lowerBound + row / rowsPerPiece
    let run = plan.runs[plan.runOfPiece[piece]]
    guard isPlaced(piece), let place = place(ofRun: plan.runOfPiece[piece]) else { return nil }
    let record = source.description.tensors[tensor]
    let address = place + (plan.pieces[piece].offset - run.offset)
    let rowInPiece = row - plan.pieces[piece].firstRow
    return switch layouts[piece] {
    case .interleaved:
      (
        UnsafeRawPointer(
          address + rowInPiece / RowGroup.rowCount
            * RowGroup.byteCount(record.type, columnCount: record.columnCount)), .interleaved
      )
    case .rowMajor:
      (UnsafeRawPointer(address + rowInPiece * (record.byteCount / record.rowCount)), .rowMajor)
    }
  }

  /// Submits as many announced reads as memory and the device's queue take.
  func pump() throws(LoaderError) {
    if let failure { throw failure }
    var submitted = false
    // Rows find a free place in the queue while the stream reads ahead.
    let depth = max(1, device.capacity - rowReader.slotCount)
    while device.inFlight < depth, let run = nextRun() {
      guard try submit(run) else { break }
      sweepCursor.advance()
      submitted = true
    }
    if submitted {
      do { try device.flush() } catch { throw fail(.io(error)) }
    }
  }

  /// The next run to read, skipping those that are in their place or on their way there.
  private func nextRun() -> Int? {
    while sweepCursor.sweep < sweeps.count {
      let bits = sweeps[sweepCursor.sweep]
      while sweepCursor.segment < plan.runsOfSegment.count {
        let range = plan.runsOfSegment[sweepCursor.segment]
        if bits & (1 << UInt64(sweepCursor.segment)) != 0 {
          while sweepCursor.run < range.count {
            let run = range.lowerBound + sweepCursor.run
            if !(hasPlace[run] && placedSubmitted[run]) { return run }
            sweepCursor.run += 1
          }
        }
        sweepCursor.segment += 1
        sweepCursor.run = 0
      }
      sweeps.remove(at: sweepCursor.sweep)
      sweepCursor = SweepCursor()
    }
    return nil
  }

  /// Hands a run to the device; false if the staging ring has no room yet.
  private func submit(_ index: Int) throws(LoaderError) -> Bool {
    let run = plan.runs[index]
    let address: UnsafeMutableRawPointer
    let tag: UInt64
    // Where the memory of a run's place is not committed yet, this sweep gets it through staging,
    // and the next one tries again: clearing pages must not hold up the drive.
    if let place = place(ofRun: index), isCommitted(run) {
      address = place
      tag = Tag.placed(index)
      placedSubmitted[index] = true
    } else {
      // A run that is still outstanding from the sweep before cannot be read twice at once.
      guard sequenceOfRun[index] < 0, nextSequence - firstSequence < flights.count,
        let start = ring.allocate(run.byteCount)
      else { return false }
      address = staging.address + start
      tag = Tag.streamed(nextSequence)
      flights[nextSequence % flights.count] = InFlightRun(
        run: index, address: address, isReady: false, piecesLeft: run.pieces.count)
      sequenceOfRun[index] = nextSequence
      nextSequence += 1
    }
    try submit(
      ReadRequest(
        fileIndex: run.fileIndex, offset: run.offset,
        destination: UnsafeMutableRawBufferPointer(start: address, count: run.byteCount),
        tag: tag))
    readingByteCount += run.byteCount
    return true
  }

  func submit(_ request: ReadRequest) throws(LoaderError) {
    do { try device.submit(request) } catch { throw fail(.io(error)) }
  }

  /// Remembers the first error, which every later call throws.
  func fail(_ error: LoaderError) -> LoaderError {
    failure = failure ?? error
    return error
  }
}

/// Where reading ahead stands in the announced sweeps.
private struct SweepCursor {
  var sweep = 0
  var segment = 0
  /// Index into the segment's runs.
  var run = 0

  mutating func advance() { run += 1 }
}
