import BlockIO
import Kernels

/// The files of a store: those of the prefix, read only, and its own.
final class KeyValueFiles {
  let device: any BlockDevice
  /// Whether there is a file of its own.
  var writes: Bool { writer != nil }

  private let shape: KeyValueShape
  private let parts: [KeyValueStore.Prefix.Part]
  private let paths: [String]
  private let writer: FileWriter?
  private let folderNote: String?
  private let ownDataOffset: Int
  /// Parts of the prefix in use.
  private var partCount: Int

  /// Pages that may wait to be written; memory bounds them before.
  private static let writeCapacity = 64
  /// A temporary file has no header.
  private static let temporaryDataOffset = 0

  init(_ plan: KeyValuePlan, _ options: KeyValueOptions) throws(KeyValueError) {
    let (shape, parts) = (plan.shape, options.prefix.parts)
    let dataOffset = options.ownFile?.dataOffset ?? Self.temporaryDataOffset
    do throws(BlockIOError) {
      var writer: FileWriter?
      if plan.hasTier || options.ownFile != nil {
        writer = try FileWriter(
          options.ownFile.map { .named($0.path) }
            ?? .temporary(folder: options.folder ?? KeyValueOptions.defaultFolder),
          byteCount: dataOffset + shape.pageCount * shape.pageStride,
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
    partCount = parts.count
    ownDataOffset = dataOffset
  }

  /// One-line warnings for people.
  var notes: [String] { (folderNote.map { [$0] } ?? []) + device.notes }

  // MARK: Writing

  var pendingWriteCount: Int { writer?.pendingCount ?? 0 }

  var hasRoomForWrite: Bool { writer.map { $0.pendingCount < $0.capacity } ?? false }

  func write(page: Int, _ bytes: UnsafeRawBufferPointer) {
    writer?.enqueue(
      WriteRequest(offset: ownDataOffset + page * shape.pageStride, bytes: bytes, tag: page))
  }

  /// Takes a write that is done, sleeping for one step of a ``StallWatch`` at most where it is waited for.
  func takeWrite(waiting: Bool) -> WriteCompletion? {
    writer?.takeCompletion(
      waiting: waiting, timeoutMilliseconds: StallWatch.stepMilliseconds)
  }

  func abandonWrites() { writer?.abandonWrites() }

  // MARK: Reading

  /// Queues the read of a page's bytes `part` into their place in the slot at `address`.
  func submitRead(
    page: Int, part: Range<Int>, slot: Int, _ address: UnsafeMutableRawPointer
  ) throws(BlockIOError) {
    let place = place(ofPage: page)
    try device.submit(
      ReadRequest(
        fileIndex: place.file, offset: place.offset + part.lowerBound,
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

  /// The file that holds a page, and where.
  func place(ofPage page: Int) -> (file: Int, offset: Int) {
    let (pageGroup, layer) = page.quotientAndRemainder(dividingBy: shape.layerCount)
    var first = 0
    for index in 0..<partCount {
      let part = parts[index]
      if pageGroup < first + part.pageGroupCount {
        return (
          index,
          shape.fileOffset(
            layer: layer, pageGroup: part.firstPageGroup + pageGroup - first,
            dataOffset: part.dataOffset)
        )
      }
      first += part.pageGroupCount
    }
    return (paths.count - 1, ownDataOffset + page * shape.pageStride)
  }

  /// Called when every page is in the store's own file from here on.
  func removePrefix() { partCount = 0 }
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
