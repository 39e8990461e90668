import BlockIO
import ModelFormat
import TensorBasics

/// Writes a planned image from its data's first byte to its last, taking checksums on the way.
struct ImageWriter: ~Copyable {
  private let layout: FlashImage.Layout
  private let file: StripedOutput
  private let striping: Striping?
  private var checksum: RunningChecksum
  private var checksums: [UInt64] = []
  private var settledOffset: Int
  /// Where the next byte goes.
  private(set) var offset: Int

  /// Dirty pages that may wait for the drive.
  private static let settleByteCount = 32 << 20
  private static let zeros = [UInt8](repeating: 0, count: FlashImage.alignment)

  /// - Parameters:
  ///   - striping: how to cut the image; `path` is then its first member. nil = one file.
  ///   - inputs: files or folders that are being read.
  ///   - checksum: takes the data's checksums.
  init(
    path: String, striping: Striping?, layout: FlashImage.Layout, inputs: [String],
    checksum: consuming RunningChecksum
  ) throws(ConversionError) {
    let paths = [path] + (striping?.otherPaths ?? [])
    do {
      file = try StripedOutput(
        paths: paths,
        layout: striping?.layout(imageByteCount: layout.fileByteCount)
          ?? .plain(byteCount: layout.fileByteCount), inputs: inputs)
    } catch { throw .io(error) }
    self.striping = striping
    self.layout = layout
    offset = layout.dataOffset
    settledOffset = offset
    self.checksum = checksum
  }

  /// Appends to the data.
  mutating func append(_ bytes: UnsafeRawBufferPointer) throws(BlockIOError) {
    try file.write(bytes, at: offset)
    var rest = bytes
    while !rest.isEmpty {
      let extent = layout.description.extents[checksums.count]
      let count = min(rest.count, extent.offset + extent.byteCount - offset)
      checksum.update(UnsafeRawBufferPointer(rebasing: rest[..<count]))
      offset += count
      if offset == extent.offset + extent.byteCount { checksums.append(checksum.finish()) }
      rest = UnsafeRawBufferPointer(rebasing: rest[count...])
    }
    if offset - settledOffset >= Self.settleByteCount {
      try file.flushAndDropCache(settledOffset..<offset)
      settledOffset = offset
    }
  }

  /// Appends zeros up to `end`, less than a block away.
  mutating func pad(to end: Int) throws(BlockIOError) {
    precondition(end >= offset && end - offset < FlashImage.alignment, "not padding")
    let count = end - offset
    var failure: BlockIOError?
    Self.zeros.withUnsafeBytes { zeros in
      do throws(BlockIOError) {
        try append(UnsafeRawBufferPointer(rebasing: zeros[..<count]))
      } catch { failure = error }
    }
    if let failure { throw failure }
  }

  /// Leaves out whole extents up to `end`; ``fill(_:at:)`` brings them later.
  mutating func skip(to end: Int) {
    while offset < end {
      offset += layout.description.extents[checksums.count].byteCount
      checksums.append(0)
    }
    precondition(offset == end, "not whole extents")
  }

  /// Brings whole extents that were left out, from `start` on.
  mutating func fill(_ bytes: [UInt8], at start: Int) throws(BlockIOError) {
    let extents = layout.description.extents
    var failure: BlockIOError?
    bytes.withUnsafeBytes { bytes in
      do throws(BlockIOError) { try file.write(bytes, at: start) } catch { failure = error }
      var index = extents.firstIndex { $0.offset == start } ?? extents.count
      while index < extents.count, extents[index].offset < start + bytes.count {
        let first = extents[index].offset - start
        checksums[index] = Checksum.of(
          UnsafeRawBufferPointer(rebasing: bytes[first..<first + extents[index].byteCount]))
        index += 1
      }
    }
    if let failure { throw failure }
  }

  /// Writes what lies before the data and gives the image its name.
  consuming func finish() throws(ConversionError) {
    precondition(offset == layout.fileByteCount, "the data is not complete")
    let preamble: [UInt8]
    do { preamble = try layout.preamble(checksums: checksums) } catch { throw .format(error) }
    var failure: BlockIOError?
    preamble.withUnsafeBytes { bytes in
      do throws(BlockIOError) { try file.write(bytes, at: 0) } catch { failure = error }
    }
    if let failure { throw .io(failure) }
    if let striping {
      let identifier = preamble.withUnsafeBytes { StripeMember.setIdentifier(image: $0) }
      try writeMemberHeaders(striping, setIdentifier: identifier)
    }
    do { try file.commit() } catch { throw .io(error) }
  }

  private mutating func writeMemberHeaders(
    _ striping: Striping, setIdentifier: UInt64
  ) throws(ConversionError) {
    for index in 0..<file.layout.memberCount {
      let header = StripeMember(
        setIdentifier: setIdentifier, index: index, unitByteCount: striping.unitByteCount,
        imageByteCount: layout.fileByteCount, paths: striping.recordedPaths)
      var failure: BlockIOError?
      header.encoded().withUnsafeBytes { bytes in
        do throws(BlockIOError) { try file.writeHeader(bytes, member: index) } catch {
          failure = error
        }
      }
      if let failure { throw .io(failure) }
    }
  }
}
