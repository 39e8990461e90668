import BlockIO
import Kernels

/// The files of a pool: one for what memory does not hold, and those of single sequences, which come and go.
final class KeyValueFiles {
  let device: any FileDevice

  private let shape: KeyValueShape
  private let hooks: DeviceHooks
  /// What memory does not hold, the device's first file; nil if memory holds everything.
  private let spill: WritableFile?
  private let folderNote: String?
  /// What is known of the device's files, by their index; nil = closed.
  private var known: [Known?] = []
  /// Started with the first file that is written.
  private var writer: FileWriter?

  private struct Known {
    /// What it is called in messages.
    var path: String
    /// Sequences and pages that it is open for.
    var holderCount: Int
    /// Why it is no longer written.
    var failure: BlockIOError?
  }

  /// A file that a sequence writes.
  struct Own {
    /// Its index in the device.
    let index: Int
    let file: WritableFile
    /// Where page group 0 begins.
    let dataOffset: Int
  }

  /// Pages that may wait to be written; memory bounds them before.
  private static let writeCapacity = 64

  init(_ plan: KeyValuePlan, _ options: KeyValueOptions) throws(KeyValueError) {
    shape = plan.shape
    hooks = options.hooks
    do throws(BlockIOError) {
      spill =
        plan.hasTier
        ? try WritableFile(
          .temporary(folder: options.folder ?? KeyValueOptions.defaultFolder),
          byteCount: plan.sequenceCount * plan.shape.pageCount * plan.shape.pageStride,
          hooks: options.hooks) : nil
      device = try openDevice(
        paths: spill.map { [$0.readingPath] } ?? [], backend: options.backend,
        queueDepth: max(16, min(64, plan.stagingCount)), hooks: options.hooks)
      if spill != nil { writer = try FileWriter(capacity: Self.writeCapacity) }
    } catch { throw .io(error, layer: nil) }
    folderNote =
      spill != nil && options.folder == nil ? KeyValueOptions.defaultFolderNote : nil
    if let spill {
      known.append(Known(path: spill.path, holderCount: 1))
    }
  }

  /// One-line warnings for people.
  var notes: [String] { (folderNote.map { [$0] } ?? []) + device.notes }

  /// Whether there is a file for what memory does not hold.
  var canSpill: Bool { spill != nil }

  /// Whether a file is the one for what memory does not hold.
  func isSpill(_ file: Int) -> Bool { canSpill && file == 0 }

  // MARK: Files of sequences

  /// Opens a file for reading; ``release(_:)`` lets go of it.
  ///
  /// - Returns: its index.
  func open(path: String) throws(BlockIOError) -> Int {
    note(path: path, at: try device.open(path: path))
  }

  /// Makes a file that a sequence writes; ``release(_:)`` lets go of it.
  func makeOwn(_ own: KeyValueStore.OwnFile) throws(BlockIOError) -> Own {
    let file = try WritableFile(
      .named(own.path), byteCount: own.dataOffset + shape.pageCount * shape.pageStride,
      hooks: hooks)
    if writer == nil { writer = try FileWriter(capacity: Self.writeCapacity) }
    let index = note(path: own.path, at: try device.open(path: file.readingPath))
    return Own(index: index, file: file, dataOffset: own.dataOffset)
  }

  private func note(path: String, at index: Int) -> Int {
    while known.count <= index { known.append(nil) }
    known[index] = Known(path: path, holderCount: 1)
    return index
  }

  func retain(_ index: Int) { known[index]?.holderCount += 1 }

  /// Closes a file when the last that it was open for lets go of it.
  func release(_ index: Int) {
    known[index]?.holderCount -= 1
    guard known[index]?.holderCount == 0 else { return }
    known[index] = nil
    device.close(fileIndex: index)
  }

  func path(ofFile index: Int) -> String { known[index]?.path ?? "" }

  /// Why a file is no longer written.
  func failure(ofFile index: Int) -> BlockIOError? { known[index]?.failure }

  func note(_ failure: BlockIOError, ofFile index: Int) { known[index]?.failure = failure }

  // MARK: Writing

  var pendingWriteCount: Int { writer?.pendingCount ?? 0 }

  var hasRoomForWrite: Bool { writer.map { $0.pendingCount < $0.capacity } ?? false }

  /// Where a page goes that memory has no room for.
  func spillOffset(page: Int) -> Int { page * shape.pageStride }

  /// Queues the write of a page into the file of its sequence, or into that for what memory does not hold.
  func write(page: Int, own: Own?, offset: Int, _ bytes: UnsafeRawBufferPointer) {
    guard let file = own?.file ?? spill else { preconditionFailure("there is no file to write") }
    writer?.enqueue(WriteRequest(file: file, offset: offset, bytes: bytes, tag: page))
  }

  /// Takes a write that is done, sleeping for one step of a ``StallWatch`` at most where it is waited for.
  func takeWrite(waiting: Bool) -> WriteCompletion? {
    writer?.takeCompletion(
      waiting: waiting, timeoutMilliseconds: StallWatch.stepMilliseconds)
  }

  func abandonWrites() { writer?.abandonWrites() }

  // MARK: Reading

  /// Queues the read of the bytes `part` of the page at `offset` of a file into their place in the slot at `address`.
  func submitRead(
    page: Int, file: Int, offset: Int, part: Range<Int>, slot: Int,
    _ address: UnsafeMutableRawPointer
  ) throws(BlockIOError) {
    try device.submit(
      ReadRequest(
        fileIndex: file, offset: offset + part.lowerBound,
        destination: UnsafeMutableRawBufferPointer(
          start: address + part.lowerBound, count: part.count),
        tag: UInt64(page) << 32 | UInt64(slot)))
  }

  func page(ofTag tag: UInt64) -> Int { Int(tag >> 32) }
  func slot(ofTag tag: UInt64) -> Int { Int(tag & 0xFFFF_FFFF) }

  /// An error of the device, which knows a file without a name by another path.
  func named(_ error: BlockIOError) -> BlockIOError {
    guard let spill, error.path == spill.readingPath else { return error }
    return error.named(spill.path)
  }
}

extension KeyValueStore.Prefix {
  /// Checks what a file states about itself.
  func check(_ shape: KeyValueShape, limit: Int) throws(KeyValueError) {
    for part in parts {
      let pageCount = part.pageGroupCount.multipliedReportingOverflow(by: shape.layerCount)
      let end = part.firstPageGroup.addingReportingOverflow(part.pageGroupCount)
      guard part.pageGroupCount > 0, part.firstPageGroup >= 0, !pageCount.overflow, !end.overflow,
        part.checksums.count == pageCount.partialValue
      else {
        throw .badPrefix("'\(part.path)' has no such pages of keys and values")
      }
      let isFar = end.partialValue > Self.mostPageGroups || part.dataOffset > Self.mostBytes
      guard part.dataOffset >= 0, part.dataOffset % 4096 == 0, !isFar else {
        throw .badPrefix("keys and values of '\(part.path)' begin at an impossible offset")
      }
    }
    let pageGroupCount = pageGroupCount
    guard parts.isEmpty || pageGroupCount * KeyValueBlock.positionCount < limit else {
      throw .badPrefix(
        "a prefix of \(pageGroupCount * KeyValueBlock.positionCount) positions leaves no room in a "
          + "context of \(limit)")
    }
  }

  /// The pages, page group by page group and in each by layers.
  ///
  /// - Parameter body: given the page's index, the number of the part that it is of, and where it lies in its file.
  func forEachPage(
    _ shape: KeyValueShape,
    _ body: (_ index: Int, _ part: Int, _ offset: Int, _ checksum: UInt64) -> Void
  ) {
    var index = 0
    for (number, part) in parts.enumerated() {
      for (page, checksum) in part.checksums.enumerated() {
        body(
          index, number,
          shape.fileOffset(
            layer: page % shape.layerCount,
            pageGroup: part.firstPageGroup + page / shape.layerCount, dataOffset: part.dataOffset),
          checksum)
        index += 1
      }
    }
  }

  private static let mostPageGroups = 1 << 24
  private static let mostBytes = 1 << 50
}
