import HostResources

/// Bytes to write to a file.
public struct WriteRequest: @unchecked Sendable {
  // Safety: plain values; the bytes are lent to one writer and stay as they are meanwhile.

  public var file: WritableFile
  /// First byte, a multiple of 4096.
  public var offset: Int
  /// Address and count are multiples of 4096. Lent until the completion is taken.
  public var bytes: UnsafeRawBufferPointer
  /// The caller's identifier for this write, returned in its completion.
  public var tag: Int

  public init(file: WritableFile, offset: Int, bytes: UnsafeRawBufferPointer, tag: Int) {
    self.file = file
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

/// One thread that writes to any number of files.
///
/// One thread uses a writer. Writes are done in the order they were queued; queueing and taking
/// completions allocates nothing. Destroying a writer ends its thread after the current write.
public final class FileWriter {
  /// The most writes that can be pending.
  public let capacity: Int
  /// Writes queued and not taken back.
  public private(set) var pendingCount = 0

  private let worker: WriterThread

  /// Starts the thread.
  ///
  /// - Throws: ``BlockIOError`` if the system refuses it.
  public init(capacity: Int) throws(BlockIOError) {
    self.capacity = capacity
    worker = try WriterThread(capacity: capacity)
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
}
