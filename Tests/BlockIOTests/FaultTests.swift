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

  @Test(arguments: [StorageBackend.uring, .pread])
  func `Direct reads that are refused go on through the page cache`(
    backend: StorageBackend
  ) throws {
    let file = TemporaryFile(Self.bytes)
    defer { extendLifetime(file) }
    let device = try device(file, backend) { hooks in
      hooks.filterResult = { $0.isDirect ? -Int(EINVAL) : $0.result }
    }
    let extents = (0..<10).map { Extent(fileIndex: 0, offset: $0 * 8192, byteCount: 8192) }
    let found = try readAll(extents, of: device)
    for (extent, bytes) in zip(extents, found) {
      #expect(bytes == Array(Self.bytes[extent.offset..<extent.endOffset]))
    }
    let refused = try self.device(file, backend) { $0.refusesDirectOpen = true }
    #expect(try readAll(extents, of: refused) == found)
    #expect(refused.notes.count == 1 && refused.notes[0].contains("O_DIRECT"))
  }

  @Test func `Without io_uring, auto reads by threads and says so`() throws {
    let file = TemporaryFile(Self.bytes)
    defer { extendLifetime(file) }
    let device = try device(file, .auto) { $0.ringSetupErrno = { EPERM } }
    #expect(device.notes.contains { $0.contains("io_uring") })
    let extent = Extent(fileIndex: 0, offset: 4096, byteCount: 4096)
    #expect(try readAll([extent], of: device) == [Array(Self.bytes[4096..<8192])])
    #expect(throws: BlockIOError.self) {
      try self.device(file, .uring) { $0.ringSetupErrno = { EPERM } }
    }
  }

  @Test func `Memory that may not be registered is read into unregistered`() throws {
    let file = TemporaryFile(Self.bytes)
    defer { extendLifetime(file) }
    let device = try device(file, .uring) { $0.registrationErrno = { _ in ENOMEM } }
    let buffer = try AlignedBuffer(byteCount: 1 << 16)
    device.register(buffer.bytes)
    #expect(device.notes.count <= 1)
    try device.submit(
      ReadRequest(fileIndex: 0, offset: 0, destination: buffer.bytes, tag: 9))
    let completion = try device.reap(waiting: true, timeoutMilliseconds: nil)
    #expect(completion == ReadCompletion(tag: 9, byteCount: 1 << 16))
    #expect(Array(buffer.bytes) == Array(Self.bytes[..<(1 << 16)]))
  }
}
