/// One control group's limit on memory, and what it has left.
struct MemoryLevel {
  /// Bytes.
  let limit: Int
  /// The file that states the limit.
  let path: String
  /// What ends a process that takes more; nil where it is only slowed down.
  let hard: StatedLimit?
  /// Bytes that can still be had: the limit without what is in use and cannot be given back at once.
  let available: Int

  /// The level of version 2 at `folder`; nil if it states no limit.
  ///
  /// Beyond `memory.high` a process is slowed down until it is of no use, so that is a limit too.
  init?(unified folder: String, _ files: SystemFiles) {
    let limits = ["memory.max", "memory.high"].map { name in
      Self.limit(files.value("\(folder)/\(name)")).map {
        StatedLimit(value: $0, path: "\(folder)/\(name)")
      }
    }
    guard let tightest = limits.compactMap(\.self).min(by: { $0.value < $1.value }) else {
      return nil
    }
    let used = Self.byteCount(files.value("\(folder)/memory.current"))
    let filePages = Self.freeable(
      ["active_file", "inactive_file"], ["file_dirty", "file_writeback"], folder, files)
    self.init(tightest, hard: limits[0], used: used, freeable: filePages)
  }

  /// The level of version 1 at `folder`; nil if it states no limit.
  ///
  /// `hierarchical_memory_limit` is the tightest of all groups around this one, also of those that a
  /// container does not see.
  init?(version1 folder: String, _ files: SystemFiles) {
    let stat = "\(folder)/memory.stat"
    let own = Self.limit(files.value("\(folder)/memory.limit_in_bytes"))
    let around = Self.limit(files.field("hierarchical_memory_limit", in: stat))
    guard let limit = [own, around].compactMap({ $0 }).min() else { return nil }
    let used = Self.byteCount(files.value("\(folder)/memory.usage_in_bytes"))
    let filePages = Self.freeable(
      ["total_active_file", "total_inactive_file"], ["total_dirty", "total_writeback"], folder,
      files)
    let stated = StatedLimit(
      value: limit, path: limit == own ? "\(folder)/memory.limit_in_bytes" : stat)
    self.init(stated, hard: stated, used: used, freeable: filePages)
  }

  private init(_ tightest: StatedLimit, hard: StatedLimit?, used: Int, freeable: Int) {
    (limit, path) = (tightest.value, tightest.path)
    self.hard = hard
    available = max(0, limit - max(0, used - freeable))
  }

  /// Whether the group at `folder`, of version 1, limits the groups within it: it can say that it does not.
  static func limitsGroupsWithin(_ folder: String, _ files: SystemFiles) -> Bool {
    files.value("\(folder)/memory.use_hierarchy") != "0"
  }

  /// Bytes of file pages that the kernel drops when memory is asked for: those on its two lists, without the
  /// ones that must be written first. Shared memory is on other lists, and stays.
  private static func freeable(
    _ lists: [String], _ unwritten: [String], _ folder: String, _ files: SystemFiles
  ) -> Int {
    func sum(_ names: [String]) -> Int {
      names.reduce(0) { $0 + byteCount(files.field($1, in: "\(folder)/memory.stat")) }
    }
    return max(0, sum(lists) - sum(unwritten))
  }

  /// A number of bytes, 0 if there is none; sums of a few do not overflow.
  private static func byteCount(_ text: String?) -> Int {
    min(unlimited, max(0, text.flatMap { Int($0) } ?? 0))
  }

  /// A limit in bytes; nil for `max`, for what is no number, and for numbers that stand for no limit.
  private static func limit(_ text: String?) -> Int? {
    guard let bytes = text.flatMap({ Int($0) }), (0..<unlimited).contains(bytes) else { return nil }
    return bytes
  }

  /// Version 1 writes no limit as the largest multiple of a page.
  private static let unlimited = 1 << 60
}
