public import BlockIO
import Glibc
import TensorBasics

/// A folder of keys and values that outlive the processes that computed them.
///
/// Any number of processes use one folder at a time. An entry is a file that never changes: it takes
/// its name when it is complete, and its name says what it holds. One that is deleted stays readable
/// to those who have it open. `docs/kv-store.md` describes the files.
public final class KeyValueDirectory {
  /// The folder, from the root.
  public let path: String
  /// Most bytes that its entries take.
  public let byteLimit: Int
  /// Most bytes that are written to it from one midnight to the next, UTC; an entry that was begun is written all the same.
  public let dailyWriteLimit: Int
  /// Is told in a line what was found and not used.
  public var note: (String) -> Void = { _ in }
  /// Kinds of entries that were told of because they are not used.
  var notedKinds: Set<String> = []
  /// Bytes that this process wrote and could not count for all.
  var uncountedByteCount = 0

  /// Bytes that an entry came to before the file system had no more; 0 = it had.
  package internal(set) var shortageByteCount = 0

  static let ending = ".kv"
  static let partEnding = ".part"

  /// Opens a folder, which is made if there is none, and removes what killed processes left there.
  ///
  /// - Throws: `BlockIOError` if the folder cannot be made.
  public init(
    path: String, byteLimit: Int, dailyWriteLimit: Int = .max
  ) throws(BlockIOError) {
    guard !path.isEmpty else {
      throw BlockIOError(.open, path: path, reason: .system(errno: ENOENT))
    }
    self.path = Self.absolute(path)
    self.byteLimit = byteLimit
    self.dailyWriteLimit = dailyWriteLimit
    try CacheFolder.make(self.path)
    removeAbandonedParts()
  }

  /// Opens a folder only to look and to delete.
  ///
  /// - Throws: `BlockIOError` if there is none.
  public init(openingExisting path: String) throws(BlockIOError) {
    self.path = Self.absolute(path)
    (byteLimit, dailyWriteLimit) = (.max, .max)
    let descriptor = SystemCalls.open(self.path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
    guard descriptor >= 0 else {
      throw BlockIOError(.open, path: self.path, reason: .system(errno: -descriptor))
    }
    close(descriptor)
    removeAbandonedParts()
  }

  /// An entry as a listing shows it.
  public struct Item: Sendable {
    /// Its name in sixteen hexadecimal digits.
    public let id: String
    /// Bytes on the drive.
    public let byteCount: Int
    /// Tokens from the text's first to the entry's last, and how many of them it holds itself.
    public let tokenCount: Int
    public let ownTokenCount: Int
    /// Seconds since it was written or used last.
    public let ageSeconds: Int
    /// How often it was written or used, with a half-life of a day.
    public let useCount: Double
    /// Whose weights it was computed with; nil if that cannot be read.
    public let model: KeyValueOrigin.Model?
    /// Of the model; bytes as they were, which a damaged name may make no text.
    public let modelName: [UInt8]
    /// The beginning of the text.
    public let text: [UInt8]
    /// Why it will not be used, if so.
    public let problem: String?
  }

  /// All entries, the last used first; damaged ones and those of other versions as well.
  public func items() -> [Item] {
    let now = Self.now()
    return files().sorted { $0.lastUse > $1.lastUse }.map { file in
      var entry: KeyValueEntry?
      var problem: String?
      do throws(KeyValueEntry.Failure) { entry = try KeyValueEntry(path: path(of: file.id)) } catch
      {
        switch error {
        case .unreadable: problem = "cannot be read"
        case .unusable(.damaged): problem = "damaged"
        case .unusable(.otherVersion): problem = "of another version"
        }
      }
      let header = entry?.header
      let length = KeyValueOrigin.pageGroupPositionCount
      return Item(
        id: Self.text(of: file.id), byteCount: file.byteCount,
        tokenCount: header.map { $0.firstPageGroup * length + $0.tokenCount } ?? 0,
        ownTokenCount: header.map(\.tokenCount) ?? 0,
        ageSeconds: Int(max(0, now - file.lastUse)),
        useCount: entry.map {
          Self.useCount(of: $0.descriptor, usedAt: file.lastUse, now: now)
        } ?? 0,
        model: header?.origin.model, modelName: header?.modelName ?? [], text: header?.text ?? [],
        problem: problem)
    }
  }

  /// Deletes the entry of that name.
  ///
  /// - Returns: whether there was one.
  public func remove(_ id: String) -> Bool {
    guard let id = Self.id(fromText: id) else { return false }
    return SystemCalls.remove(path(of: id))
  }

  /// Deletes all entries and returns how many there were.
  public func removeAll() -> Int {
    files().count { SystemCalls.remove(path(of: $0.id)) }
  }

  // MARK: Files

  /// A file with an entry's name.
  struct File {
    let id: UInt64
    /// Bytes on the drive.
    let byteCount: Int
    /// Seconds since 1970.
    let lastUse: Double
  }

  /// All files with an entry's name, in no order.
  func files() -> [File] {
    ((try? FolderListing.names(in: path)) ?? []).compactMap { name in
      guard let id = Self.id(fromName: name, ending: Self.ending) else { return nil }
      var status = stat()
      guard SystemCalls.inspect(path(of: id), followsLinks: false, &status) == 0,
        status.st_mode & S_IFMT == S_IFREG
      else {
        return nil
      }
      return File(
        id: id, byteCount: Int(status.st_blocks) * 512, lastUse: Self.seconds(status.st_mtim))
    }
  }

  func path(of id: UInt64) -> String { "\(path)/\(Self.text(of: id))\(Self.ending)" }

  /// Runs `work` while no other process makes room or names an entry.
  func locked<Result, Failure: Error>(
    _ work: () throws(Failure) -> Result
  ) throws(Failure) -> Result {
    let descriptor = SystemCalls.open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
    defer { if descriptor >= 0 { close(descriptor) } }
    // Where the file system has no locks, processes may delete more than they must, and no worse.
    if descriptor >= 0 { _ = SystemCalls.lock(descriptor, LOCK_EX) }
    return try work()
  }

  /// Removes temporary files that have no writer any more: a writer would hold their lock.
  private func removeAbandonedParts() {
    for name in (try? FolderListing.names(in: path)) ?? []
    where Self.id(fromName: name, ending: Self.partEnding) != nil {
      PartName.removeAbandoned("\(path)/\(name)")
    }
  }

  // MARK: Names

  /// Sixteen hexadecimal digits.
  static func text(of id: UInt64) -> String {
    let digits = String(id, radix: 16)
    return String(repeating: "0", count: 16 - digits.count) + digits
  }

  private static func id(fromText text: String) -> UInt64? {
    // As it is written, so that no two names mean one entry.
    guard let id = UInt64(text, radix: 16), Self.text(of: id) == text else { return nil }
    return id
  }

  private static func id(fromName name: String, ending: String) -> UInt64? {
    name.hasSuffix(ending) ? id(fromText: String(name.dropLast(ending.utf8.count))) : nil
  }

  private static func absolute(_ path: String) -> String {
    guard !path.utf8.starts(with: "/".utf8), let current = getcwd(nil, 0) else { return path }
    defer { free(current) }
    return String(systemPath: current) + "/" + path
  }
}
