import Synchronization

/// The keys that requests must show, from a file that nobody but its owner can read: one a line.
///
/// After a key may stand `name=` and what its holder is called, and `priority=` and how far all that it asks for stands
/// back. Keys of one name are one holder's.
public final class APIKeys: Sendable {
  private let path: String
  private let entries: Mutex<[Entry]>

  private struct Entry: Sendable {
    let key: PaddedKey
    let holder: RequestClient
  }

  static let shortestByteCount = 16
  static let longestByteCount = 512
  private static let mostKeys = 1024
  private static let mostBytes = 1 << 16
  private static let longestName = 64

  /// Reads a file; blank lines and those that begin with `#` are passed over.
  ///
  /// - Throws: ``FileError``, where others can read it too, or it holds no keys or what is none.
  public init(path: String) throws(FileError) {
    self.path = path
    entries = Mutex(try Self.entries(path))
  }

  /// Reads the file again; where it is not taken, the keys stay what they were.
  ///
  /// - Throws: ``FileError``.
  public func reload() throws(FileError) {
    let read = try Self.entries(path)
    entries.withLock { $0 = read }
  }

  /// Whose key it is; nil where it is none. How long that takes does not depend on which, or on how much of one it has.
  package func holder(of given: some StringProtocol) -> RequestClient? {
    let given = Array(given.utf8)
    guard given.count <= Self.longestByteCount else { return nil }
    let padded = PaddedKey(given)
    return entries.withLock { entries in
      var found: Int?
      for (number, entry) in entries.enumerated() {
        let isEqual = entry.key.equals(padded)
        found = isEqual ? number : found
      }
      return found.map { entries[$0].holder }
    }
  }

  private static func entries(_ path: String) throws(FileError) -> [Entry] {
    var entries: [Entry] = []
    let lines = try PrivateFile.contents(path, mostBytes: mostBytes, of: "the keys")
      .split(separator: 0x0A, omittingEmptySubsequences: false)
    for (number, line) in lines.enumerated() {
      let words = line.split { $0 == 0x20 || $0 == 0x09 || $0 == 0x0D }
      guard let key = words.first, key.first != UInt8(ascii: "#") else { continue }
      // What is wrong with a line is told without it.
      func fail(_ what: String) -> FileError {
        FileError("\(path), line \(number + 1)", what)
      }
      guard key.allSatisfy({ (0x21...0x7E).contains($0) }),
        (shortestByteCount...longestByteCount).contains(key.count)
      else {
        throw fail(
          "a key is \(shortestByteCount) to \(longestByteCount) letters, digits and signs of ASCII without spaces, "
            + "such as openssl rand -hex 32 makes")
      }
      var holder = RequestClient(name: "key \(entries.count + 1)")
      guard words.dropFirst().allSatisfy({ read($0, into: &holder) }) else {
        throw fail(
          "after a key may stand name= and 1 to \(longestName) letters, digits and -._, and priority= and a number from "
            + "0 to \(AnswerOptions.mostPriority)")
      }
      entries.append(Entry(key: PaddedKey(Array(key)), holder: holder))
    }
    guard (1...mostKeys).contains(entries.count) else {
      throw FileError(
        path, "there are \(entries.count) keys; there must be 1 to \(mostKeys), one a line")
    }
    return entries
  }

  /// Reads what is said of a key; false where it says nothing that there is.
  private static func read(_ word: ArraySlice<UInt8>, into holder: inout RequestClient) -> Bool {
    let parts = word.split(separator: UInt8(ascii: "="), maxSplits: 1).map {
      String(decoding: $0, as: UTF8.self)
    }
    guard parts.count == 2 else { return false }
    switch parts[0] {
    case "name":
      let isName = parts[1].allSatisfy {
        $0.isASCII && ($0.isLetter || $0.isNumber || "-._".contains($0))
      }
      guard isName, parts[1].utf8.count <= longestName else { return false }
      holder.name = parts[1]
    case "priority":
      guard let value = Int(parts[1]), (0...AnswerOptions.mostPriority).contains(value) else {
        return false
      }
      holder.leastPriority = value
    default: return false
    }
    return true
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
