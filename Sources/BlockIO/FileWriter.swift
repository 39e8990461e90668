import Glibc
import HostResources

/// Bytes to write to a ``FileWriter``'s file.
public struct WriteRequest: @unchecked Sendable {
  // Safety: plain values; the bytes are lent to one writer and stay as they are meanwhile.

  /// First byte, a multiple of 4096.
  public var offset: Int
  /// Address and count are multiples of 4096. Lent until the completion is taken.
  public var bytes: UnsafeRawBufferPointer
  /// The caller's identifier for this write, returned in its completion.
  public var tag: Int

  public init(offset: Int, bytes: UnsafeRawBufferPointer, tag: Int) {
    self.offset = offset
    self.bytes = bytes
    self.tag = tag
  }
}

/// A write that succeeded or failed; its bytes are the caller's again.
public struct WriteCompletion: Sendable {
  public var tag: Int
  public var byteCount: Int
  public var failure: BlockIOError?
}

/// A file of fixed length that one thread of its own writes to, past the page cache where the file
/// system agrees.
///
/// One thread uses a writer. Writes are done in the order they were queued; queueing and taking
/// completions allocates nothing. Destroying a writer ends its thread after the current write.
public final class FileWriter {
  /// What the file is called in messages.
  public let path: String
  /// The path by which it can be opened while the writer lives.
  public let readingPath: String
  /// The most writes that can be pending.
  public let capacity: Int
  /// Writes queued and not taken back.
  public private(set) var pendingCount = 0

  private let worker: WriterThread

  /// Where a writer's file is.
  public enum Place: Sendable {
    /// Of that name; created if there is none, and emptied.
    case named(String)
    /// In that folder, without a name: no other process finds it, and it goes with the writer.
    case temporary(folder: String)
  }

  /// Makes the file and gives it `byteCount` bytes, which take no room before they are written.
  ///
  /// - Throws: ``BlockIOError`` if the file cannot be made.
  public convenience init(
    _ place: Place, byteCount: Int, capacity: Int
  ) throws(BlockIOError) {
    try self.init(place, byteCount: byteCount, capacity: capacity, hooks: DeviceHooks())
  }

  package init(
    _ place: Place, byteCount: Int, capacity: Int, hooks: DeviceHooks
  ) throws(BlockIOError) {
    let descriptor: UnixDescriptor
    let path: String
    switch place {
    case .named(let name):
      path = name
      descriptor = try Self.open(name, hooks)
    case .temporary(let folder):
      descriptor = try UnixDescriptor(
        temporaryIn: folder, bypassingPageCache: true, refusal: hooks.directOpenErrno)
      path = folder + "/(temporary file)"
    }
    let status = SystemCalls.truncate(descriptor.rawValue, byteCount: byteCount)
    guard status == 0 else {
      throw BlockIOError(
        .create, path: path, byteCount: byteCount, reason: .system(errno: -status))
    }
    self.path = path
    readingPath = if case .named = place { path } else { descriptor.path }
    self.capacity = capacity
    worker = try WriterThread(
      path: path, descriptor: descriptor, capacity: capacity, hooks: hooks)
  }

  deinit { worker.stop() }

  /// Queues a write.
  ///
  /// - Precondition: `pendingCount < capacity`.
  public func enqueue(_ request: WriteRequest) {
    precondition(pendingCount < capacity, "more writes queued than the writer's capacity")
    pendingCount += 1
    worker.enqueue(request)
  }

  /// Takes a completion; nil if none is there yet, or nothing is pending.
  ///
  /// - Parameters:
  ///   - waiting: whether to sleep until there is one.
  ///   - timeoutMilliseconds: the longest sleep; nil for no limit.
  public func takeCompletion(
    waiting: Bool, timeoutMilliseconds: Int? = nil
  ) -> WriteCompletion? {
    guard pendingCount > 0,
      let completion = worker.takeCompletion(
        waiting: waiting, timeoutMilliseconds: timeoutMilliseconds)
    else { return nil }
    pendingCount -= 1
    return completion
  }

  /// Abandons the pending writes: the thread ends after the current write, whose bytes
  /// are never freed. The writer accepts no further writes.
  public func abandonWrites() {
    guard pendingCount > 0 else { return }
    worker.abandon()
    pendingCount = 0
  }

  private static func open(
    _ path: String, _ hooks: DeviceHooks
  ) throws(BlockIOError) -> UnixDescriptor {
    let flags = O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW
    var descriptor = -hooks.directOpenErrno
    if descriptor == 0 { descriptor = SystemCalls.open(path, flags | __O_DIRECT, mode: 0o600) }
    if descriptor < 0, (-descriptor).isLackOfSupport {
      descriptor = SystemCalls.open(path, flags, mode: 0o600)
    }
    guard descriptor >= 0 else {
      throw BlockIOError(.create, path: path, reason: .system(errno: -descriptor))
    }
    return UnixDescriptor(owning: descriptor)
  }
}
