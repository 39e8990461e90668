import BlockIO
import TensorBasics

extension TensorLoader {
  /// Begins to read `parts` into memory of their own, to be taken with `load(_:)` of the same list.
  ///
  /// - Throws: ``LoaderError/tensorsInUse(wanted:free:limit:)`` if the budget has no room for them now,
  ///   ``LoaderError/noSuchPart(_:of:count:path:)`` and what every call may throw.
  public func prefetch(_ parts: [TensorPart]) throws(LoaderError) {
    try enter()
    defer { leave() }
    _ = try pendingLoad(parts)
    try pump()
  }

  /// Gives up a prefetch of the same list that will not be asked for, and waits for those of its reads that
  /// are under way: the budget has its memory back. Where there is none nothing happens.
  ///
  /// - Throws: what every call may throw.
  public func cancelPrefetch(_ parts: [TensorPart]) throws(LoaderError) {
    try enter()
    defer { leave() }
    guard let load = abandonLoad(of: parts) else { return }
    while failure == nil, !load.isComplete { reapUncancelled() }
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

  /// Bytes of memory that `load(_:into:)` of the same list needs.
  ///
  /// - Throws: as ``prefetch(_:)``, but nothing about memory.
  public func loadByteCount(_ parts: [TensorPart]) throws(LoaderError) -> Int {
    try enter()
    defer { leave() }
    return try layout(of: parts).byteCount
  }

  /// Reads `parts` into the caller's memory, beside the budget: memory that is pinned for a device, or shared.
  ///
  /// Direct reads take whole pages, so that bytes lie in it as in the file's pages and not one part after the
  /// other; ``loadByteCount(_:)`` says how much there must be.
  ///
  /// - Parameter memory: begins at a multiple of 4096. It is written to until the call returns or throws.
  /// - Returns: where the bytes of each part lie in `memory`, and which rows they are.
  /// - Throws: ``LoaderError/badDestination(byteCount:needed:)``, and as `load(_:)`.
  public func load(
    _ parts: [TensorPart], into memory: inout MutableRawSpan
  ) throws(LoaderError) -> [(bytes: Range<Int>, rows: Range<Int>)] {
    try memory.withUnsafeMutableBytes { (memory) throws(LoaderError) in
      try load(parts, into: memory)
    }
  }

  /// As the public one.
  package func load(
    _ parts: [TensorPart], into memory: UnsafeMutableRawBufferPointer
  ) throws(LoaderError) -> [(bytes: Range<Int>, rows: Range<Int>)] {
    try enter()
    defer { leave() }
    let layout = try layout(of: parts)
    let isAligned = UInt(bitPattern: memory.baseAddress) % UInt(AlignedBuffer.pageByteCount) == 0
    guard isAligned, memory.count >= layout.byteCount else {
      throw .badDestination(byteCount: memory.count, needed: layout.byteCount)
    }
    let load = PendingLoad(layout, into: memory, tag: nextTag())
    begin(load)
    do throws(LoaderError) { _ = try finish(load, until: nil) } catch {
      load.abandon()
      // Nothing is read into it any more when the caller has it back.
      while failure == nil, !load.isComplete { reapUncancelled() }
      loadOfTag[load.tag] = nil
      if case .interrupted = error { cancellation.lower() }
      throw error
    }
    return parts.indices.map { (layout.ranges[$0], layout.rows[$0]) }
  }

  /// As `load(_:)`, but waits only so long: nil if it takes longer, after which the same call goes on
  /// waiting.
  package func load(
    _ parts: [TensorPart], timeoutMilliseconds: Int?
  ) throws(LoaderError) -> LoadedTensors? {
    try enter()
    defer { leave() }
    let load = try pendingLoad(parts)
    do throws(LoaderError) {
      guard try finish(load, until: Self.deadline(timeoutMilliseconds)) else { return nil }
      loads[parts] = nil
    } catch {
      abandonLoad(of: parts)
      // The error that stopped this load does not stop another load or a stream.
      if case .interrupted = error { cancellation.lower() }
      throw error
    }
    guard let held = load.held else { return nil }
    return LoadedTensors(parts, rows: load.layout.rows, ranges: load.layout.ranges, in: held)
  }

  /// Waits until all of a load has come, and checks it; false where it takes longer.
  private func finish(_ load: PendingLoad, until deadline: Int?) throws(LoaderError) -> Bool {
    while true {
      try pump()
      if load.isComplete { break }
      guard try reapOne(until: deadline) else { return false }
    }
    if let failure = load.failure { throw .io(failure) }
    for run in load.layout.runs {
      guard let whole = run.wholeExtents, let address = load.address(of: run) else { continue }
      try verifier?.check(whole, at: address)
    }
    return true
  }

  /// Gives a load up; its memory goes when nothing is read into it any more.
  @discardableResult
  private func abandonLoad(of parts: [TensorPart]) -> PendingLoad? {
    guard let load = loads.removeValue(forKey: parts) else { return nil }
    load.abandon()
    loadQueue.removeAll { $0 === load }
    if load.isComplete { loadOfTag[load.tag] = nil }
    return load
  }

  /// The load of `parts`, which is started if it was not yet.
  private func pendingLoad(_ parts: [TensorPart]) throws(LoaderError) -> PendingLoad {
    if let load = loads[parts] { return load }
    let layout = try layout(of: parts)
    let memory = try HeldMemory(byteCount: layout.byteCount, isZero: false, of: account)
    let load = PendingLoad(layout, in: memory, tag: nextTag())
    loads[parts] = load
    begin(load)
    return load
  }

  private func layout(of parts: [TensorPart]) throws(LoaderError) -> LoadLayout {
    try check(parts)
    let image = image
    return LoadLayout(parts, of: tensors, alignment: device.alignment) { extent in
      image.flatMap { ExtentVerifier.wholeExtents(around: extent, in: $0) }
    }
  }

  private func nextTag() -> UInt64 {
    defer { nextLoadTag += 1 }
    return PendingLoad.tagBit | nextLoadTag
  }

  private func begin(_ load: PendingLoad) {
    loadOfTag[load.tag] = load
    if !load.isSubmitted { loadQueue.append(load) }
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
