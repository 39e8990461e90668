package import BlockIO
import Glibc
import TensorBasics

// Drives wear by what is written to them: a store counts it by days, of all processes together.
extension KeyValueDirectory {
  private static let ledgerName = "written"
  /// The ledger's length: two numbers, and spaces.
  private static let ledgerByteCount = 64

  /// What the ledger says.
  private enum Ledger {
    /// Bytes of today.
    case bytes(Int)
    /// Nobody knows how many they are, because of that.
    case unusable(String)
  }

  private var ledgerPath: String { "\(path)/\(Self.ledgerName)" }

  /// Bytes of entries that were written since midnight, UTC, also of those that were not kept.
  public var writtenTodayByteCount: Int {
    guard case .bytes(let count) = ledger() else { return 0 }
    return count + uncountedByteCount
  }

  /// Why nobody can say what was written today, which has nothing written where that is bounded; nil if nothing is wrong.
  public var budgetProblem: String? {
    guard dailyWriteLimit < .max, case .unusable(let reason) = ledger() else { return nil }
    return "\(ledgerPath): \(reason)"
  }

  /// Whether more may be written today.
  public var mayWrite: Bool {
    budgetProblem == nil && writtenTodayByteCount < dailyWriteLimit
  }

  /// Whether the smallest entry of such a context is more than the store may have, beside what it continues.
  public func isTooSmall(
    for origin: KeyValueOrigin, after prefix: KeyValuePrefix = .none
  ) -> Bool { !hasRoom(for: KeyValueEntryHeader.leastByteCount(origin), after: prefix) }

  /// Whether an entry of so many bytes fits the limit beside what it continues, which cannot make room for it.
  func hasRoom(for byteCount: Int, after prefix: KeyValuePrefix) -> Bool {
    let chainByteCount = prefix.ids.reduce(0) { sum, id in
      var status = stat()
      let isThere = SystemCalls.inspect(path(of: id), followsLinks: false, &status) == 0
      return sum + (isThere ? Int(status.st_blocks) * 512 : 0)
    }
    return byteCount <= byteLimit - chainByteCount
  }

  /// Takes a note of what kept an entry from being written.
  package func note(failure: BlockIOError) {
    guard failure.errno == ENOSPC || failure.errno == EDQUOT else { return }
    shortageByteCount = max(
      shortageByteCount, (failure.offset ?? 0) + max(1, failure.byteCount ?? 0))
  }

  /// Whether the file system has room again for what it had none for.
  ///
  /// Entries that are begun without write what there is room for, and are deleted: that wears drives for nothing.
  package func hasSpace() -> Bool {
    guard shortageByteCount > 0 else { return true }
    guard let free = SystemCalls.freeByteCount(at: path), free > shortageByteCount else {
      return false
    }
    shortageByteCount = 0
    return true
  }

  /// Days since 1970, UTC.
  static var today: Int { Int(time(nil)) / 86_400 }

  /// Counts what was written, where that is bounded. What the ledger cannot be told, this process remembers.
  func noteWritten(_ byteCount: Int) {
    guard byteCount > 0, dailyWriteLimit < .max else { return }
    locked {
      let total = writtenTodayByteCount + byteCount
      let isCounted = write(total)
      uncountedByteCount = isCounted ? 0 : uncountedByteCount + byteCount
      guard !isCounted else { return }
      note("\(ledgerPath): what was written today cannot be counted there")
    }
  }

  /// - Returns: whether the ledger says so now.
  private func write(_ total: Int) -> Bool {
    if case .unusable = ledger() { return false }
    var text = Array("\(Self.today) \(total)".utf8)
    // In one piece, so that a process that is killed leaves the old count or the new one.
    text += [UInt8](repeating: 0x20, count: Self.ledgerByteCount - 1 - text.count) + [0x0A]
    let flags = O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK
    let raw = SystemCalls.open(ledgerPath, flags, mode: 0o600)
    guard raw >= 0 else { return false }
    let descriptor = UnixDescriptor(owning: raw)
    return text.withUnsafeBytes { descriptor.writeAll($0, at: 0) } == nil
      && SystemCalls.truncate(raw, byteCount: text.count) == 0
  }

  private func ledger() -> Ledger {
    var status = stat()
    switch SystemCalls.inspect(ledgerPath, followsLinks: false, &status) {
    case 0: break
    case -ENOENT: return .bytes(0)
    case let error: return .unusable(String(cString: strerror(-error)))
    }
    guard status.st_mode & S_IFMT == S_IFREG else {
      return .unusable("it is no regular file: remove it")
    }
    guard let file = try? EntryFile(path: ledgerPath),
      let bytes = try? file.read(Self.ledgerByteCount, at: 0)
    else { return .unusable("it cannot be read") }
    // It was made a moment ago, and its maker was killed.
    guard !bytes.isEmpty else { return .bytes(0) }
    let words = String(decoding: bytes, as: UTF8.self).split { $0 == " " || $0 == "\n" }
    guard words.count == 2, let day = Int(words[0]), let count = Int(words[1]), count >= 0 else {
      // Whatever it was to say, it is of the day when it was written.
      let isOfToday = Int(status.st_mtim.tv_sec) / 86_400 >= Self.today
      return isOfToday
        ? .unusable("it is damaged: remove it, or wait until midnight (UTC)") : .bytes(0)
    }
    return .bytes(day == Self.today ? count : 0)
  }
}
