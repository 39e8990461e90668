import BlockIO
import Glibc
import TensorBasics
import TestSupport
import Testing

@Suite struct BackendTests {
  private static let byteCount = 300_001

  @Test(arguments: backends)
  func `Random ranges come back as they lie in the file`(backend: StorageBackend) throws {
    let bytes = randomBytes(Self.byteCount, seed: 1)
    let file = TemporaryFile(bytes)
    defer { extendLifetime(file) }
    for seed in UInt64(0)..<8 {
      var generator = SeededGenerator(seed: seed)
      let device = try openDevice(
        paths: [file.path], backend: backend, queueDepth: Int.random(in: 1...20, using: &generator))
      #expect(device.fileByteCounts == [Self.byteCount])
      let extents = randomExtents(
        60, fileByteCount: Self.byteCount, alignment: device.alignment, using: &generator)
      for (extent, found) in zip(extents, try readAll(extents, of: device)) {
        let end = min(extent.offset + extent.byteCount, Self.byteCount)
        #expect(found == Array(bytes[extent.offset..<end]), "seed \(seed), \(extent)")
      }
      let statistics = device.statistics
      #expect(statistics.requests == 60 && statistics.latency.count == 60)
      let wanted = extents.reduce(0) { $0 + min($1.byteCount, Self.byteCount - $1.offset) }
      #expect(statistics.bytesRead >= wanted)
      #expect(device.inFlight == 0)
    }
  }

  @Test(arguments: backends)
  func `New memory where registered memory lay is read into`(backend: StorageBackend) throws {
    let bytes = randomBytes(4 << 20, seed: 3)
    let file = TemporaryFile(bytes)
    defer { extendLifetime(file) }
    let device = try openDevice(paths: [file.path], backend: backend, queueDepth: 4)
    let byteCount = 1 << 20
    let address = try #require(
      mmap(nil, byteCount, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0))
    defer { munmap(address, byteCount) }
    let region = UnsafeMutableRawBufferPointer(start: address, count: byteCount)
    // More often than a ring has places for regions.
    for round in 0..<70 {
      mmap(
        address, byteCount, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0)
      device.register(region)
      let offset = (round % 64) * (64 << 10)
      #expect(
        try device.readNow(
          fileIndex: 0, offset: offset, into: .init(rebasing: region[..<(64 << 10)])) == 64 << 10)
      #expect(bytes[offset..<offset + (64 << 10)].elementsEqual(region[..<(64 << 10)]))
      device.unregister(region)
    }
    #expect(device.notes.isEmpty)
  }

  @Test(arguments: backends)
  func `Several files are told apart`(backend: StorageBackend) throws {
    let files = (0..<3).map { TemporaryFile(randomBytes(8192, seed: UInt64($0))) }
    let device = try openDevice(paths: files.map(\.path), backend: backend, queueDepth: 4)
    let extents = (0..<3).map { Extent(fileIndex: $0, offset: 4096, byteCount: 4096) }
    let found = try readAll(extents, of: device)
    for index in 0..<3 {
      #expect(found[index] == Array(randomBytes(8192, seed: UInt64(index))[4096..<8192]))
    }
    extendLifetime(files)
  }

  @Test(arguments: backends)
  func `Registered memory is read into all the same`(backend: StorageBackend) throws {
    let bytes = randomBytes(1 << 20, seed: 2)
    let file = TemporaryFile(bytes)
    defer { extendLifetime(file) }
    let buffer = try AlignedBuffer(byteCount: 1 << 20)
    let device = try openDevice(paths: [file.path], backend: backend, queueDepth: 8)
    device.register(buffer.bytes)
    for index in 0..<8 {
      try device.submit(
        ReadRequest(
          fileIndex: 0, offset: index << 17,
          destination: UnsafeMutableRawBufferPointer(
            start: buffer.address + index << 17, count: 1 << 17), tag: UInt64(index)))
    }
    try device.flush()
    while device.inFlight > 0 { _ = try device.reap(waiting: true, timeoutMilliseconds: nil) }
    #expect(Array(buffer.bytes) == bytes)
  }

  @Test(arguments: backends)
  func `Who waits for a read while there is none is told so and does not wait for ever`(
    backend: StorageBackend
  ) throws {
    let file = TemporaryFile([UInt8](repeating: 7, count: 1 << 16))
    defer { extendLifetime(file) }
    let buffer = try AlignedBuffer(byteCount: 1 << 16)
    let device = try openDevice(paths: [file.path], backend: backend, queueDepth: 8)
    #expect(throws: BlockIOError.self) { try device.nextCompletion() }
    for tag in UInt64(0)..<2 {
      try device.submit(
        ReadRequest(fileIndex: 0, offset: 0, destination: buffer.bytes, tag: tag))
      if tag == 0 { #expect(try device.nextCompletion().byteCount == 1 << 16) }
    }
    device.abandonReads()
    #expect(throws: BlockIOError.self) { try device.nextCompletion() }
  }

  @Test(arguments: backends)
  func `What cannot be read at random is refused by kind`(backend: StorageBackend) {
    func refusal(_ path: String) -> BlockIOError? {
      do throws(BlockIOError) {
        _ = try openDevice(paths: [path], backend: backend)
        return nil
      } catch { return error }
    }
    #expect(refusal("/nowhere/model.bin")?.isMissingFile == true)
    #expect(refusal("/var/tmp")?.description.contains("directory") == true)
    #expect(refusal("/dev/null")?.isMissingFile == false)
    let pipe = "/var/tmp/flashinfer-pipe-\(getpid())-\(backend)"
    mkfifo(pipe, 0o600)
    defer { unlink(pipe) }
    #expect(refusal(pipe)?.isMissingFile == false)
  }

  @Test(arguments: backends)
  func `A file that was replaced or changed is noticed`(backend: StorageBackend) throws {
    let file = TemporaryFile(randomBytes(8192, seed: 3))
    defer { extendLifetime(file) }
    let device = try openDevice(paths: [file.path], backend: backend)
    try device.checkUnchanged()
    let other = TemporaryFile(randomBytes(8192, seed: 4))
    rename(other.path, file.path)
    #expect(throws: BlockIOError.self) { try device.checkUnchanged() }
    let second = TemporaryFile(randomBytes(8192, seed: 3))
    let changed = try openDevice(paths: [second.path], backend: backend)
    truncate(second.path, 4096)
    #expect(throws: BlockIOError.self) { try changed.checkUnchanged() }
  }

  @Test(arguments: backends)
  func `A file cut short while open is an error with its offset`(backend: StorageBackend) throws {
    let file = TemporaryFile(randomBytes(1 << 16, seed: 5))
    defer { extendLifetime(file) }
    let device = try openDevice(paths: [file.path], backend: backend)
    truncate(file.path, 8192)
    do {
      _ = try readAll([Extent(fileIndex: 0, offset: 4096, byteCount: 32768)], of: device)
      Issue.record("read")
    } catch let error as BlockIOError {
      #expect(error.path == file.path && error.reason == .truncated)
      #expect((4096...8192).contains(error.offset ?? 0), "\(error)")
    }
  }

  @Test(arguments: backends)
  func `A file system without direct I/O works, with a note`(backend: StorageBackend) throws {
    guard access("/dev/shm", W_OK) == 0 else { return }
    let bytes = randomBytes(100_000, seed: 6)
    let file = TemporaryFile(bytes, folder: "/dev/shm")
    defer { extendLifetime(file) }
    let device = try openDevice(paths: [file.path], backend: backend)
    let extents = [Extent(fileIndex: 0, offset: 0, byteCount: 1 << 17)]
    #expect(try readAll(extents, of: device) == [bytes])
  }
}
