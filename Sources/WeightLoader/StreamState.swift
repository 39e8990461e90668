import BlockIO
import TensorBasics

/// Which pieces of a stream are under way, ready and in use: bookkeeping without I/O.
struct StreamState {
  /// A run in the ring.
  struct InFlightRun {
    var range = Extent(fileIndex: 0, offset: 0, byteCount: 0)
    /// First byte in the ring's memory.
    var start = 0
    /// Bytes of the range that reads were submitted for.
    var submittedByteCount = 0
    var pendingReadCount = 0
    var pieceCount = 0
    var deliveredCount = 0
    /// Pieces handed out and not given back.
    var userCount = 0
    var isVerified = false
    /// The rest will not be asked for.
    var isDiscarded = false

    var memoryRange: Range<Int> { start..<start + range.byteCount }
    var isRead: Bool { submittedByteCount >= range.byteCount && pendingReadCount == 0 }
    var isOver: Bool {
      userCount == 0 && pendingReadCount == 0 && (isDiscarded || deliveredCount == pieceCount)
    }
  }

  /// Runs in the order of the stream, in a ring indexed by sequence number.
  private(set) var flights: [InFlightRun]
  private var ring: StagingRing
  private var firstSequence = 0
  private var nextSequence = 0
  /// The run whose pieces are handed out next, and the one whose reads are submitted next.
  private var deliverySequence = 0
  private var submissionSequence = 0
  private var submission = PieceSequence([], pieceByteCount: 1)
  private var delivery = PieceSequence([], pieceByteCount: 1)
  private var runs: RunBuilder?
  /// A run that found no room in the ring yet.
  private var waiting: PieceRun?
  private let pieceByteCount: Int
  private var pendingReadCount = 0

  private static let flightLimit = 4096

  init(_ plan: LoaderPlan) {
    let capacity = max(2, min(Self.flightLimit, plan.streamByteCount / 4096))
    flights = [InFlightRun](repeating: InFlightRun(), count: capacity)
    ring = StagingRing(byteCount: plan.streamByteCount, capacity: capacity)
    pieceByteCount = plan.pieceByteCount
  }

  /// Begins a stream; the one before was discarded.
  mutating func begin(_ parts: [TensorPart], runs: RunBuilder) {
    submission = PieceSequence(parts, pieceByteCount: pieceByteCount)
    delivery = submission
    self.runs = runs
    waiting = nil
    deliverySequence = nextSequence
    submissionSequence = nextSequence
  }

  /// Discards everything that was not handed out.
  mutating func discard() {
    for sequence in firstSequence..<nextSequence {
      let index = sequence % flights.count
      flights[index].isDiscarded = true
      flights[index].submittedByteCount = flights[index].range.byteCount
    }
    runs = nil
    waiting = nil
    deliverySequence = nextSequence
    submissionSequence = nextSequence
    retire()
  }

  /// The run to hand pieces out from, where its bytes have come.
  var readyFlight: Int? {
    guard deliverySequence < nextSequence else { return nil }
    let index = deliverySequence % flights.count
    return flights[index].isRead ? index : nil
  }

  /// Whether reads are submitted or about to be.
  var isUnderWay: Bool { pendingReadCount > 0 || submissionSequence < nextSequence }

  /// Whether pieces are left that no run has been made for.
  var hasMore: Bool {
    guard let runs else { return false }
    return waiting != nil || submission.peek(runs.tensors) != nil
  }

  /// The next piece of the run that is ready, and its run.
  mutating func takePiece(
    _ tensors: [LoadableTensor]
  ) -> (place: PiecePlace, sequence: Int) {
    guard let place = delivery.next(tensors) else {
      preconditionFailure("a run has as many pieces as were counted")
    }
    let sequence = deliverySequence
    let index = sequence % flights.count
    flights[index].isVerified = true
    flights[index].deliveredCount += 1
    flights[index].userCount += 1
    if flights[index].deliveredCount == flights[index].pieceCount { deliverySequence += 1 }
    return (place, sequence)
  }

  /// Takes a piece of run `sequence` back.
  mutating func giveBack(_ sequence: Int) {
    flights[sequence % flights.count].userCount -= 1
    retire()
  }

  /// Notes the end of a read of run `sequence`.
  mutating func completed(_ sequence: Int) {
    pendingReadCount -= 1
    flights[sequence % flights.count].pendingReadCount -= 1
    retire()
  }

  /// The next read of the stream; nil if the ring has no room, or at the end.
  mutating func nextRead(_ memory: StreamMemory, _ plan: LoaderPlan) -> ReadRequest? {
    while submissionSequence == nextSequence {
      guard makeFlight() else { return nil }
      // A run of empty tensors needs no read.
      if flights[submissionSequence % flights.count].isRead { submissionSequence += 1 }
    }
    let index = submissionSequence % flights.count
    let flight = flights[index]
    let part = ReadCut.next(
      of: flight.range.byteCount, after: flight.submittedByteCount, limit: plan.readByteCount)
    let start = flight.start + part.lowerBound
    flights[index].submittedByteCount = part.upperBound
    flights[index].pendingReadCount += 1
    pendingReadCount += 1
    let request = ReadRequest(
      fileIndex: flight.range.fileIndex, offset: flight.range.offset + part.lowerBound,
      destination: UnsafeMutableRawBufferPointer(
        rebasing: memory.destination[start..<start + part.count]),
      tag: UInt64(submissionSequence))
    if part.upperBound >= flight.range.byteCount { submissionSequence += 1 }
    return request
  }

  /// Makes the next run and finds it a place; false if there is none, or no further run.
  private mutating func makeFlight() -> Bool {
    guard let run = waiting ?? runs?.next(&submission) else { return false }
    guard nextSequence - firstSequence < flights.count,
      let start = ring.allocate(
        max(AlignedBuffer.pageByteCount, AlignedBuffer.roundedUp(run.range.byteCount)))
    else {
      waiting = run
      return false
    }
    waiting = nil
    flights[nextSequence % flights.count] = InFlightRun(
      range: run.range, start: start, pieceCount: run.pieceCount)
    nextSequence += 1
    return true
  }

  /// Frees the memory of the oldest runs that are not needed any more.
  private mutating func retire() {
    while firstSequence < nextSequence, flights[firstSequence % flights.count].isOver {
      ring.releaseOldest()
      firstSequence += 1
    }
  }
}

/// How a long range is cut into reads of about equal length, none much longer than a limit.
enum ReadCut {
  /// The bytes of the read that follows `done` bytes of a range of `byteCount`.
  static func next(of byteCount: Int, after done: Int, limit: Int) -> Range<Int> {
    let readCount = max(1, (byteCount + limit / 2) / limit)
    let readByteCount = AlignedBuffer.roundedUp((byteCount + readCount - 1) / readCount)
    return done..<min(byteCount, done + readByteCount)
  }
}
