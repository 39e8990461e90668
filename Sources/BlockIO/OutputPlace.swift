import Glibc
import TensorBasics

/// Where a file is to appear: a regular file or nothing, and none of the files that are being read.
///
/// A symbolic link stands for the file that it names, which is replaced where it lies; the link stays.
/// A link to nothing is refused: it names no file that could be checked, and more often than not it is
/// a mistake.
struct OutputPlace {
  /// The path as the user gave it.
  let path: String
  /// Where the file really lies, links resolved.
  let target: String
  /// The target's folder, with a slash at the end.
  let folder: String
  /// The target's name in it.
  let name: String
  /// The file to be replaced; nil if there is none.
  let previous: stat?

  /// - Parameter inputs: what is being read; of a folder every file in it.
  /// - Throws: ``BlockIOError`` if no file may be written there.
  init(_ path: String, inputs: [String]) throws(BlockIOError) {
    guard !path.isEmpty else { throw BlockIOError(.create, path: path, reason: .unnamed) }
    self.path = path
    let (target, previous) = try Self.resolve(path)
    self.target = target
    self.previous = previous
    let slash = target.utf8.lastIndex(of: UInt8(ascii: "/"))
    folder = slash.map { String(target[...$0]) } ?? "./"
    name = slash.map { String(target[target.utf8.index(after: $0)...]) } ?? target
    guard !name.isEmpty, name != ".", name != ".." else {
      throw BlockIOError(.create, path: path, reason: .system(errno: EISDIR))
    }
    guard let previous else { return }
    for input in inputs
    where try Self.files(of: input).contains(where: { $0.isSameFile(as: previous) }) {
      throw BlockIOError(.create, path: path, reason: .inUse(as: input))
    }
  }

  /// What lies at the place now, which may have changed since it was looked at; nil if nothing does.
  ///
  /// - Throws: ``BlockIOError`` if it is no regular file.
  func current() throws(BlockIOError) -> stat? {
    guard let status = try Self.status(target, following: false) else { return nil }
    if let kind = status.unwritableKind {
      throw BlockIOError(.create, path: path, reason: .notWritable(kind: kind))
    }
    return status
  }

  /// Whether both are one place.
  func isSame(as other: OutputPlace) throws(BlockIOError) -> Bool {
    if let previous, let theirs = other.previous { return previous.isSameFile(as: theirs) }
    guard name.utf8.elementsEqual(other.name.utf8),
      let folder = try Self.status(folder), let theirs = try Self.status(other.folder)
    else { return false }
    return folder.isSameFile(as: theirs)
  }

  private static func resolve(
    _ path: String
  ) throws(BlockIOError) -> (target: String, previous: stat?) {
    guard let named = try status(path, following: false) else { return (path, nil) }
    guard named.st_mode & S_IFMT == S_IFLNK else {
      if let kind = named.unwritableKind {
        throw BlockIOError(.create, path: path, reason: .notWritable(kind: kind))
      }
      return (path, named)
    }
    guard try !isOpenFile(path) else {
      throw BlockIOError(.create, path: path, reason: .openElsewhere)
    }
    var target = ""
    let outcome = SystemCalls.resolve(path, &target)
    guard outcome == 0 else {
      throw BlockIOError(
        .create, path: path,
        reason: outcome == -ENOENT
          ? .notWritable(kind: "a link to nothing") : .system(errno: -outcome))
    }
    let found = try status(target, following: false)
    if let kind = found?.unwritableKind {
      throw BlockIOError(
        .create, path: path, reason: .notWritable(kind: "a link to \(kind)"))
    }
    return (target, found)
  }

  /// Whether links lead from a path through `/proc`, where they stand for what a process has open: the file
  /// may lie anywhere, and whoever has it open would go on with the old one.
  private static func isOpenFile(_ path: String) throws(BlockIOError) -> Bool {
    guard let processes = try status("/proc") else { return false }
    for place in LinkTrail.places(from: path) {
      guard let link = try status(place, following: false), link.st_mode & S_IFMT == S_IFLNK else {
        return false
      }
      if link.st_dev == processes.st_dev { return true }
    }
    return false
  }

  /// What an input consists of; nothing if it cannot be read.
  private static func files(of input: String) throws(BlockIOError) -> [stat] {
    func reachable(_ path: String) throws(BlockIOError) -> stat? {
      do throws(BlockIOError) { return try status(path) } catch {
        if error.errno == EACCES || error.errno == ELOOP { return nil }
        throw error
      }
    }
    guard let found = try reachable(input) else { return [] }
    guard found.st_mode & S_IFMT == S_IFDIR else { return [found] }
    var files: [stat] = []
    for name in try FolderListing.names(in: input) {
      if let file = try reachable("\(input)/\(name)") { files.append(file) }
    }
    return files
  }

  /// What lies at a path; nil if nothing does.
  ///
  /// - Throws: ``BlockIOError`` if the system does not tell.
  private static func status(
    _ path: String, following: Bool = true
  ) throws(BlockIOError) -> stat? {
    var status = stat()
    let outcome = path.withSystemPath {
      SystemCalls.inspect($0, followsLinks: following, &status)
    }
    switch outcome {
    case 0: return status
    case -ENOENT, -ENOTDIR: return nil
    default: throw BlockIOError(.inspect, path: path, reason: .system(errno: -outcome))
    }
  }
}

extension stat {
  /// What kind of file it is, if not a regular file; otherwise nil.
  fileprivate var unwritableKind: String? {
    switch st_mode & S_IFMT {
    case S_IFREG: nil
    case S_IFBLK: "a block device"
    default: unreadableKind
    }
  }

  /// Whether both are one file, whatever its names.
  fileprivate func isSameFile(as other: stat) -> Bool {
    st_dev == other.st_dev && st_ino == other.st_ino
  }
}
