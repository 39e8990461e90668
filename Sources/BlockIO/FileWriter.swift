import Glibc
import HostResources

/// Bytes to write to a ``FileWriter``'s file.
public struct WriteRequest: @unchecked Sendable {
  // Safety: plain values; the bytes are lent to one writer and stay as they are meanwhile.

  /// First byte, a multiple of 4096.
  public var offset: Int
  /// Address and count are multiples of 4096. Lent until the completion is taken.
  public var bytes: UnsafeRawBufferPointer
  /// The caller's name for this write, handed back by its completion.
  public var tag: Int

  public init(offset: Int, bytes: UnsafeRawBufferPointer, tag: Int) {
    self.offset = offset
    self.bytes = bytes
    self.tag = tag
  }
}

/// A write that is done, well or badly; its bytes are the caller's again.
public struct WriteCompletion: Sendable {
  public var tag: Int
  public var byteCount: Int
  public var failure: BlockIOError?
}

/// A file of fixed length that one thread of its own writes to, past the page cache where the file
/// system agrees.
///
/// One thread uses a writer. Writes are done in the order they were queued; queueing and taking
/// completions allocates nothing. Destroying a writer ends its thread after the write in work.
public final class FileWriter {
  public let path: String
  /// The most writes that can be pending.
  public let capacity: Int
  /// Writes queued and not taken back.
  public private(set) var pendingCount = 0

  private let worker: WriterThread

  /// Creates or empties `path` and gives it `byteCount` bytes, which take no room before they are written.
  ///
  /// - Throws: ``BlockIOError`` where the file cannot be made.
  public convenience init(
    path: String, byteCount: Int, capacity: Int
  ) throws(BlockIOError) {
    try self.init(path: path, byteCount: byteCount, capacity: capacity, hooks: DeviceHooks())
  }

  package init(
    path: String, byteCount: Int, capacity: Int, hooks: DeviceHooks
  ) throws(BlockIOError) {
    let descriptor = try Self.open(path, hooks)
    guard ftruncate(descriptor.rawValue, byteCount) == 0 else {
      throw BlockIOError(
        .create, path: path, byteCount: byteCount, reason: .system(errno: errno))
    }
    self.path = path
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

  /// Takes a completion; nil where none is there yet, or nothing is pending.
  ///
  /// - Parameter waiting: whether to sleep until there is one.
  public func takeCompletion(waiting: Bool) -> WriteCompletion? {
    guard pendingCount > 0, let completion = worker.takeCompletion(waiting: waiting) else {
      return nil
    }
    pendingCount -= 1
    return completion
  }

  /// A name in `folder` that no file has, for a file that nobody else opens.
  public static func temporaryPath(inFolder folder: String) throws(BlockIOError) -> String {
    var template = Array("\(folder)/flashinfer-kv-XXXXXX".utf8CString)
    let descriptor = mkstemp(&template)
    guard descriptor >= 0 else {
      throw BlockIOError(.create, path: folder, reason: .system(errno: errno))
    }
    close(descriptor)
    return String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
  }

  /// Takes away the file's name; what has it open goes on.
  public func removeName() { unlink(path) }

  private static func open(
    _ path: String, _ hooks: DeviceHooks
  ) throws(BlockIOError) -> UnixDescriptor {
    let flags = O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC
    var descriptor: Int32 = -1
    if !hooks.refusesDirectOpen { descriptor = Glibc.open(path, flags | __O_DIRECT, 0o600) }
    if descriptor < 0, hooks.refusesDirectOpen || errno == EINVAL {
      descriptor = Glibc.open(path, flags, 0o600)
    }
    guard descriptor >= 0 else {
      throw BlockIOError(.create, path: path, reason: .system(errno: errno))
    }
    return UnixDescriptor(owning: descriptor)
  }
}

/// The thread of a ``FileWriter`` and what it shares with its coordinator.
private final class WriterThread: BackgroundWork, @unchecked Sendable {
  // Safety: queues, requests and results are touched with `monitor` held; `thread` by the coordinator
  // alone; everything else is constant after initialisation.

  private let path: String
  private let descriptor: UnixDescriptor
  private let hooks: DeviceHooks
  private let monitor = Monitor()
  private var requests: [WriteRequest?]
  private var failures: [BlockIOError?]
  private var free: SlotQueue
  private var pending: SlotQueue
  private var done: SlotQueue
  private var isStopping = false
  private var thread: BackgroundThread?

  init(
    path: String, descriptor: consuming UnixDescriptor, capacity: Int, hooks: DeviceHooks
  ) throws(BlockIOError) {
    self.path = path
    self.descriptor = descriptor
    self.hooks = hooks
    requests = Array(repeating: nil, count: capacity)
    failures = Array(repeating: nil, count: capacity)
    free = SlotQueue(capacity: capacity)
    for slot in 0..<capacity { free.append(slot) }
    pending = SlotQueue(capacity: capacity)
    done = SlotQueue(capacity: capacity)
    do throws(ThreadError) { thread = try BackgroundThread(self) } catch {
      throw BlockIOError(error, path: path)
    }
  }

  func stop() {
    monitor.locked { isStopping = true }
    monitor.wakeAll()
    thread?.join()
  }

  func enqueue(_ request: WriteRequest) {
    monitor.locked {
      guard let slot = free.removeFirst() else { return }
      requests[slot] = request
      pending.append(slot)
    }
    monitor.wakeAll()
  }

  func takeCompletion(waiting: Bool) -> WriteCompletion? {
    monitor.locked {
      while done.isEmpty, waiting { monitor.sleep() }
      guard let slot = done.removeFirst(), let request = requests[slot] else { return nil }
      defer {
        requests[slot] = nil
        failures[slot] = nil
        free.append(slot)
      }
      return WriteCompletion(
        tag: request.tag, byteCount: request.bytes.count, failure: failures[slot])
    }
  }

  func run() {
    while let (slot, request) = takePending() {
      let failure = write(request)
      monitor.locked {
        failures[slot] = failure
        done.append(slot)
      }
      monitor.wakeAll()
    }
  }

  private func takePending() -> (Int, WriteRequest)? {
    monitor.locked {
      while true {
        if isStopping { return nil }
        if let slot = pending.removeFirst(), let request = requests[slot] {
          return (slot, request)
        }
        monitor.sleep()
      }
    }
  }

  /// Writes a request to its end; returns why that failed if it did.
  private func write(_ request: WriteRequest) -> BlockIOError? {
    var (written, fruitlessCount) = (0, 0)
    while written < request.bytes.count {
      let rest = UnsafeRawBufferPointer(rebasing: request.bytes[written...])
      var result: Int
      if let refusal = hooks.writeErrno?(request.offset + written), refusal != 0 {
        result = -Int(refusal)
      } else {
        result = pwrite(
          descriptor.rawValue, rest.baseAddress, rest.count, request.offset + written)
        if result < 0 { result = -Int(errno) }
      }
      if result > 0 {
        // What is left must be aligned as direct writes are.
        let reached = written + result
        let usable =
          reached == request.bytes.count ? reached : reached & ~(FileSet.directAlignment - 1)
        fruitlessCount = usable > written ? 0 : fruitlessCount + 1
        written = usable
        if fruitlessCount <= Transfer.maximumFruitlessCount { continue }
      }
      fruitlessCount += 1
      if result == -Int(EINVAL), descriptor.bypassesPageCache,
        descriptor.setBypassingPageCache(false)
      {
        continue
      }
      if result == -Int(EINTR), fruitlessCount <= Transfer.maximumFruitlessCount { continue }
      return BlockIOError(
        .write, path: path, offset: request.offset + written, byteCount: rest.count,
        reason: .system(errno: result < 0 ? Int32(-result) : EIO))
    }
    return nil
  }
}
