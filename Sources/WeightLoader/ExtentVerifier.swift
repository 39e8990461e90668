import BlockIO
import Kernels
import ModelFormat
import Synchronization
import TensorBasics

/// Compares an image's extents with their checksums as their bytes are first seen.
///
/// Bytes come in ascending order from a sweep, in runs that need not be whole extents, or as whole
/// extents from single reads. Each extent is checked once; later reads of it only on demand.
final class ExtentVerifier: ParallelRegion {
  private let model: ModelDescription
  private let path: String
  /// Whether whole extents are checked at every read.
  let checksAlways: Bool
  private let pool: ThreadPool?
  /// The whole extents being checked, where they lie, and the lowest of them that differs.
  private var region = 0..<0
  private var address = UnsafeRawPointer(bitPattern: 1)!
  private let firstMismatch = Atomic(Int.max)
  private var isVerified: [Bool]
  /// The extent under way in a sweep, and how far its bytes have been seen.
  private var current = -1
  private var seenEnd = 0
  private var checksum: RunningChecksum

  /// Nil for files without checksums.
  ///
  /// - Parameter pool: shares the work on whole extents; nil = the caller alone does it.
  /// - Throws: ``LoaderError/allocation(_:)``.
  init?(
    _ description: ModelDescription, _ verification: Verification = .first, pool: ThreadPool? = nil
  ) throws(LoaderError) {
    guard let path = description.files.first, !description.extents.isEmpty else { return nil }
    do { checksum = try RunningChecksum() } catch { throw .allocation(error) }
    model = description
    self.path = path
    self.pool = pool
    checksAlways = verification == .always
    isVerified = [Bool](repeating: false, count: description.extents.count)
  }

  private var extents: [ExtentRecord] { model.extents }

  /// Longer extents are not read just to check a few of their bytes; a sweep checks them.
  private static let longestWholeExtent = 2 << 20

  /// Most bytes that whole extents reach beyond what they are read for, on both sides together.
  static func slackByteCount(_ model: ModelDescription) -> Int {
    let longest = model.extents.lazy.map(\.byteCount).max() ?? 0
    return 2 * max(AlignedBuffer.pageByteCount, min(longest, longestWholeExtent))
  }

  /// The extents of an image that hold `extent`, and their range; nil if the file has none or they
  /// are too long to be read for it.
  static func wholeExtents(
    around extent: Extent, in model: ModelDescription
  ) -> (indexes: Range<Int>, range: Extent)? {
    let extents = model.extents
    guard let first = extents.first, extent.offset >= first.offset else { return nil }
    let start = index(of: extent.offset, in: extents)
    var end = start
    while end < extents.count, extents[end].offset < extent.endOffset { end += 1 }
    guard extents[start..<end].allSatisfy({ $0.byteCount <= longestWholeExtent }) else {
      return nil
    }
    let offset = extents[start].offset
    let endOffset = extents[end - 1].offset + extents[end - 1].byteCount
    return (
      start..<end,
      Extent(fileIndex: extent.fileIndex, offset: offset, byteCount: endOffset - offset)
    )
  }

  /// The last extent that begins at or before `offset`.
  private static func index(of offset: Int, in extents: [ExtentRecord]) -> Int {
    var (low, high) = (0, extents.count)
    while high - low > 1 {
      let middle = (low + high) / 2
      if extents[middle].offset <= offset { low = middle } else { high = middle }
    }
    return low
  }

  /// Takes the next bytes of a sweep, which lie at `offset` of the file, and checks the extents that
  /// end among them. Bytes seen before, at the start, are skipped.
  ///
  /// - Throws: ``LoaderError/format(_:)`` with the extent's offset.
  func take(_ bytes: UnsafeRawBufferPointer, at offset: Int) throws(LoaderError) {
    let end = offset + bytes.count
    var position = offset
    var index = Self.index(of: offset, in: extents)
    while position < end, index < extents.count {
      let extent = extents[index]
      let extentEnd = extent.offset + extent.byteCount
      if position == extent.offset, !isVerified[index], current != index {
        checksum.reset()
        (current, seenEnd) = (index, position)
      }
      if current == index, seenEnd >= position, seenEnd < end {
        let part = seenEnd - offset..<min(end, extentEnd) - offset
        checksum.update(UnsafeRawBufferPointer(rebasing: bytes[part]))
        seenEnd = offset + part.upperBound
        if seenEnd == extentEnd {
          current = -1
          try compare(index, checksum.finish())
        }
      }
      position = extentEnd
      index += 1
    }
  }

  /// Checks whole extents, which lie one after the other at `address`.
  ///
  /// - Throws: ``LoaderError/format(_:)`` with the extent's offset.
  func check(_ range: Range<Int>, at address: UnsafeRawPointer) throws(LoaderError) {
    guard checksAlways || range.contains(where: { !isVerified[$0] }) else { return }
    (region, self.address) = (range, address)
    firstMismatch.store(.max, ordering: .relaxed)
    if let pool {
      pool.run(count: range.count, self)
    } else {
      for index in 0..<range.count { perform(index: index, worker: 0) }
    }
    let mismatch = firstMismatch.load(ordering: .relaxed)
    guard mismatch == .max else {
      throw .format(Self.mismatch(extents[mismatch], of: model, path: path))
    }
    for index in range { isVerified[index] = true }
  }

  /// Checks one of the whole extents.
  func perform(index: Int, worker: Int) {
    let number = region.lowerBound + index
    guard checksAlways || !isVerified[number] else { return }
    let extent = extents[number]
    let bytes = UnsafeRawBufferPointer(
      start: address + (extent.offset - extents[region.lowerBound].offset),
      count: extent.byteCount)
    guard Checksum.of(bytes) != extent.checksum else { return }
    firstMismatch.min(number, ordering: .relaxed)
  }

  /// The error for bytes, read at `offset`, that are not what their first reading brought.
  func mismatch(in bytes: UnsafeRawBufferPointer, at offset: Int) -> FormatError {
    var index = Self.index(of: offset, in: extents)
    while index < extents.count, extents[index].offset < offset + bytes.count {
      let extent = extents[index]
      let range = extent.offset - offset..<extent.offset + extent.byteCount - offset
      index += 1
      guard range.lowerBound >= 0, range.upperBound <= bytes.count else { continue }
      if Checksum.of(UnsafeRawBufferPointer(rebasing: bytes[range])) != extent.checksum {
        return Self.mismatch(extent, of: model, path: path)
      }
    }
    return Self.mismatch(
      ExtentRecord(offset: offset, byteCount: bytes.count, checksum: 0), of: model, path: path)
  }

  private func compare(_ index: Int, _ found: UInt64) throws(LoaderError) {
    let extent = extents[index]
    guard found == extent.checksum else {
      throw .format(Self.mismatch(extent, of: model, path: path))
    }
    isVerified[index] = true
  }

  /// The error for an extent that is not what was written.
  static func mismatch(
    _ extent: ExtentRecord, of model: ModelDescription, path: String
  ) -> FormatError {
    FormatError(
      .checksumMismatch, at: extent.offset, path: path,
      "the \(ByteCount(extent.byteCount)) here\(contents(of: extent, in: model)) are not what was "
        + "written: the file or what the drive returned is damaged")
  }

  /// Which tensors' bytes an extent holds, for messages.
  private static func contents(of extent: ExtentRecord, in model: ModelDescription) -> String {
    let range = extent.offset..<extent.offset + extent.byteCount
    let names = model.tensors.lazy.filter { $0.byteSpan.overlaps(range) }.map(\.name)
    if let first = names.first {
      let others = names.count - 1
      return ", of tensor '\(first)'\(others > 0 ? " and \(others) more" : ""),"
    }
    let layer = model.neurons?.layers.firstIndex { $0.byteSpan.overlaps(range) }
    return layer.map { ", of the neurons of layer \($0)," } ?? ""
  }
}
