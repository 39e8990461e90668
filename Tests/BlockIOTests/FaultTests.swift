import BlockIO
import Glibc
import Synchronization
import TensorBasics
import TestSupport
import Testing

@Suite struct FaultTests {
  private static let byteCount = 200_000
  private static let bytes = randomBytes(byteCount, seed: 7)

  /// Faults drawn from a seed, from any thread.
  private final class Faults: Sendable {
    private let generator: Mutex<SeededGenerator>
    init(seed: UInt64) { generator = Mutex(SeededGenerator(seed: seed)) }

    func draw(_ upperBound: Int) -> Int {
      generator.withLock { Int.random(in: 0..<upperBound, using: &$0) }
    }
  }

  private func device(
    _ file: TemporaryFile, _ backend: StorageBackend, _ change: (inout DeviceHooks) -> Void
  ) throws -> any BlockDevice {
    var hooks = DeviceHooks()
    change(&hooks)
    return try openDevice(paths: [file.path], backend: backend, queueDepth: 6, hooks: hooks)
  }

  @Test(arguments: backends)
  func `Short reads and interruptions change no byte`(backend: StorageBackend) throws {
    let file = TemporaryFile(Self.bytes)
    defer { extendLifetime(file) }
    for seed in UInt64(0)..<10 {
      let faults = Faults(seed: seed)
      let device = try device(file, backend) { hooks in
        hooks.filterResult = { attempt in
          switch faults.draw(6) {
          case 0: -Int(EINTR)
          case 1: -Int(EAGAIN)
          case 2 where attempt.result > 8192: attempt.result / 2
          case 3 where attempt.result > 4096: 4096 + faults.draw(attempt.result - 4096)
          default: attempt.result
          }
        }
      }
      var generator = SeededGenerator(seed: seed)
      let extents = randomExtents(
        40, fileByteCount: Self.byteCount, alignment: device.alignment, using: &generator)
      for (extent, found) in zip(extents, try readAll(extents, of: device)) {
        let end = min(extent.offset + extent.byteCount, Self.byteCount)
        #expect(found == Array(Self.bytes[extent.offset..<end]), "seed \(seed)")
      }
      #expect(device.statistics.retries > 0)
    }
  }

  @Test(arguments: backends)
  func `A read that fails says what, where and why`(backend: StorageBackend) throws {
    let file = TemporaryFile(Self.bytes)
    defer { extendLifetime(file) }
    let device = try device(file, backend) { hooks in
      hooks.filterResult = { $0.offset == 65536 ? -Int(EIO) : $0.result }
    }
    let good = Extent(fileIndex: 0, offset: 0, byteCount: 4096)
    let bad = Extent(fileIndex: 0, offset: 65536, byteCount: 8192)
    do {
      _ = try readAll([good, bad, good], of: device)
      Issue.record("read")
    } catch let error as BlockIOError {
      #expect(error.path == file.path && error.offset == 65536 && error.errno == EIO)
      #expect(error.operation == .read && !error.isMissingFile)
    }
    #expect(try readAll([good], of: device) == [Array(Self.bytes[..<4096])])
  }

  @Test(arguments: backends)
  func `Reads that never bring anything end`(backend: StorageBackend) throws {
    let file = TemporaryFile(Self.bytes)
    defer { extendLifetime(file) }
    for errno in [EINTR, EAGAIN] {
      let device = try device(file, backend) { $0.filterResult = { _ in -Int(errno) } }
      #expect(throws: BlockIOError.self) {
        try readAll([Extent(fileIndex: 0, offset: 0, byteCount: 4096)], of: device)
      }
    }
  }

  /// With every error number that file systems refuse direct I/O with.
  @Test(arguments: [StorageBackend.uring, .pread], [EINVAL, EOPNOTSUPP, ENOTSUP, ENOSYS])
  func `Direct reads that are refused go on through the page cache`(
    backend: StorageBackend, errno: Int32
  ) throws {
    let file = TemporaryFile(Self.bytes)
    defer { extendLifetime(file) }
    let device = try device(file, backend) { hooks in
      hooks.filterResult = { $0.isDirect ? -Int(errno) : $0.result }
    }
    let extents = (0..<10).map { Extent(fileIndex: 0, offset: $0 * 8192, byteCount: 8192) }
    let found = try readAll(extents, of: device)
    for (extent, bytes) in zip(extents, found) {
      #expect(bytes == Array(Self.bytes[extent.offset..<extent.endOffset]))
    }
    let refused = try self.device(file, backend) { $0.directOpenErrno = errno }
    #expect(try readAll(extents, of: refused) == found)
    for notes in [device.notes, refused.notes] {
      #expect(notes.count == 1 && notes[0].contains("O_DIRECT"))
    }
  }

  /// Other refusals of opening are errors, and not for direct I/O.
  @Test(arguments: [EACCES, EMFILE, EIO])
  func `A file that cannot be opened is not opened otherwise`(errno: Int32) throws {
    let file = TemporaryFile(Self.bytes)
    defer { extendLifetime(file) }
    #expect {
      try self.device(file, .pread) { $0.directOpenErrno = errno }
    } throws: { ($0 as? BlockIOError)?.errno == errno }
  }

  /// A few refusals in a row: after ever longer pauses the read is made again.
  @Test(arguments: backends, [EAGAIN, EBUSY, ENOMEM])
  func `Reads that the system has no room for at the moment come in the end`(
    backend: StorageBackend, errno: Int32
  ) throws {
    let file = TemporaryFile(Self.bytes)
    defer { extendLifetime(file) }
    let refusals = Mutex([Int: Int]())
    let device = try device(file, backend) { hooks in
      hooks.filterResult = { attempt in
        refusals.withLock { refusals in
          refusals[attempt.offset, default: 0] += 1
          return refusals[attempt.offset, default: 0] <= 4 ? -Int(errno) : attempt.result
        }
      }
    }
    let extents = (0..<6).map { Extent(fileIndex: 0, offset: $0 * 8192, byteCount: 8192) }
    for (extent, bytes) in zip(extents, try readAll(extents, of: device)) {
      #expect(bytes == Array(Self.bytes[extent.offset..<extent.endOffset]))
    }
    #expect(device.statistics.retries == 24)
  }

  /// A refused read does not hold up whoever waits with a limit, so that a request to stop is heard.
  @Test(arguments: backends)
  func `Reads that are tried again can be given up`(backend: StorageBackend) throws {
    let file = TemporaryFile(Self.bytes)
    defer { extendLifetime(file) }
    let device = try device(file, backend) { $0.filterResult = { _ in -Int(EAGAIN) } }
    let buffer = try AlignedBuffer(byteCount: 4096)
    try device.submit(
      ReadRequest(fileIndex: 0, offset: 0, destination: buffer.bytes, tag: 1))
    try #expect(device.reap(waiting: true, timeoutMilliseconds: 5) == nil)
    #expect(device.inFlight == 1)
    let isRaised = CancellationFlag()
    isRaised.raise()
    device.drain(unless: isRaised)
    #expect(device.inFlight == 0)
  }
}
