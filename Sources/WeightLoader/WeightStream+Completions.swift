import BlockIO
import ModelFormat
import TensorBasics

// Completions from the drive, and what happens to them when a sweep is abandoned.
extension WeightStream {
  /// What the caller of a wait needs.
  enum Wanted {
    case run(Int)
    case row(tensor: Int, row: Int)
    /// A bundle of that family.
    case bundle(Int)
    /// Neurons of the current layer.
    case neurons
    /// Any completion.
    case rest
  }

  /// Takes one completion of the device, waiting for it while `wanted` is needed; false if none came.
  ///
  /// A completion that was taken is always processed, because an interrupted caller may come back.
  @discardableResult
  func reapOne(for wanted: Wanted, waiting: Bool = true) throws(LoaderError) -> Bool {
    if let failure { throw failure }
    let completion: ReadCompletion?
    do {
      completion =
        waiting
        ? try stallWatch.step(device) { onStall?(stall(wanted, $0)) }
        : try device.reap(waiting: false, timeoutMilliseconds: nil)
    } catch { throw fail(.io(error)) }
    if let completion { try complete(completion) }
    if cancellation.isRaised { throw .interrupted }
    return completion != nil
  }

  private func complete(_ completion: ReadCompletion) throws(LoaderError) {
    switch Tag(completion.tag) {
    case .placed(let run):
      readingByteCount -= plan.runs[run].byteCount
      try check(completion, of: run)
      placedReady[run] = true
      placedReadyCount += 1
    case .streamed(let sequence):
      let slot = sequence % flights.count
      readingByteCount -= plan.runs[flights[slot].run].byteCount
      try check(completion, of: flights[slot].run)
      flights[slot].isReady = true
    case .row(let slot):
      do {
        try rowReader.complete(slot: slot, byteCount: completion.byteCount)
      } catch { throw fail(error) }
    case .bundle(let slot):
      // A bundle's last read may reach past the file's end by less than a block.
      do { try bundles?.completed(slot: slot) } catch { throw fail(error) }
    case .neurons(let read):
      do {
        try neurons?.completed(read, byteCount: completion.byteCount)
      } catch { throw fail(error) }
    }
  }

  /// Abandons all sweeps, wherever they are, and everything that is held; weights in memory
  /// stay.
  ///
  /// Call this after ``LoaderError/interrupted``, before the stream is used again. It only takes a note:
  /// the next ``announce(segments:)`` waits for the reads under way and begins again.
  public func abandon() { isAbandoned = true }

  /// Waits for the reads of abandoned sweeps. If it is interrupted, the next call continues.
  func settleAbandoned() throws(LoaderError) {
    guard isAbandoned else { return }
    while device.inFlight > 0 || neurons?.isComplete == false {
      try submitNeurons()
      try reapOne(for: .rest)
    }
    try checkNeurons()
    dropFlights()
    rowReader.abandon()
    bundles?.abandon()
    isAbandoned = false
  }

  private func stall(_ wanted: Wanted, _ seconds: Int) -> Stall {
    let tensors = source.description.tensors
    let (tensor, offset, byteCount): (Int, Int, Int)
    switch wanted {
    case .run(let index):
      tensor = plan.pieces[plan.runs[index].pieces.lowerBound].tensor
      (offset, byteCount) = (plan.runs[index].offset, plan.runs[index].byteCount)
    case .row(let table, let row):
      tensor = table
      byteCount = tensors[table].byteCount / tensors[table].rowCount
      offset = tensors[table].offset + row * byteCount
    case .bundle(let family):
      tensor = bundles?.families[family].parts[0].tensor ?? 0
      (offset, byteCount) = (tensors[tensor].offset, tensors[tensor].partByteCount)
    case .rest:
      let under = (firstSequence..<nextSequence).first { !flights[$0 % flights.count].isReady }
      return stall(
        under.map { .run(flights[$0 % flights.count].run) }
          ?? (neurons == nil ? .bundle(0) : .neurons),
        seconds)
    case .neurons:
      let range = neurons?.wantedRange ?? (offset: 0, byteCount: 0)
      return Stall(
        path: source.description.files[0], offset: range.offset, byteCount: range.byteCount,
        tensorName: "neurons", readsInFlight: device.inFlight, seconds: seconds)
    }
    return Stall(
      path: source.description.files[tensors[tensor].fileIndex], offset: offset,
      byteCount: byteCount, tensorName: tensors[tensor].name, readsInFlight: device.inFlight,
      seconds: seconds)
  }

  /// A read may end early only at the end of the file, past the last piece's bytes.
  private func check(_ completion: ReadCompletion, of index: Int) throws(LoaderError) {
    let run = plan.runs[index]
    let last = plan.pieces[run.pieces.upperBound - 1]
    let needed = last.offset + last.byteCount - run.offset
    guard completion.byteCount < needed else { return }
    throw fail(
      .format(
        FormatError(
          .truncated, at: run.offset + completion.byteCount,
          path: source.description.files[run.fileIndex],
          "the file ends inside tensor '\(source.description.tensors[last.tensor].name)'; "
            + "it was complete when it was opened")))
  }
}
