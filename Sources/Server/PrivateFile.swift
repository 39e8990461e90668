import Glibc

/// Why a file of keys or certificates is not taken.
public struct FileError: Error, CustomStringConvertible {
  public let description: String

  init(_ path: String, _ what: String) { description = "\(path): \(what)" }
}

/// Small files that the server is given, of which those with secrets are their owner's alone.
enum PrivateFile {
  /// - Parameters:
  ///   - isSecret: whether it is refused where others can read it.
  ///   - what: what is in it, for people.
  static func contents(
    _ path: String, mostBytes: Int, isSecret: Bool = true, of what: String
  ) throws(FileError) -> [UInt8] {
    func failed() -> FileError { FileError(path, String(cString: strerror(errno))) }
    // A pipe is not waited for.
    let file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
    guard file >= 0 else { throw failed() }
    defer { close(file) }
    var status = stat()
    guard fstat(file, &status) == 0 else { throw failed() }
    guard status.st_mode & S_IFMT == S_IFREG else {
      throw FileError(path, "\(what) must be in a regular file")
    }
    if isSecret {
      guard status.st_uid == geteuid() || status.st_uid == 0 else {
        throw FileError(path, "the file with \(what) belongs to another user")
      }
      guard status.st_mode & 0o077 == 0 else {
        throw FileError(path, "other users can read the file with \(what): chmod 600 \(path)")
      }
    }
    var (bytes, count) = ([UInt8](repeating: 0, count: mostBytes + 1), 0)
    while count < bytes.count {
      let read = bytes.withUnsafeMutableBytes { bytes in
        Glibc.read(file, bytes.baseAddress! + count, bytes.count - count)
      }
      guard read >= 0 || errno == EINTR else { throw failed() }
      if read == 0 { break }
      count += max(0, read)
    }
    guard count <= mostBytes else { throw FileError(path, "it has more than \(mostBytes) bytes") }
    return Array(bytes[..<count])
  }
}
