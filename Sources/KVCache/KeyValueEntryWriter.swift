public import BlockIO
import Glibc
import TensorBasics

/// An entry being written: a temporary file, which takes its name when it is complete.
///
/// The caller writes the page groups to ``path``, each where it would be if the file held all page groups of the
/// sequence; the header comes last. Without ``commit(after:tokens:pageChecksums:partial:text:)`` the file
/// goes away with the writer, and after a kill with the
/// next process that opens the folder.
public final class KeyValueEntryWriter {
  /// The temporary file.
  public let path: String
  /// Where the sequence's first page group belongs, or would if it were not in another entry.
  public let dataOffset: Int

  private let directory: KeyValueDirectory
  private let origin: KeyValueOrigin
  private let pageGroupCapacity: Int
  private let modelName: [UInt8]
  private let descriptor: UnixDescriptor
  /// Room for logits between tables and data.
  private let logitsByteCount: Int
  private var logits: KeyValueEntryHeader.Logits?
  /// States that were kept, in the order of positions.
  private var states: [KeyValueEntryHeader.States] = []
  private var isCommitted = false

  /// Creates the temporary file and locks it.
  ///
  /// - Parameters:
  ///   - pageGroupCapacity: most page groups that the sequence will have.
  ///   - logitCount: of the logits that may be kept with it; 0 = none.
  ///   - modelName: for people.
  /// - Throws: `BlockIOError` if the folder cannot be written to.
  public init(
    in directory: KeyValueDirectory, origin: KeyValueOrigin, pageGroupCapacity: Int,
    logitCount: Int = 0, modelName: String
  ) throws(BlockIOError) {
    let (path, raw) = try Self.create(in: directory.path)
    self.path = path
    descriptor = UnixDescriptor(owning: raw)
    self.directory = directory
    self.origin = origin
    self.pageGroupCapacity = pageGroupCapacity
    self.modelName = Self.shortened(Array(modelName.utf8), KeyValueEntryHeader.nameByteLimit)
    logitsByteCount = logitCount * MemoryLayout<Float>.stride
    dataOffset = KeyValueEntryHeader.dataOffset(
      origin, pageGroupCount: pageGroupCapacity, logitsByteCount: logitsByteCount,
      statesCount: KeyValueEntryHeader.States.countLimit)
  }

  deinit {
    var status = stat()
    if SystemCalls.inspect(descriptor.rawValue, &status) == 0 {
      directory.noteWritten(Int(status.st_blocks) * 512)
    }
    if !isCommitted { SystemCalls.remove(path) }
  }

  /// What happened to an entry.
  public enum Outcome: Sendable, Equatable {
    case stored(id: String)
    /// There is nothing after the prefix, or another process stored the same.
    case nothingNew
    /// With what it continues, which has to stay, it is larger than the store may be.
    case tooLarge
  }

  /// A page group that is not complete.
  public struct PartialPageGroup {
    public var positionCount: Int
    /// Bytes of a page, without what it is padded with.
    var pageByteCount: Int
    /// A layer's page, padded; valid until the next call.
    package var page: (_ layer: Int) -> UnsafeRawBufferPointer

    package init(
      positionCount: Int, pageByteCount: Int,
      page: @escaping (_ layer: Int) -> UnsafeRawBufferPointer
    ) {
      self.positionCount = positionCount
      self.pageByteCount = pageByteCount
      self.page = page
    }
  }

  /// Keeps the logits after a prompt, in place of those that were kept before: they are what an identical prompt needs of a
  /// sweep.
  ///
  /// - Parameters:
  ///   - logits: as many as were planned.
  ///   - position: tokens of the sequence that they follow.
  /// - Throws: `BlockIOError` if the drive fails or is full.
  package func keep(
    logits: UnsafeBufferPointer<Float>, after position: Int
  ) throws(BlockIOError) {
    let bytes = UnsafeRawBufferPointer(logits)
    guard bytes.count == logitsByteCount, !bytes.isEmpty else { return }
    let offset = KeyValueEntryHeader.dataOffset(origin, pageGroupCount: pageGroupCapacity)
    self.logits = nil
    try write(bytes, at: offset)
    self.logits = KeyValueEntryHeader.Logits(
      position: position, offset: offset, count: logits.count,
      checksum: Checksum.of(bytes, seed: UInt64(position)))
  }

  /// Bytes of states that were kept.
  package var statesByteCount: Int { states.count * origin.stateByteCount }

  /// Keeps the states of all layers after a position, as long as there is room for so many.
  ///
  /// - Parameters:
  ///   - bytes: as many as the origin has.
  ///   - position: tokens of the sequence that they have taken in.
  /// - Throws: `BlockIOError` if the drive fails or is full.
  package func keep(
    states bytes: UnsafeRawBufferPointer, after position: Int
  ) throws(BlockIOError) {
    precondition(bytes.count == origin.stateByteCount, "states of another shape")
    states.removeAll { $0.position >= position }
    let first = KeyValueEntryHeader.dataOffset(
      origin, pageGroupCount: pageGroupCapacity, logitsByteCount: logitsByteCount)
    let offset = (0..<KeyValueEntryHeader.States.countLimit).lazy
      .map { [origin] in first + $0 * origin.stateByteCount }
      .first { [states] offset in !states.contains { $0.offset == offset } }
    guard let offset else { return }
    try write(bytes, at: offset)
    states.append(
      KeyValueEntryHeader.States(
        position: position, offset: offset,
        checksum: Checksum.of(bytes, seed: UInt64(position))))
  }

  /// Forgets states that are not the sequence's any more, by the positions that they have taken in.
  package func forgetStates(where isGone: (_ position: Int) -> Bool) {
    states.removeAll { isGone($0.position) }
  }

  /// Completes the entry and makes room for it.
  ///
  /// - Parameters:
  ///   - prefix: what the entry continues.
  ///   - tokens: of the sequence from its beginning; what exceeds the page groups is not kept.
  ///   - pageChecksums: XXH3-64 of the pages after the prefix's complete page groups: [pageGroups, layerCount]. Their
  ///     number tells how many page groups there are.
  ///   - partial: the page group after these, which is written here; nil if there is none.
  ///   - text: the beginning of the text, for people.
  /// - Throws: `BlockIOError` if the drive fails or is full; the store is as it was.
  public func commit(
    after prefix: KeyValuePrefix, tokens: [Int32], pageChecksums: [UInt64],
    partial: PartialPageGroup? = nil, text: [UInt8]
  ) throws(BlockIOError) -> Outcome {
    let first = prefix.pageGroupCount
    let wholePageGroupCount = pageChecksums.count / origin.layerCount
    guard wholePageGroupCount > 0 else { return .nothingNew }
    let tokenCount =
      (first + wholePageGroupCount) * KeyValueOrigin.pageGroupPositionCount
      + (partial?.positionCount ?? 0)
    let states = states.filter {
      (first * KeyValueOrigin.pageGroupPositionCount + 1...tokenCount).contains($0.position)
    }
    // Nothing goes on from keys and values alone.
    guard !origin.hasStates || !states.isEmpty else { return .nothingNew }
    let pageGroupCount = wholePageGroupCount + (partial == nil ? 0 : 1)
    let length = KeyValueOrigin.pageGroupPositionCount
    let end = (first + wholePageGroupCount) * length
    precondition(
      !isCommitted && first + pageGroupCount <= pageGroupCapacity,
      "\(pageGroupCount) page groups were not planned")
    precondition(
      tokens.count >= end + (partial?.positionCount ?? 0), "each position has its token")
    var own = Array(tokens[(first * length)..<end])
    var pageChecksums = pageChecksums
    if let partial {
      own += tokens[end..<(end + partial.positionCount)]
      own += [Int32](repeating: 0, count: length - partial.positionCount)
      pageChecksums += try write(
        partial, at: dataOffset + (first + wholePageGroupCount) * origin.pageGroupByteCount)
    }
    let tables = KeyValueEntry.tables(tokens: own[...], pageChecksums: pageChecksums[...])
    guard tables.count <= KeyValueEntryHeader.tablesByteLimit else { return .tooLarge }
    let header = KeyValueEntryHeader(
      origin: origin, dataOffset: dataOffset + first * origin.pageGroupByteCount,
      // States are those after some token, so what they follow is part of the name.
      id: origin.id(of: tokens[..<(origin.hasStates ? tokenCount : end)]),
      parent: prefix.sources.last?.entry.header.id ?? 0, firstPageGroup: first,
      pageGroupCount: pageGroupCount,
      lastPositionCount: partial?.positionCount ?? length,
      tailPageByteCount: partial?.pageByteCount ?? origin.pageByteCount,
      openingChecksum: KeyValueDirectory.checksum(own.prefix(length)),
      tablesChecksum: tables.withUnsafeBytes(Checksum.of),
      logits: logits.flatMap {
        // They are of use where all tokens before them are in the store.
        (first * length + 1...end + (partial?.positionCount ?? 0)).contains($0.position) ? $0 : nil
      },
      states: states, modelName: modelName,
      text: Self.shortened(text, KeyValueEntryHeader.textByteLimit))
    guard directory.hasRoom(for: header.ownByteCount, after: prefix) else { return .tooLarge }
    try check(SystemCalls.truncate(descriptor.rawValue, byteCount: header.fileByteCount))
    try write(tables, at: KeyValueEntryHeader.byteCount)
    try write(header.encoded(), at: 0)
    try check(SystemCalls.synchronise(descriptor.rawValue))
    return try publish(header, prefix)
  }

  /// Gives the complete file its name, unless there is one of that name.
  private func publish(
    _ header: KeyValueEntryHeader, _ prefix: KeyValuePrefix
  ) throws(BlockIOError) -> Outcome {
    try directory.locked { () throws(BlockIOError) -> Outcome in
      let name = directory.path(of: header.id)
      if (try? KeyValueEntry(path: name)) != nil { return .nothingNew }
      guard directory.evict(for: header.ownByteCount, keeping: Set(prefix.ids)) else {
        return .tooLarge
      }
      try check(SystemCalls.rename(path, to: name))
      isCommitted = true
      do throws(BlockIOError) { try PartName.syncFolder(directory.path) } catch {
        // An entry that a crash could lose does not count as stored.
        SystemCalls.remove(name)
        throw error
      }
      KeyValueDirectory.noteUse(of: [descriptor.rawValue])
      return .stored(id: KeyValueDirectory.text(of: header.id))
    }
  }

  /// Writes a page group that the tier does not write itself, and returns its pages' checksums.
  private func write(
    _ partial: PartialPageGroup, at offset: Int
  ) throws(BlockIOError) -> [UInt64] {
    var checksums: [UInt64] = []
    var offset = offset
    for layer in 0..<origin.layerCount {
      let page = partial.page(layer)
      precondition(page.count % KeyValueEntryHeader.byteCount == 0, "a page is padded")
      try write(page, at: offset)
      checksums.append(
        Checksum.of(UnsafeRawBufferPointer(rebasing: page[..<partial.pageByteCount])))
      offset += page.count
    }
    return checksums
  }

  private func write(_ bytes: [UInt8], at offset: Int) throws(BlockIOError) {
    var failure: BlockIOError?
    bytes.withUnsafeBytes { bytes in
      do throws(BlockIOError) { try write(bytes, at: offset) } catch { failure = error }
    }
    if let failure { throw failure }
  }

  private func write(_ bytes: UnsafeRawBufferPointer, at offset: Int) throws(BlockIOError) {
    guard let (errno, written) = descriptor.writeAll(bytes, at: offset) else { return }
    let failure = BlockIOError(
      .write, path: path, offset: offset + written, byteCount: bytes.count - written,
      reason: .system(errno: errno))
    directory.note(failure: failure)
    throw failure
  }

  /// - Parameter status: 0 or a negated error number.
  private func check(_ status: Int32) throws(BlockIOError) {
    guard status == 0 else {
      throw BlockIOError(.write, path: path, reason: .system(errno: -status))
    }
  }

  /// A new file of a name of its own, locked, so that others see that it is being written.
  private static func create(in folder: String) throws(BlockIOError) -> (String, Int32) {
    while true {
      let mark = UInt64.random(in: .min ... .max)
      let path = "\(folder)/\(KeyValueDirectory.text(of: mark))\(KeyValueDirectory.partEnding)"
      let raw = SystemCalls.open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, mode: 0o600)
      if raw == -EEXIST { continue }
      guard raw >= 0 else {
        throw BlockIOError(.create, path: path, reason: .system(errno: -raw))
      }
      // Another process may have taken it for abandoned before it was locked.
      var status = stat()
      let isLocked = SystemCalls.lock(raw, LOCK_EX | LOCK_NB) != -EWOULDBLOCK
      let outcome = SystemCalls.inspect(raw, &status)
      if isLocked, outcome == 0, status.st_nlink > 0 { return (path, raw) }
      close(raw)
      guard outcome == 0 else {
        SystemCalls.remove(path)
        throw BlockIOError(.create, path: path, reason: .system(errno: -outcome))
      }
    }
  }

  /// At most `limit` bytes, cut between characters.
  private static func shortened(_ text: [UInt8], _ limit: Int) -> [UInt8] {
    guard text.count > limit else { return text }
    var end = limit
    while end > 0, text[end] & 0xC0 == 0x80 { end -= 1 }
    return Array(text[..<end])
  }
}
