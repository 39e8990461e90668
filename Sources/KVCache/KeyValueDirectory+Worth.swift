import BlockIO
import Glibc

// What a store keeps where it has no room for everything.
//
// An entry saves the computing of its tokens each time it is used, and takes its bytes, so its worth is
// tokens × uses ÷ bytes. Uses fade with a half-life, so that what nobody asks any more makes room for what is new.
extension KeyValueDirectory {
  /// After that time a use counts half.
  static let halfLifeSeconds = 86_400.0
  /// Of an entry's file, with the uses up to its last as text. File systems without extended attributes lose them, and each entry
  /// counts as used once: what was used least recently goes first.
  private static let usesName = "user.flashinfer.uses"
  private static let usesTextByteLimit = 32
  /// A number that is no count of uses, and would be kept for good.
  private static let useLimit = 1e9

  /// An entry that may be deleted.
  private struct Candidate {
    let id: UInt64
    let byteCount: Int
    var firstPageGroup = 0
    var parent: UInt64 = 0
    /// Tokens × uses ÷ bytes; 0 for what cannot be used, as it is damaged or of another version.
    var worth = 0.0
    /// How many others continue it.
    var childCount = 0
  }

  /// Deletes the entries that are worth least until `byteCount` more bytes fit the limit; none before those that continue it.
  ///
  /// - Parameter kept: entries that stay.
  /// - Returns: whether they fit beside what stays; where not, nothing is deleted.
  func evict(for byteCount: Int, keeping kept: Set<UInt64>) -> Bool {
    let files = files()
    let keptByteCount = files.reduce(0) { $0 + (kept.contains($1.id) ? $1.byteCount : 0) }
    guard byteCount <= byteLimit - keptByteCount else { return false }
    var total = files.reduce(0) { $0 + $1.byteCount }
    guard total + byteCount > byteLimit else { return true }
    let now = Self.now()
    var candidates: [UInt64: Candidate] = [:]
    for file in files { candidates[file.id] = candidate(file, at: now) }
    func parent(of child: Candidate) -> UInt64? {
      // As it is where chains are read, so none is its own end.
      guard let parent = candidates[child.parent], parent.firstPageGroup < child.firstPageGroup
      else { return nil }
      return parent.id
    }
    for candidate in candidates.values {
      if let parent = parent(of: candidate) { candidates[parent]?.childCount += 1 }
    }
    while total + byteCount > byteLimit,
      let least = candidates.values.filter({ $0.childCount == 0 && !kept.contains($0.id) })
        .min(by: { ($0.worth, $0.id) < ($1.worth, $1.id) })
    {
      // Where another process was faster, the bytes are gone as well.
      SystemCalls.remove(path(of: least.id))
      total -= least.byteCount
      candidates[least.id] = nil
      if let parent = parent(of: least) { candidates[parent]?.childCount -= 1 }
    }
    return true
  }

  private func candidate(_ file: File, at now: Double) -> Candidate {
    var candidate = Candidate(id: file.id, byteCount: file.byteCount)
    guard let entry = try? EntryFile(path: path(of: file.id)), let header = try? entry.header()
    else { return candidate }
    (candidate.firstPageGroup, candidate.parent) = (header.firstPageGroup, header.parent)
    let uses = Self.useCount(of: entry.takeDescriptor(), usedAt: file.lastUse, now: now)
    candidate.worth = Double(header.tokenCount) * uses / Double(max(1, file.byteCount))
    return candidate
  }

  /// Uses of an entry's file that was used last at `lastUse`, as much as they still count.
  static func useCount(
    of descriptor: borrowing UnixDescriptor, usedAt lastUse: Double, now: Double
  ) -> Double {
    faded(uses(descriptor.rawValue) ?? 1, since: lastUse, now: now)
  }

  /// What uses count after some time.
  private static func faded(_ uses: Double, since lastUse: Double, now: Double) -> Double {
    uses * exp2(-max(0, now - lastUse) / halfLifeSeconds)
  }

  /// Counts a use of entries: those of a chain together.
  static func noteUse(of descriptors: [Int32]) {
    var time = timespec()
    clock_gettime(CLOCK_REALTIME, &time)
    for descriptor in descriptors {
      var status = stat()
      guard SystemCalls.inspect(descriptor, &status) == 0 else { continue }
      // A new one has none yet.
      let before = faded(
        uses(descriptor) ?? 0, since: seconds(status.st_mtim), now: seconds(time))
      let uses = min(1 + before, useLimit)
      _ = SystemCalls.setAttribute(descriptor, usesName, Array("\(uses)".utf8))
      futimens(descriptor, [time, time])
    }
  }

  /// The uses that a file states as of its modification time; nil if it states none.
  private static func uses(_ descriptor: Int32) -> Double? {
    withUnsafeTemporaryAllocation(byteCount: usesTextByteLimit, alignment: 1) { bytes in
      let count = SystemCalls.attribute(descriptor, usesName, into: bytes)
      guard count > 0, let uses = Double(String(decoding: bytes.prefix(count), as: UTF8.self)),
        uses > 0, uses <= useLimit
      else { return nil }
      return uses
    }
  }

  static func now() -> Double {
    var now = timespec()
    clock_gettime(CLOCK_REALTIME, &now)
    return seconds(now)
  }

  /// Seconds since 1970, to less than a microsecond.
  static func seconds(_ time: timespec) -> Double {
    Double(time.tv_sec) + Double(time.tv_nsec) / 1e9
  }
}
