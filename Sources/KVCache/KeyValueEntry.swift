import BlockIO
import Glibc
import TensorBasics

/// An entry that is open for reading: it stays readable although others delete or replace its file.
final class KeyValueEntry: Sendable {
  let header: KeyValueEntryHeader
  /// Tokens of the entry's page groups.
  let tokens: [Int32]
  /// XXH3-64 of each page: [pageGroupCount, layerCount].
  let pageChecksums: [UInt64]
  let descriptor: UnixDescriptor

  /// Why an entry could not be opened.
  enum Failure: Error {
    /// The system would not open or read it; that says nothing of the entry.
    case unreadable
    case unusable(KeyValueEntryHeader.Problem)
  }

  /// Where the open file can be opened once more, whatever its name refers to by now.
  var path: String { descriptor.path }

  /// Opens the entry at `path` and checks its header and tables, not its data.
  init(path: String) throws(Failure) {
    let file = try EntryFile(path: path)
    let header = try file.header()
    let tables = try file.read(
      header.tablesByteCount, at: KeyValueEntryHeader.byteCount)
    guard tables.count == header.tablesByteCount,
      tables.withUnsafeBytes(Checksum.of) == header.tablesChecksum
    else { throw .unusable(.damaged) }
    let tokenCount = header.pageGroupCount * KeyValueOrigin.pageGroupPositionCount
    let checksumCount = header.pageGroupCount * header.origin.layerCount
    (tokens, pageChecksums) = tables.withUnsafeBytes { bytes in
      (
        (0..<tokenCount).map {
          Int32(littleEndian: bytes.loadUnaligned(fromByteOffset: 4 * $0, as: Int32.self))
        },
        (0..<checksumCount).map {
          UInt64(
            littleEndian: bytes.loadUnaligned(
              fromByteOffset: 4 * tokenCount + 8 * $0, as: UInt64.self))
        }
      )
    }
    self.header = header
    descriptor = file.takeDescriptor()
  }

  /// How many of the entry's complete page groups hold the tokens that `prompt` has there.
  func matchingPageGroupCount(_ prompt: ArraySlice<Int32>) -> Int {
    let length = KeyValueOrigin.pageGroupPositionCount
    let first = header.firstPageGroup * length
    var count = 0
    while count < header.wholePageGroupCount, first + (count + 1) * length <= prompt.count,
      prompt[(first + count * length)..<(first + (count + 1) * length)]
        == tokens[(count * length)..<((count + 1) * length)]
    { count += 1 }
    return count
  }

  /// How many tokens of a page group are those that `prompt` has there.
  func matchingTokenCount(_ prompt: ArraySlice<Int32>, pageGroup: Int) -> Int {
    let length = KeyValueOrigin.pageGroupPositionCount
    let own = tokens[..<header.tokenCount].dropFirst(pageGroup * length).prefix(length)
    let theirs = prompt.dropFirst((header.firstPageGroup + pageGroup) * length)
    return zip(own, theirs).prefix { $0 == $1 }.count
  }

  /// Reads and checks the entry's logits into `values`; false if there are none, or others than were written.
  func readLogits(into values: UnsafeMutableBufferPointer<Float>) -> Bool {
    guard let logits = header.logits, logits.count == values.count else { return false }
    let bytes = UnsafeMutableRawBufferPointer(values)
    return read(into: bytes, at: logits.offset)
      && Checksum.of(UnsafeRawBufferPointer(bytes), seed: UInt64(logits.position))
        == logits.checksum
  }

  /// Reads and checks the states of all layers after a position into `bytes`, as many as there are of them.
  func read(_ states: KeyValueEntryHeader.States, into bytes: UnsafeMutableRawBufferPointer) -> Bool
  {
    bytes.count == header.origin.stateByteCount && read(into: bytes, at: states.offset)
      && Checksum.of(UnsafeRawBufferPointer(bytes), seed: UInt64(states.position))
        == states.checksum
  }

  /// Reads and checks a page of one of the entry's page groups.
  func readPage(pageGroup: Int, layer: Int, into bytes: UnsafeMutableRawBufferPointer) -> Bool {
    let page = header.page(pageGroup: pageGroup, layer: layer)
    guard page.byteCount <= bytes.count, read(into: bytes, at: page.offset) else { return false }
    return Checksum.of(UnsafeRawBufferPointer(rebasing: bytes[..<page.byteCount]))
      == pageChecksums[pageGroup * header.origin.layerCount + layer]
  }

  private func read(into bytes: UnsafeMutableRawBufferPointer, at offset: Int) -> Bool {
    var filled = 0
    while filled < bytes.count {
      let got = SystemCalls.read(
        descriptor.rawValue, into: UnsafeMutableRawBufferPointer(rebasing: bytes[filled...]),
        at: offset + filled)
      if got == -Int(EINTR) { continue }
      guard got > 0 else { return false }
      filled += got
    }
    return true
  }

  /// The tables' bytes: tokens, then page checksums.
  static func tables(tokens: ArraySlice<Int32>, pageChecksums: ArraySlice<UInt64>) -> [UInt8] {
    var bytes: [UInt8] = []
    bytes.reserveCapacity(4 * tokens.count + 8 * pageChecksums.count)
    for token in tokens { bytes.appendLittleEndian(token) }
    for checksum in pageChecksums { bytes.appendLittleEndian(checksum) }
    return bytes
  }
}

/// A file of the store as it is found: open, and of any content.
struct EntryFile: ~Copyable {
  let byteCount: Int
  private let descriptor: UnixDescriptor

  /// Opens a regular file; never follows a link and never waits.
  init(path: String) throws(KeyValueEntry.Failure) {
    let raw = SystemCalls.open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY)
    guard raw >= 0 else { throw .unreadable }
    var status = stat()
    guard SystemCalls.inspect(raw, &status) == 0, status.st_mode & S_IFMT == S_IFREG else {
      close(raw)
      throw .unreadable
    }
    byteCount = Int(status.st_size)
    descriptor = UnixDescriptor(owning: raw)
  }

  /// The checked header.
  borrowing func header() throws(KeyValueEntry.Failure) -> KeyValueEntryHeader {
    let start = try read(KeyValueEntryHeader.byteCount, at: 0)
    var problem: KeyValueEntryHeader.Problem?
    let header = start.withUnsafeBytes { bytes -> KeyValueEntryHeader? in
      do throws(KeyValueEntryHeader.Problem) {
        return try KeyValueEntryHeader(parsing: bytes, fileByteCount: byteCount)
      } catch {
        problem = error
        return nil
      }
    }
    guard let header else { throw .unusable(problem ?? .damaged) }
    return header
  }

  /// Up to `count` bytes at `offset`; fewer where the file ends.
  borrowing func read(_ count: Int, at offset: Int) throws(KeyValueEntry.Failure) -> [UInt8] {
    var failed = false
    let bytes = [UInt8](unsafeUninitializedCapacity: count) { buffer, filled in
      while filled < count {
        let got = SystemCalls.read(
          descriptor.rawValue,
          into: UnsafeMutableRawBufferPointer(
            start: buffer.baseAddress.map { $0 + filled }, count: count - filled),
          at: offset + filled)
        if got == -Int(EINTR) { continue }
        failed = got < 0
        guard got > 0 else { return }
        filled += got
      }
    }
    guard !failed else { throw .unreadable }
    return bytes
  }

  /// Hands the open file on.
  consuming func takeDescriptor() -> UnixDescriptor { descriptor }
}
