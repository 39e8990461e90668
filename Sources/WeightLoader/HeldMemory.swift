import Synchronization
import TensorBasics

/// Memory within a loader's budget for tensors, until the object is gone. It may outlive the loader.
public final class HeldMemory: Sendable {
  private let pages: HeldPages
  private let byteCount: Int
  private let account: MemoryAccount

  /// - Parameter isZero: whether the bytes must be zero, which costs the system a page fault each 4096.
  /// - Throws: ``LoaderError/tensorsInUse(wanted:free:limit:)``, ``LoaderError/allocation(_:)``.
  init(byteCount: Int, isZero: Bool, of account: MemoryAccount) throws(LoaderError) {
    pages = try account.take(byteCount, isZero: isZero)
    self.byteCount = AlignedBuffer.roundedUp(max(byteCount, 1))
    self.account = account
  }

  deinit { account.giveBack(pages) }

  /// All of it; valid while the object lives, which its last use in Swift ends.
  package var bytes: UnsafeMutableRawBufferPointer {
    UnsafeMutableRawBufferPointer(rebasing: pages.buffer.bytes[..<byteCount])
  }

  /// Calls `body` with the bytes, which are valid during the call. Threads agree among themselves who writes.
  public func withBytes<Result, Failure>(
    _ body: (inout MutableRawSpan) throws(Failure) -> Result
  ) throws(Failure) -> Result {
    defer { extendLifetime(self) }
    var span = bytes.mutableBytes
    return try body(&span)
  }
}

/// Pages that one ``HeldMemory`` after another may use.
final class HeldPages: Sendable {
  let buffer: AlignedBuffer

  init(byteCount: Int) throws(LoaderError) {
    do { buffer = try AlignedBuffer(byteCount: byteCount) } catch { throw .allocation(error) }
  }

  /// What a load of `byteCount` bytes reserves: a sixteenth more at most, so that the next load of about
  /// that size can use it again.
  static func roomyByteCount(_ byteCount: Int) -> Int {
    let pages = AlignedBuffer.roundedUp(max(byteCount, 1)) / AlignedBuffer.pageByteCount
    let step = 1 << max(0, Int.bitWidth - pages.leadingZeroBitCount - 5)
    return (pages + step - 1) / step * step * AlignedBuffer.pageByteCount
  }
}

/// What of a budget for tensors is in use.
///
/// Small loads that follow one another (rows of a table, say) use the same pages again: fresh ones would be
/// cleared, mapped and unmapped by the kernel each time, a third of the processor's time of such a load.
final class MemoryAccount: Sendable {
  let limit: Int
  private let state = Mutex(State())

  private struct State {
    /// Bytes lent and kept.
    var used = 0
    /// Pages that nobody uses, most recently used last.
    var kept: [HeldPages] = []
    var keptByteCount: Int { kept.reduce(0) { $0 + $1.buffer.byteCount } }
    var isClosed = false

    /// Pages for `byteCount` bytes that do not waste more than a quarter.
    mutating func reuse(_ byteCount: Int) -> HeldPages? {
      let fits = kept.lastIndex {
        (byteCount...byteCount + byteCount / 4).contains($0.buffer.byteCount)
      }
      return fits.map { kept.remove(at: $0) }
    }

    /// Reserves room for `byteCount` bytes, for which kept pages go, oldest first.
    mutating func reserve(_ byteCount: Int, of limit: Int) -> (isDone: Bool, freed: [HeldPages]) {
      guard byteCount <= limit - used + keptByteCount else { return (false, []) }
      var freed: [HeldPages] = []
      while byteCount > limit - used {
        let pages = kept.removeFirst()
        used -= pages.buffer.byteCount
        freed.append(pages)
      }
      used += byteCount
      return (true, freed)
    }
  }

  /// The most that is kept of what was let go.
  private var keptLimit: Int { min(limit / 4, 64 << 20) }

  init(limit: Int) { self.limit = limit }

  /// - Throws: ``LoaderError/tensorsInUse(wanted:free:limit:)``, ``LoaderError/allocation(_:)``.
  func take(_ byteCount: Int, isZero: Bool) throws(LoaderError) -> HeldPages {
    let exact = AlignedBuffer.roundedUp(max(byteCount, 1))
    if !isZero, let pages = state.withLock({ $0.reuse(exact) }) { return pages }
    for size in isZero ? [exact] : [HeldPages.roomyByteCount(byteCount), exact] {
      // Freed pages are unmapped outside the lock.
      let reserved = state.withLock { $0.reserve(size, of: limit) }
      guard reserved.isDone else { continue }
      do throws(LoaderError) { return try HeldPages(byteCount: size) } catch {
        state.withLock { $0.used -= size }
        throw error
      }
    }
    let free = state.withLock { limit - $0.used + $0.keptByteCount }
    throw .tensorsInUse(
      wanted: ByteCount(exact), free: ByteCount(free), limit: ByteCount(limit))
  }

  /// Keeps the pages for the next load, or frees them.
  func giveBack(_ pages: HeldPages) {
    let byteCount = pages.buffer.byteCount
    // The kernel may still write to what was abandoned.
    let isAbandoned = AbandonedMemory.overlaps(UnsafeRawBufferPointer(pages.buffer.bytes))
    state.withLock { state in
      if !isAbandoned, !state.isClosed, state.keptByteCount + byteCount <= keptLimit {
        state.kept.append(pages)
      } else {
        state.used -= byteCount
      }
    }
  }

  /// Frees what is kept, and keeps nothing from here on.
  func close() {
    state.withLock { state in
      state.isClosed = true
      state.used -= state.keptByteCount
      state.kept = []
    }
  }
}
