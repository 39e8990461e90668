import BlockIO
import ModelFormat
import TensorBasics

extension TensorLoader {
  /// The answer to a request for the next piece.
  package enum Next {
    case piece(TensorPiece)
    /// Every piece has been handed out.
    case end
    case timedOut
  }

  /// Begins to stream `parts` in their order, and ends the stream under way; nil = all, as they lie in the
  /// file.
  ///
  /// Neighbours are read together, whatever their order of use. Reads go out as far ahead as the ring holds.
  ///
  /// - Throws: ``LoaderError/noSuchPart(_:of:count:path:)``; ``LoaderError/interrupted`` if reads of the stream
  ///   before were waited for, after which no stream has begun; and what every call may throw.
  public func begin(_ parts: [TensorPart]? = nil) throws(LoaderError) {
    try enter()
    defer { leave() }
    if let parts { try check(parts) }
    try endStream()
    streamFailure = nil
    let alignment = device.alignment
    let image = image
    state.begin(
      parts ?? allParts,
      runs: RunBuilder(
        tensors: tensors, alignment: alignment, runByteCount: plan.readByteCount,
        widen: image.map { image in
          { ExtentVerifier.wholeExtents(around: $0, in: image)?.range ?? $0 }
        }))
    try pump()
  }

  /// Waits for the next piece; nil at the end.
  ///
  /// - Throws: ``LoaderError/interrupted``; ``LoaderError/piecesInUse(_:)`` where earlier pieces fill the
  ///   ring; ``LoaderError/io(_:)`` and ``LoaderError/format(_:)`` if the drive fails or the bytes are
  ///   damaged, which end the stream.
  public func next() throws(LoaderError) -> TensorPiece? {
    guard case .piece(let piece) = try next(timeoutMilliseconds: nil) else { return nil }
    return piece
  }

  /// As ``next()``, but waits only so long.
  package func next(timeoutMilliseconds: Int?) throws(LoaderError) -> Next {
    try enter()
    defer { leave() }
    if let streamFailure { throw streamFailure }
    do throws(LoaderError) { return try advance(until: Self.deadline(timeoutMilliseconds)) } catch {
      if case .piecesInUse = error { throw error }
      // What is under way is waited for when the next stream begins.
      state.discard()
      streamFailure = error
      // One cancellation ends one wait: the current one, or if there is none the next.
      if case .interrupted = error { cancellation.lower() }
      throw error
    }
  }

  /// Streams `parts` (nil = all, as they lie in the file) and hands each piece to `body`.
  ///
  /// - Throws: as ``next()``, and what `body` throws, which ends the stream.
  public func stream(
    _ parts: [TensorPart]? = nil, _ body: (TensorPiece) throws -> Void
  ) throws {
    try begin(parts)
    while let piece = try next() { try body(piece) }
  }

  private func advance(until deadline: Int?) throws(LoaderError) -> Next {
    while true {
      if cancellation.isRaised { throw .interrupted }
      try pump()
      if let index = state.readyFlight {
        return .piece(try deliver(from: index))
      }
      guard state.isUnderWay else {
        if state.hasMore { throw .piecesInUse(ByteCount(plan.streamByteCount)) }
        return .end
      }
      guard try reapOne(until: deadline) else { return .timedOut }
    }
  }

  /// Hands out the next piece of a run that has come.
  private func deliver(from index: Int) throws(LoaderError) -> TensorPiece {
    let flight = state.flights[index]
    if !flight.isVerified {
      do throws(BlockIOError) { try device.checkUnchanged() } catch {
        // The one that was opened is still read.
        if !error.isReplacement { throw .io(error) }
      }
      try verifier?.take(
        UnsafeRawBufferPointer(rebasing: memory.bytes[flight.memoryRange]), at: flight.range.offset)
    }
    let (place, sequence) = state.takePiece(tensors)
    let start = flight.start + (place.extent.offset - flight.range.offset)
    let tensor = tensors[place.part.tensor]
    return TensorPiece(
      place,
      rows: tensor.rows(inBytes: place.byteOffset..<place.byteOffset + place.extent.byteCount),
      range: start..<start + place.extent.byteCount, in: memory, sequence: sequence)
  }

  // MARK: - The device

  static func deadline(_ timeoutMilliseconds: Int?) -> Int? {
    timeoutMilliseconds.map { monotonicNanoseconds() + max(0, min($0, 1 << 31)) * 1_000_000 }
  }

  /// Submits as many reads as memory and the device's queue take: of loads, then of the stream.
  func pump() throws(LoaderError) {
    if let failure { throw failure }
    memory.takeReturned { state.giveBack($0) }
    var submitted = false
    while device.inFlight < device.capacity {
      guard let request = nextLoadRead() ?? state.nextRead(memory, plan) else { break }
      do { try device.submit(request) } catch { throw fail(error) }
      submitted = true
    }
    if submitted {
      do { try device.flush() } catch { throw fail(error) }
    }
  }

  /// Waits for one read; false if none came until `deadline`.
  func reapOne(until deadline: Int?) throws(LoaderError) -> Bool {
    while true {
      if cancellation.isRaised { throw .interrupted }
      let left = deadline.map { ($0 - monotonicNanoseconds()) / 1_000_000 }
      do throws(BlockIOError) {
        let wait = min(max(0, left ?? Self.longestWaitMilliseconds), Self.longestWaitMilliseconds)
        if let done = try device.reap(waiting: true, timeoutMilliseconds: wait) {
          complete(done.tag, nil)
          // Those that came meanwhile, so that as many go out at once.
          while let more = try device.reap(waiting: false, timeoutMilliseconds: 0) {
            complete(more.tag, nil)
          }
          return true
        }
      } catch {
        guard let tag = error.tag else { throw fail(error) }
        complete(tag, error)
        if tag & PendingLoad.tagBit == 0 { throw .io(error) }
        return true
      }
      if let left, left <= 0 { return false }
    }
  }

  /// Waits a little for reads, whether or not a cancellation was asked for.
  func reapUncancelled() {
    do throws(BlockIOError) {
      let done = try device.reap(waiting: true, timeoutMilliseconds: Self.longestWaitMilliseconds)
      if let done { complete(done.tag, nil) }
    } catch {
      if let tag = error.tag { complete(tag, error) } else { _ = fail(error) }
    }
  }

  /// How long a wait may take to notice ``cancellation``.
  private static let longestWaitMilliseconds = 50

  private func complete(_ tag: UInt64, _ error: BlockIOError?) {
    if tag & PendingLoad.tagBit == 0 {
      state.completed(Int(tag))
    } else if let load = loadOfTag[tag] {
      load.completed(error)
      if load.isComplete { loadOfTag[tag] = nil }
    }
  }

  /// Marks the device as unusable, once nothing is being read into memory.
  private func fail(_ error: BlockIOError) -> LoaderError {
    failure = .io(error)
    device.drain(unless: cancellation)
    return .io(error)
  }

  /// Ends the stream under way and waits until nothing is read into its memory.
  ///
  /// - Throws: ``LoaderError/interrupted``.
  func endStream() throws(LoaderError) {
    state.discard()
    while failure == nil, device.inFlight > 0, state.isUnderWay {
      // Nothing waits for a read that fails here.
      do throws(LoaderError) { _ = try reapOne(until: nil) } catch {
        guard case .interrupted = error else { continue }
        cancellation.lower()
        throw error
      }
    }
    memory.takeReturned { state.giveBack($0) }
  }
}
