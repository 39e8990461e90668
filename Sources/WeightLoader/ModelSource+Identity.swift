public import BlockIO
public import ModelFormat
public import TensorBasics

/// What identifies a model in things that are kept about it.
public struct ModelReferences: Sendable, Equatable {
  public enum Reference: Sendable, Hashable {
    /// All its weights, whatever files they lie in.
    case content(ModelIdentity)
    /// The very files, unchanged: while their checksums are not known.
    case files(UInt64)
  }

  /// The reference under which new things are kept.
  public var best: Reference
  /// All references to these weights, the best first.
  public var all: [Reference]
  /// The files when this was made; empty if that is unknown.
  public var files: [FileIdentity]

  public init(best: Reference, all: [Reference], files: [FileIdentity]) {
    self.best = best
    self.all = all
    self.files = files
  }
}

/// What was remembered of weights when they were read again.
public enum WeightMemory: Sendable {
  /// Checksums of all, which they still have.
  case unchanged
  /// Checksums of some, which they still have: a run had begun to learn them.
  case inPart
  /// The identity from before the files were written to, which is another model's: most weights differ.
  case changed
  /// The identity from before the files were written to or renamed, which is the same.
  case rewritten
  /// Checksums of some of the weights from before the files were written to, which say nothing of them now.
  case unknown
  case none
}

extension ModelSource {
  /// The model's identity where no weights need to be read for it: an image's, or one that is remembered.
  ///
  /// - Throws: ``LoaderError/io(_:)``.
  public func knownIdentity() throws(LoaderError) -> ModelIdentity? {
    if let identity = description.imageIdentity ?? identityOfCopies { return identity }
    let checksums = rememberedChecksums(try settledFiles())
    return checksums.isComplete ? description.identity(checksums: checksums.known) : nil
  }

  /// The model's identity. Where its file has no checksums and none are remembered all weights are read,
  /// and that is remembered.
  ///
  /// - Parameters:
  ///   - note: is told in one line why it could not be remembered.
  ///   - progress: is told how many bytes of the weights are being, or were, read so far.
  /// - Returns: nil for a file without a model.
  /// - Throws: ``LoaderError/io(_:)``, also where a file changed meanwhile; ``LoaderError/format(_:)`` where
  ///   it has become shorter; ``LoaderError/interrupted``.
  public func computeIdentity(
    cancellation: CancellationFlag = CancellationFlag(), note: (String) -> Void = { _ in },
    progress: (_ byteCount: Int) -> Void = { _ in }
  ) throws(LoaderError) -> ModelIdentity? {
    guard description.configuration != nil, !description.tensors.isEmpty else { return nil }
    if let identity = description.imageIdentity ?? identityOfCopies { return identity }
    let files = try settledFiles()
    var checksums = rememberedChecksums(files)
    if !checksums.isComplete {
      try read(&checksums, files, cancellation, progress)
      remember(checksums, files, note: note)
    }
    return description.identity(checksums: checksums.known)
  }

  /// Reads all weights and compares them with the checksums that are remembered, or remembers theirs.
  ///
  /// - Returns: the identity, and what there was to compare the weights with.
  /// - Throws: as ``computeIdentity(cancellation:note:progress:)``; ``LoaderError/format(_:)`` for the first
  ///   part that differs from an earlier reading of the file, although it has not been changed since, or although
  ///   most of the others are what they were.
  public func verifyWeights(
    cancellation: CancellationFlag, note: (String) -> Void,
    progress: (_ byteCount: Int) -> Void = { _ in }
  ) throws(LoaderError) -> (identity: ModelIdentity?, memory: WeightMemory) {
    let files = try settledFiles()
    let remembered = rememberedChecksums(files)
    var checksums = WeightChecksums(description.storedTensors)
    try read(&checksums, files, cancellation, progress)
    if let index = remembered.known.indices.first(where: {
      remembered.known[$0] != checksums.known[$0]
    }) {
      let part = checksums.parts[index]
      throw .format(
        FormatError(
          .checksumMismatch, at: part.offset, path: description.files[part.fileIndex],
          "the \(ByteCount(part.byteCount)) here are not what they were when they were read before, "
            + "and the file has not changed since: the drive returned something else"))
    }
    if let part = damagedPart(checksums, files) {
      throw .format(
        FormatError(
          .checksumMismatch, at: part.offset, path: description.files[part.fileIndex],
          "the \(ByteCount(part.byteCount)) here are not what they were when they were read before, unlike most of "
            + "the other weights; the file was written to since: if you did not change it, delete it and download it again"
        ))
    }
    let identity = description.identity(checksums: checksums.known)
    let memory: WeightMemory =
      remembered.isComplete
      ? .unchanged
      : !remembered.known.isEmpty ? .inPart : memoryOfOthers(of: files, than: identity)
    remember(checksums, files, note: note)
    return (identity, memory)
  }

  /// Memory that ``learnIdentity(within:cancellation:)`` takes.
  public var learningByteCount: Int {
    guard description.extents.isEmpty else { return 0 }
    let partCount = description.storedTensors.reduce(0) {
      $0 + $1.byteCount / ModelIdentity.partByteCount + 1
    }
    // Parts, checksums, and the record as it is read and written.
    return WeightChecksums.memoryByteCount(slotCount: 1) + 64 * partCount
  }

  /// Reads weights for a moment if their checksums are not known yet, and remembers how far it came.
  ///
  /// After a few runs all are known, and no run has waited for them. Uses a device of its own, as this one may
  /// be reading ahead. Failures leave things as they are.
  ///
  /// - Parameter milliseconds: for how long.
  public func learnIdentity(
    within milliseconds: Int, cancellation: CancellationFlag = CancellationFlag()
  ) {
    guard description.extents.isEmpty, identityOfCopies == nil, records.folder != nil,
      let files = try? settledFiles(), !files.isEmpty
    else { return }
    var checksums = rememberedChecksums(files)
    let end = monotonicNanoseconds() + milliseconds * 1_000_000
    guard !checksums.isComplete,
      let device = try? openDevice(paths: description.files, backend: .pread, queueDepth: 1),
      (try? device.fileIdentities()) == files
    else { return }
    do {
      try checksums.read(device, paths: description.files, slotCount: 1) {
        monotonicNanoseconds() < end && !cancellation.isRaised
      }
      guard try device.fileIdentities() == files else { return }
      remember(checksums, files) { _ in }
    } catch {}
  }

  /// What identifies the model in stores; nil if neither checksums nor an unchanged file can.
  ///
  /// Call this before weights are read: what is computed from them belongs to them as long as
  /// ``isUnchanged(since:)``.
  ///
  /// - Throws: ``LoaderError/io(_:)``.
  public func references() throws(LoaderError) -> ModelReferences? {
    let files = try settledFiles()
    let file: [ModelReferences.Reference] =
      files.isEmpty ? [] : [.files(WeightRecords.number(of: files))]
    guard let identity = try knownIdentity() else {
      return file.first.map { ModelReferences(best: $0, all: file, files: files) }
    }
    let others = records.files(of: identity).map(ModelReferences.Reference.files)
    let all = [.content(identity)] + file + others.filter { !file.contains($0) }
    return ModelReferences(best: all[0], all: all, files: files)
  }

  /// Whether the files are still those that `references` were made of.
  public func isUnchanged(since references: ModelReferences) -> Bool {
    guard !references.files.isEmpty else { return true }
    return (try? device.fileIdentities()) == references.files
  }

  // MARK: Details

  /// What is remembered of the same files as they were before they were written to.
  private func memoryOfOthers(
    of files: [FileIdentity], than identity: ModelIdentity?
  ) -> WeightMemory {
    let identities = records.identitiesBefore(files, at: description.files)
    guard !identities.isEmpty else { return .none }
    if let identity, identities.contains(identity.number) { return .rewritten }
    return identities.contains { $0 != 0 } ? .changed : .unknown
  }

  /// The first part that is not what it was before the files were written to; nil where nothing is known, where a
  /// complete reading from before agrees, and where most parts differ: that is another model in their place, or in that
  /// of a deleted file.
  private func damagedPart(
    _ checksums: WeightChecksums, _ files: [FileIdentity]
  ) -> Extent? {
    let earlier = records.checksumsBefore(
      files, at: description.files, layout: checksums.layoutChecksum)
    guard !earlier.contains(checksums.known) else { return nil }
    for known in earlier {
      let differing = zip(known, checksums.known).enumerated().filter { $1.0 != $1.1 }
      guard let first = differing.first, 2 * differing.count < known.count else { continue }
      return checksums.parts[first.offset]
    }
    return nil
  }

  private func settledFiles() throws(LoaderError) -> [FileIdentity] {
    do { return try device.settledFileIdentities() } catch { throw .io(error) }
  }

  private func rememberedChecksums(_ files: [FileIdentity]) -> WeightChecksums {
    var checksums = WeightChecksums(description.storedTensors)
    checksums.resume(records.load(files, layout: checksums.layoutChecksum))
    return checksums
  }

  private func read(
    _ checksums: inout WeightChecksums, _ files: [FileIdentity], _ cancellation: CancellationFlag,
    _ progress: (_ byteCount: Int) -> Void
  ) throws(LoaderError) {
    var (next, byteCount) = (checksums.known.count, 0)
    let parts = checksums.parts
    for part in parts[..<next] { byteCount += part.byteCount }
    try checksums.read(device, paths: description.files, slotCount: 16) {
      progress(byteCount)
      byteCount += parts[next].byteCount
      next += 1
      return !cancellation.isRaised
    }
    guard checksums.isComplete else { throw .interrupted }
    do throws(BlockIOError) {
      if !files.isEmpty, try device.fileIdentities() != files {
        throw BlockIOError(.inspect, path: path, reason: .modified)
      }
    } catch { throw .io(error) }
  }

  private func remember(
    _ checksums: WeightChecksums, _ files: [FileIdentity], note: (String) -> Void
  ) {
    let identity =
      checksums.isComplete
      ? description.identity(checksums: checksums.known) : nil
    do {
      try records.save(
        checksums.known, of: files, layout: checksums.layoutChecksum, identity: identity)
    } catch { note("the checksums of \(path) are not remembered: \(error)") }
  }
}
