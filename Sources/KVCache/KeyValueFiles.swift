import BlockIO
import Kernels

/// The files of a pool: those of the prefix, read only, and its own.
final class KeyValueFiles {
  let device: any BlockDevice
  /// Whether there is a file of its own.
  var writes: Bool { writer != nil }

  private let shape: KeyValueShape
  private let parts: [KeyValueStore.Prefix.Part]
  private let paths: [String]
  private let writer: FileWriter?
  private let folderNote: String?
  /// Where page group 0 of a file for others begins; nil if it is temporary.
  private let ownDataOffset: Int?

  /// Pages that may wait to be written; memory bounds them before.
  private static let writeCapacity = 64

  init(_ plan: KeyValuePlan, _ options: KeyValueOptions) throws(KeyValueError) {
    let (shape, parts) = (plan.shape, options.prefix.parts)
    do throws(BlockIOError) {
      var writer: FileWriter?
      if plan.hasTier || options.ownFile != nil {
        writer = try FileWriter(
          options.ownFile.map { .named($0.path) }
            ?? .temporary(folder: options.folder ?? KeyValueOptions.defaultFolder),
          byteCount: (options.ownFile?.dataOffset ?? 0)
            + plan.sequenceCount * shape.pageCount * shape.pageStride,
          capacity: Self.writeCapacity, hooks: options.hooks)
      }
      device = try openDevice(
        paths: parts.map(\.path) + (writer.map { [$0.readingPath] } ?? []),
        backend: options.backend, queueDepth: max(16, min(64, plan.stagingCount)),
        hooks: options.hooks)
      self.writer = writer
      paths = parts.map(\.path) + (writer.map { [$0.path] } ?? [])
    } catch { throw .io(error, layer: nil) }
    let isTemporary = writer != nil && options.ownFile == nil
    folderNote =
      isTemporary && options.folder == nil ? KeyValueOptions.defaultFolderNote : nil
    self.shape = shape
    self.parts = parts
    ownDataOffset = options.ownFile?.dataOffset
  }

  /// One-line warnings for people.
  var notes: [String] { (folderNote.map { [$0] } ?? []) + device.notes }

  // MARK: Writing

  var pendingWriteCount: Int { writer?.pendingCount ?? 0 }

  var hasRoomForWrite: Bool { writer.map { $0.pendingCount < $0.capacity } ?? false }

  /// Where a page goes: in a file for others by its page group and layer, elsewhere by its number.
  func ownPlace(page: Int, layer: Int, pageGroup: Int) -> (file: Int, offset: Int) {
    (
      parts.count,
      ownDataOffset.map {
        shape.fileOffset(layer: layer, pageGroup: pageGroup, dataOffset: $0)
      } ?? page * shape.pageStride
    )
  }

  func write(page: Int, offset: Int, _ bytes: UnsafeRawBufferPointer) {
    writer?.enqueue(WriteRequest(offset: offset, bytes: bytes, tag: page))
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

  func path(ofFile index: Int) -> String { paths[index] }

  /// An error of the device, which knows the store's own file by another path.
  func named(_ error: BlockIOError) -> BlockIOError {
    guard let writer, error.path == writer.readingPath else { return error }
    return error.named(writer.path)
  }

  /// The pages of the prefix, page group by page group and in each by layers: the file that holds one, and where.
  func forEachPrefixPage(
    _ body: (_ index: Int, _ file: Int, _ offset: Int, _ checksum: UInt64) -> Void
  ) {
    var index = 0
    for (file, part) in parts.enumerated() {
      for (page, checksum) in part.checksums.enumerated() {
        body(
          index, file,
          shape.fileOffset(
            layer: page % shape.layerCount,
            pageGroup: part.firstPageGroup + page / shape.layerCount, dataOffset: part.dataOffset),
          checksum)
        index += 1
      }
    }
  }
}

extension KeyValueStore.Prefix {
  /// Checks what a file states about itself.
  func check(_ shape: KeyValueShape) throws(KeyValueError) {
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
    guard parts.isEmpty || pageGroupCount * KeyValueBlock.positionCount < shape.contextLength else {
      throw .badPrefix(
        "a prefix of \(pageGroupCount * KeyValueBlock.positionCount) positions leaves no room in a "
          + "context of \(shape.contextLength)")
    }
  }

  private static let mostPageGroups = 1 << 24
  private static let mostBytes = 1 << 50
}
