import BlockIO
import ModelFormat
import TensorBasics

/// Parts of tensors on their way into memory of their own.
final class PendingLoad {
  /// Tags of reads for loads have this bit; tags of reads for a stream do not.
  static let tagBit: UInt64 = 1 << 62

  /// A range to read, and where it goes.
  struct Run {
    var range: Extent
    /// First byte in the memory.
    var start: Int
    /// The extents of an image that the range consists of.
    var wholeExtents: Range<Int>?
  }

  let parts: [TensorPart]
  let runs: [Run]
  /// Where each part's bytes lie in the memory.
  let ranges: [Range<Int>]
  let memory: HeldMemory
  let tag: UInt64
  private var runIndex = 0
  private var submittedByteCount = 0
  private var pendingReadCount = 0
  private(set) var failure: BlockIOError?

  init(
    _ parts: [TensorPart], runs: [Run], ranges: [Range<Int>], memory: HeldMemory, tag: UInt64
  ) {
    self.parts = parts
    self.runs = runs
    self.ranges = ranges
    self.memory = memory
    self.tag = tag
  }

  /// Whether every read was submitted.
  var isSubmitted: Bool { runIndex == runs.count || failure != nil }
  /// Whether every byte has come, or will not.
  var isComplete: Bool { isSubmitted && pendingReadCount == 0 }

  /// The next read; there is one while ``isSubmitted`` is false.
  func nextRead(limit: Int) -> ReadRequest {
    let run = runs[runIndex]
    let part = ReadCut.next(of: run.range.byteCount, after: submittedByteCount, limit: limit)
    let start = run.start + part.lowerBound
    submittedByteCount = part.upperBound
    if submittedByteCount >= run.range.byteCount {
      runIndex += 1
      submittedByteCount = 0
    }
    pendingReadCount += 1
    return ReadRequest(
      fileIndex: run.range.fileIndex, offset: run.range.offset + part.lowerBound,
      destination: UnsafeMutableRawBufferPointer(
        rebasing: memory.buffer.bytes[start..<start + part.count]), tag: tag)
  }

  /// Submits no further read.
  func abandon() { runIndex = runs.count }

  func completed(_ error: BlockIOError?) {
    pendingReadCount -= 1
    if let error { failure = failure ?? error }
  }
}

extension TensorLoader {
  /// Begins to read `parts` into memory of their own, to be taken with `load(_:)` of the same list.
  ///
  /// - Throws: ``LoaderError/tensorsInUse(wanted:free:limit:)`` if the budget has no room for them now,
  ///   ``LoaderError/noSuchPart(_:path:)`` and what every call may throw.
  public func prefetch(_ parts: [TensorPart]) throws(LoaderError) {
    try enter()
    defer { leave() }
    _ = try pendingLoad(parts)
    try pump()
  }

  /// Gives up a prefetch that will not be asked for.
  public func cancelPrefetch(_ parts: [TensorPart]) throws(LoaderError) {
    try enter()
    defer { leave() }
    abandonLoad(of: parts)
  }

  /// Reads `parts` whole, or waits for their prefetch, and hands them over.
  ///
  /// Parts that lie together are read together: ``bundle(layer:expert:)`` is one read in an image.
  ///
  /// - Throws: as ``prefetch(_:)``, ``LoaderError/interrupted``, ``LoaderError/io(_:)``,
  ///   ``LoaderError/format(_:)`` if the bytes are damaged.
  public func load(_ parts: [TensorPart]) throws(LoaderError) -> LoadedTensors {
    while true {
      if let loaded = try load(parts, timeoutMilliseconds: nil) { return loaded }
    }
  }

  /// Reads the tensor of that name whole.
  ///
  /// - Throws: ``LoaderError/noSuchTensor(_:path:)``, and as `load(_:)`.
  public func load(_ name: String) throws(LoaderError) -> LoadedTensors {
    guard let index = index(of: name) else { throw .noSuchTensor(name, path: path) }
    return try load((0..<tensors[index].partCount).map { TensorPart(index, part: $0) })
  }

  /// As `load(_:)`, but waits only so long: nil if it takes longer, after which the same call goes on
  /// waiting.
  package func load(
    _ parts: [TensorPart], timeoutMilliseconds: Int?
  ) throws(LoaderError) -> LoadedTensors? {
    try enter()
    defer { leave() }
    let load = try pendingLoad(parts)
    let deadline = Self.deadline(timeoutMilliseconds)
    do throws(LoaderError) {
      while true {
        try pump()
        if load.isComplete { break }
        guard try reapOne(until: deadline) else { return nil }
      }
      loads[parts] = nil
      if let failure = load.failure { throw .io(failure) }
      for run in load.runs {
        guard let whole = run.wholeExtents else { continue }
        try verifier?.check(whole, at: load.memory.buffer.address + run.start)
      }
    } catch {
      abandonLoad(of: parts)
      // The error that stopped this load does not stop another load or a stream.
      if case .interrupted = error { cancellation.lower() }
      throw error
    }
    return LoadedTensors(parts, ranges: load.ranges, in: load.memory)
  }

  /// Gives a load up; its memory goes when nothing is read into it any more.
  private func abandonLoad(of parts: [TensorPart]) {
    guard let load = loads.removeValue(forKey: parts) else { return }
    load.abandon()
    if load.isComplete { loadOfTag[load.tag] = nil }
  }

  /// The load of `parts`, which is started if it was not yet.
  private func pendingLoad(_ parts: [TensorPart]) throws(LoaderError) -> PendingLoad {
    if let load = loads[parts] { return load }
    try check(parts)
    let extents = parts.map { tensors[$0.tensor].extent(ofPart: $0.part) }
    var runs: [PendingLoad.Run] = []
    var byteCount = 0
    let plan = ReadPlan(
      extents, alignment: device.alignment, maximumByteCount: 1 << 40, maximumGapByteCount: 4095)
    for read in plan.reads {
      let whole = image.flatMap { ExtentVerifier.wholeExtents(around: read.range, in: $0) }
      let range = whole?.range ?? read.range
      runs.append(PendingLoad.Run(range: range, start: byteCount, wholeExtents: whole?.indexes))
      byteCount += AlignedBuffer.roundedUp(range.byteCount)
    }
    let ranges = extents.map { extent in
      guard extent.byteCount > 0, let run = runs.first(where: { $0.range.contains(extent) }) else {
        return 0..<0
      }
      let start = run.start + (extent.offset - run.range.offset)
      return start..<start + extent.byteCount
    }
    let load = PendingLoad(
      parts, runs: runs, ranges: ranges, memory: try HeldMemory(byteCount: byteCount, of: account),
      tag: PendingLoad.tagBit | nextLoadTag)
    nextLoadTag += 1
    loads[parts] = load
    loadOfTag[load.tag] = load
    if !load.isSubmitted { loadQueue.append(load) }
    return load
  }

  /// The next read of the oldest load that has one.
  func nextLoadRead() -> ReadRequest? {
    while let load = loadQueue.first {
      guard !load.isSubmitted else {
        loadQueue.removeFirst()
        continue
      }
      return load.nextRead(limit: plan.readByteCount)
    }
    return nil
  }
}
