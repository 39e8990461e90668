import Glibc

/// What tells one version of a file from another: which file it is, its size and last change.
struct FileIdentity: Equatable, Sendable {
  let device: UInt
  let inode: UInt
  let byteCount: Int
  let modificationSeconds: Int
  let modificationNanoseconds: Int

  init(_ status: stat) {
    device = UInt(status.st_dev)
    inode = UInt(status.st_ino)
    // A device node's own size and times say nothing of the data behind it.
    let isRegular = status.st_mode & S_IFMT == S_IFREG
    byteCount = isRegular ? Int(status.st_size) : 0
    modificationSeconds = isRegular ? Int(status.st_mtim.tv_sec) : 0
    modificationNanoseconds = isRegular ? Int(status.st_mtim.tv_nsec) : 0
  }

  /// Whether both are the same file, changed or not.
  func isSameFile(as other: FileIdentity) -> Bool {
    device == other.device && inode == other.inode
  }
}

extension stat {
  /// What the file is where it is neither a regular file nor a block device, else nil.
  var unreadableKind: String? {
    switch st_mode & S_IFMT {
    case S_IFREG, S_IFBLK: nil
    case S_IFDIR: "a directory"
    case S_IFIFO: "a pipe"
    case S_IFCHR: "a character device"
    case S_IFSOCK: "a socket"
    default: "a special file"
    }
  }
}
