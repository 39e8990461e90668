import Glibc
import Synchronization

/// The keys that requests must show, from a file that nobody but its owner can read: one a line.
public final class APIKeys: Sendable {
  /// Why a file of keys is not taken.
  public struct FileError: Error, CustomStringConvertible {
    public let description: String
  }

  private let path: String
  private let keys: Mutex<[PaddedKey]>

  static let shortestByteCount = 16
  static let longestByteCount = 512
  private static let mostKeys = 1024
  private static let mostBytes = 1 << 16

  /// Reads a file; blank lines and those that begin with `#` are passed over.
  ///
  /// - Throws: ``FileError``, where others can read it too, or it holds no keys or what is none.
  public init(path: String) throws(FileError) {
    self.path = path
    keys = Mutex(try Self.keys(path))
  }

  /// Reads the file again; where it is not taken, the keys stay what they were.
  ///
  /// - Throws: ``FileError``.
  public func reload() throws(FileError) {
    let read = try Self.keys(path)
    keys.withLock { $0 = read }
  }

  /// Whether it is one of the keys. How long that takes does not depend on which, or on how much of one it has.
  func include(_ given: some StringProtocol) -> Bool {
    let given = Array(given.utf8)
    guard given.count <= Self.longestByteCount else { return false }
    let padded = PaddedKey(given)
    return keys.withLock { keys in
      var isKnown = false
      for key in keys {
        let isEqual = key.equals(padded)
        isKnown = isKnown || isEqual
      }
      return isKnown
    }
  }

  private static func keys(_ path: String) throws(FileError) -> [PaddedKey] {
    var keys: [PaddedKey] = []
    let lines = try contents(path).split(separator: 0x0A, omittingEmptySubsequences: false)
    for (number, line) in lines.enumerated() {
      let isSpace = { (byte: UInt8) in byte == 0x20 || byte == 0x09 || byte == 0x0D }
      var key = line.drop(while: isSpace)
      while let last = key.last, isSpace(last) { key.removeLast() }
      guard let first = key.first, first != UInt8(ascii: "#") else { continue }
      // What is wrong with a key is told without it.
      guard key.allSatisfy({ (0x21...0x7E).contains($0) }),
        (shortestByteCount...longestByteCount).contains(key.count)
      else {
        throw FileError(
          description:
            "\(path), line \(number + 1): a key is \(shortestByteCount) to \(longestByteCount) letters, digits and "
            + "signs of ASCII without spaces, such as openssl rand -hex 32 makes")
      }
      keys.append(PaddedKey(Array(key)))
    }
    guard (1...mostKeys).contains(keys.count) else {
      throw FileError(
        description: "\(path) has \(keys.count) keys; there must be 1 to \(mostKeys), one a line")
    }
    return keys
  }

  private static func contents(_ path: String) throws(FileError) -> [UInt8] {
    func fail(_ what: String) -> FileError { FileError(description: "\(path): \(what)") }
    func failed() -> FileError { fail(String(cString: strerror(errno))) }
    // A pipe is not waited for.
    let file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
    guard file >= 0 else { throw failed() }
    defer { close(file) }
    var status = stat()
    guard fstat(file, &status) == 0 else { throw failed() }
    guard status.st_mode & S_IFMT == S_IFREG else { throw fail("keys come from a regular file") }
    guard status.st_uid == geteuid() || status.st_uid == 0 else {
      throw fail("the file with the keys belongs to another user")
    }
    guard status.st_mode & 0o077 == 0 else {
      throw fail("other users can read the file with the keys: chmod 600 \(path)")
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
    guard count <= mostBytes else { throw fail("it has more than \(mostBytes) bytes") }
    return Array(bytes[..<count])
  }
}

/// A key in as many bytes as the longest has, so that comparing takes the same time whatever it is.
private struct PaddedKey: Sendable {
  private let bytes: [UInt8]
  private let count: Int

  init(_ key: [UInt8]) {
    count = key.count
    bytes = key + [UInt8](repeating: 0, count: APIKeys.longestByteCount - key.count)
  }

  func equals(_ other: PaddedKey) -> Bool {
    var difference = UInt(bitPattern: count ^ other.count)
    for (byte, otherByte) in zip(bytes, other.bytes) { difference |= UInt(byte ^ otherByte) }
    return difference == 0
  }
}
