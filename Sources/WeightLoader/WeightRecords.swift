import BlockIO
import Glibc
import ModelFormat
import TensorBasics

/// Remembers the checksums of weights, so that a file is read for them once.
///
/// A record holds for the very files that were read: device, inode, size, modification and change time. It is
/// a file in the user's cache folder; one that is damaged, of another version or of other files is treated as if it
/// were not there. All numbers are little-endian:
///
/// | offset | bytes | content |
/// |---|---|---|
/// | 0 | 8 | `FLASHSUM` in ASCII |
/// | 8 | 4 | version: 1 |
/// | 12 | 4 | files |
/// | 16 | 8 | checksum of where each part lies |
/// | 24 | 8 | the model's identity; 0 while not all parts are known |
/// | 32 | 8 | parts that are known |
/// | 40 | 56 × files | `FileIdentity.encoded` of each |
/// | | 8 × parts | XXH3-64 of each MiB |
/// | | 8 | XXH3-64 over everything before |
public struct WeightRecords: Sendable {
  /// Where records lie; nil if nothing is remembered.
  public let folder: String?

  public init(folder: String?) { self.folder = folder }

  /// The user's.
  public static let standard = WeightRecords(folder: CacheFolder.standard("checksums"))

  private static let magic = Array("FLASHSUM".utf8)
  private static let version: UInt32 = 1
  private static let headerByteCount = 40
  /// More records than anyone has models; beyond this, those that were used least recently are deleted.
  private static let countLimit = 512
  private static let byteLimit = 256 << 20

  /// A number that identifies these very files.
  static func number(of files: [FileIdentity]) -> UInt64 {
    (Array("FLASHFIL".utf8) + files.flatMap(\.encoded)).withUnsafeBytes(Checksum.of)
  }

  /// Checksums that are known of `files`; none if nothing is.
  func load(_ files: [FileIdentity], layout: UInt64) -> [UInt64] {
    guard let path = path(files, layout), let record = Self.record(at: path),
      record.files == files.flatMap(\.encoded), record.layout == layout
    else { return [] }
    // Now it is one of those that were used last.
    _ = path.withSystemPath { utimensat(AT_FDCWD, $0, nil, 0) }
    return record.checksums
  }

  /// Keeps checksums in place of what was known.
  ///
  /// - Throws: `BlockIOError` if the folder cannot be written to.
  func save(
    _ checksums: [UInt64], of files: [FileIdentity], layout: UInt64, identity: ModelIdentity?
  ) throws(BlockIOError) {
    guard let folder, let path = path(files, layout) else { return }
    // Another process may have read more meanwhile; an identity changes with the graph that it covers.
    if let present = Self.record(at: path), present.files == files.flatMap(\.encoded) {
      let isAsGood = present.identity == identity?.number ?? 0
      guard present.checksums.count < checksums.count + (isAsGood ? 0 : 1) else { return }
    }
    var bytes = Self.magic
    bytes.appendLittleEndian(Self.version)
    bytes.appendLittleEndian(UInt32(files.count))
    for number in [layout, identity?.number ?? 0, UInt64(checksums.count)] {
      bytes.appendLittleEndian(number)
    }
    bytes.append(contentsOf: files.flatMap(\.encoded))
    for checksum in checksums { bytes.appendLittleEndian(checksum) }
    try CacheFolder.make(folder)
    try SmallFile.write(bytes, to: OutputFile(path: path, reserving: 0, inputs: []))
    removeOldest(folder)
  }

  /// Numbers of the very files that had the contents of `identity` when they were read.
  func files(of identity: ModelIdentity) -> [UInt64] {
    guard let folder else { return [] }
    return Self.names(in: folder).compactMap { name in
      let path = "\(folder)/\(name)"
      guard Self.stated(path) == identity.number, let record = Self.record(at: path),
        record.identity == identity.number
      else { return nil }
      return (Array("FLASHFIL".utf8) + record.files).withUnsafeBytes(Checksum.of)
    }
  }

  /// Identities that the same files had before they were written to, or before their names or rights were
  /// changed; 0 for one that was not learned to the end.
  func identitiesBefore(_ files: [FileIdentity], at paths: [String]) -> [UInt64] {
    records(of: files, at: paths).map(\.identity)
  }

  /// Checksums of the parts that lay in the same places of the same files before they were written to, as far as
  /// each record knows them.
  func checksumsBefore(
    _ files: [FileIdentity], at paths: [String], layout: UInt64
  ) -> [[UInt64]] {
    let encoded = files.flatMap(\.encoded)
    return records(of: files, at: paths).filter { $0.layout == layout && $0.files != encoded }
      .map(\.checksums)
  }

  // MARK: Details

  /// What is remembered of the same files, as they are or were.
  ///
  /// A record that is older than one of them is of a deleted file whose number this one got; only some file systems
  /// tell.
  private func records(of files: [FileIdentity], at paths: [String]) -> [Record] {
    guard let folder, !files.isEmpty else { return [] }
    let birth = paths.compactMap(BirthTime.of).max(by: <) ?? (0, 0)
    return Self.names(in: folder).compactMap { name in
      guard let record = Self.record(at: "\(folder)/\(name)"),
        record.files.count == files.count * FileIdentity.encodedByteCount,
        record.lastChange >= birth
      else { return nil }
      let isSame = files.indices.allSatisfy { index in
        files[index].isSameFile(
          asEncoded: record.files[(index * FileIdentity.encodedByteCount)...])
      }
      return isSame ? record : nil
    }
  }

  private struct Record {
    var layout: UInt64
    var identity: UInt64
    /// Encoded identities, one after the other.
    var files: [UInt8]
    var checksums: [UInt64]
    /// When the record was written or used last, since 1970.
    var lastChange: (seconds: Int, nanoseconds: Int)
  }

  /// Records in a folder, in order; files that are being written have other names.
  private static func names(in folder: String) -> [String] {
    ((try? FolderListing.names(in: folder)) ?? []).filter { ModelIdentity(text: $0) != nil }
      .sorted()
  }

  private func path(_ files: [FileIdentity], _ layout: UInt64) -> String? {
    guard let folder, !files.isEmpty else { return nil }
    var bytes = files.flatMap(\.encoded)
    bytes.appendLittleEndian(layout)
    return "\(folder)/" + ModelIdentity.text(of: bytes.withUnsafeBytes(Checksum.of))
  }

  /// The identity that a record's first bytes state, to be checked by reading it all; nil if it is none.
  private static func stated(_ path: String) -> UInt64? {
    guard let prefix = try? FilePrefix(path: path, byteCount: headerByteCount),
      prefix.byteCount == headerByteCount, prefix.bytes.starts(with: magic)
    else { return nil }
    return SmallFile.integer(prefix.bytes, at: 24, as: UInt64.self)
  }

  private static func record(at path: String) -> Record? {
    guard let file = try? FilePrefix(path: path, byteCount: byteLimit),
      file.byteCount == file.fileByteCount
    else { return nil }
    let bytes = file.bytes
    guard bytes.count >= headerByteCount, bytes.starts(with: magic), SmallFile.isIntact(bytes),
      SmallFile.integer(bytes, at: 8, as: UInt32.self) == version
    else { return nil }
    let fileCount = Int(SmallFile.integer(bytes, at: 12, as: UInt32.self))
    let partCount = Int(clamping: SmallFile.integer(bytes, at: 32, as: UInt64.self))
    let start = headerByteCount + FileIdentity.encodedByteCount * fileCount
    guard fileCount <= bytes.count, partCount <= bytes.count,
      bytes.count == start + 8 * partCount + SmallFile.checksumByteCount
    else { return nil }
    return Record(
      layout: SmallFile.integer(bytes, at: 16, as: UInt64.self),
      identity: SmallFile.integer(bytes, at: 24, as: UInt64.self),
      files: Array(bytes[headerByteCount..<start]),
      checksums: (0..<partCount).map {
        SmallFile.integer(bytes, at: start + 8 * $0, as: UInt64.self)
      },
      lastChange: FileIdentity(path: path).map {
        ($0.modification.seconds, $0.modification.nanoseconds)
      } ?? (0, 0))
  }

  private func removeOldest(_ folder: String) {
    let names = Self.names(in: folder)
    guard names.count > Self.countLimit else { return }
    let uses = names.map { name in
      let last = FileIdentity(path: "\(folder)/\(name)")?.modification
      return (name: name, time: (last?.seconds ?? 0, last?.nanoseconds ?? 0))
    }
    for use in uses.sorted(by: { $0.time < $1.time }).prefix(names.count - Self.countLimit) {
      SystemCalls.remove("\(folder)/\(use.name)")
    }
  }
}
