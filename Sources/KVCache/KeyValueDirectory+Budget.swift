import BlockIO
import Glibc
import TensorBasics

// Drives wear by what is written to them: a store counts it by days, of all processes together.
extension KeyValueDirectory {
  private static let ledgerName = "written"
  /// No ledger is longer: two numbers.
  private static let ledgerByteLimit = 64

  /// Bytes of entries that were written since midnight, UTC, also of those that were not kept.
  public var writtenTodayByteCount: Int {
    guard let (day, byteCount) = ledger(), day == Self.today else { return 0 }
    return byteCount
  }

  /// Whether more may be written today.
  public var mayWrite: Bool { writtenTodayByteCount < dailyWriteLimit }

  /// Days since 1970, UTC.
  static var today: Int { Int(time(nil)) / 86_400 }

  /// Counts what was written, where that is bounded. A count that cannot be kept is lost: the next one is too low.
  func noteWritten(_ byteCount: Int) {
    guard byteCount > 0, dailyWriteLimit < .max else { return }
    locked {
      let text = Array("\(Self.today) \(writtenTodayByteCount + byteCount)\n".utf8)
      let flags = O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK
      let raw = SystemCalls.open("\(path)/\(Self.ledgerName)", flags, mode: 0o600)
      guard raw >= 0 else { return }
      let descriptor = UnixDescriptor(owning: raw)
      guard SystemCalls.truncate(raw, byteCount: 0) == 0 else { return }
      text.withUnsafeBytes { _ = descriptor.writeAll($0, at: 0) }
    }
  }

  private func ledger() -> (day: Int, byteCount: Int)? {
    guard let file = try? EntryFile(path: "\(path)/\(Self.ledgerName)"),
      let bytes = try? file.read(Self.ledgerByteLimit, at: 0)
    else { return nil }
    let words = String(decoding: bytes, as: UTF8.self).split { $0 == " " || $0 == "\n" }
    guard words.count == 2, let day = Int(words[0]), let count = Int(words[1]), count >= 0 else {
      return nil
    }
    return (day, count)
  }
}
