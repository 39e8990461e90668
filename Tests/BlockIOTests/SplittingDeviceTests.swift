import BlockIO
import Glibc
import Synchronization
import TensorBasics
import TestSupport
import Testing

/// One logical file on several files: striped or mirrored, every back end.
@Suite struct SplittingDeviceTests {
  /// The members of `bytes` under `layout`, headers of 0xEE.
  private static func members(_ bytes: [UInt8], _ layout: StripeLayout) -> [TemporaryFile] {
    var members = [[UInt8]](
      repeating: [UInt8](repeating: 0xEE, count: layout.headerByteCount),
      count: layout.memberCount)
    for (number, byte) in bytes.enumerated() {
      members[number / layout.unitByteCount % layout.memberCount].append(byte)
    }
    return members.map { TemporaryFile($0) }
  }

  private func expectRandomReads(
    of device: any BlockDevice, bytes: [UInt8], using generator: inout SeededGenerator,
    _ what: String
  ) throws {
    let extents = (0..<30).map { _ in
      let start = Int.random(in: 0..<bytes.count, using: &generator) / 4096 * 4096
      return Extent(
        fileIndex: 0, offset: start,
        byteCount: Int.random(in: 1...150, using: &generator) * 4096)
    }
    for (extent, found) in zip(extents, try readAll(extents, of: device)) {
      let end = min(extent.endOffset, bytes.count)
      #expect(found == Array(bytes[extent.offset..<end]), "\(what), \(extent)")
    }
    #expect(device.inFlight == 0)
  }

  @Test(arguments: backends)
  func `Reads through stripes are the bytes of the plain file`(backend: StorageBackend) throws {
    for seed in UInt64(0)..<12 {
      var generator = SeededGenerator(seed: seed)
      let bytes = randomBytes(Int.random(in: 1...900_000, using: &generator), seed: seed)
      let layout = StripeLayout(
        unitByteCount: 4096 * Int.random(in: 1...40, using: &generator),
        memberCount: Int.random(in: 1...5, using: &generator),
        headerByteCount: 4096, byteCount: bytes.count)
      let files = Self.members(bytes, layout)
      defer { extendLifetime(files) }
      // A shallow inner device has room for few of the parts.
      let inner = try openDevice(
        paths: files.map(\.path), backend: backend,
        queueDepth: Int.random(in: 1...8, using: &generator))
      let device = SplittingDevice(
        inner, mapping: .stripe(layout), queueDepth: Int.random(in: 1...12, using: &generator))
      #expect(device.fileByteCounts == [bytes.count])
      try expectRandomReads(
        of: device, bytes: bytes, using: &generator, "seed \(seed), \(layout)")
      let statistics = device.statistics
      #expect(statistics.requests >= 30 && statistics.bytesRead > 0)
    }
  }

  @Test(arguments: backends)
  func `Reads of a mirror are the bytes, from every copy`(backend: StorageBackend) throws {
    for copyCount in 1...3 {
      let bytes = randomBytes(1_500_001, seed: UInt64(copyCount))
      let files = (0..<copyCount).map { _ in TemporaryFile(bytes) }
      defer { extendLifetime(files) }
      let read = (0..<copyCount).map { _ in ByteTally() }
      var hooks = DeviceHooks()
      hooks.filterResult = { attempt in
        read[attempt.fileIndex].add(max(0, attempt.result))
        return attempt.result
      }
      let device = try openDevice(
        paths: files.map(\.path), mapping: .mirror(copyCount: copyCount, byteCounts: [bytes.count]),
        backend: backend, queueDepth: 6, hooks: hooks)
      var generator = SeededGenerator(seed: 3)
      try expectRandomReads(of: device, bytes: bytes, using: &generator, "\(copyCount) copies")
      let shares = read.map(\.total)
      let even = shares.reduce(0, +) / copyCount
      #expect(shares.allSatisfy { $0 > even / 2 }, "\(shares)")
    }
  }

  @Test(arguments: backends)
  func `Several files are mirrored file by file`(backend: StorageBackend) throws {
    let contents = (0..<3).map { randomBytes([500_001, 4096, 900_000][$0], seed: UInt64($0)) }
    let files = (0..<2).flatMap { _ in contents.map { TemporaryFile($0) } }
    defer { extendLifetime(files) }
    let read = files.map { _ in ByteTally() }
    var hooks = DeviceHooks()
    hooks.filterResult = { attempt in
      read[attempt.fileIndex].add(max(0, attempt.result))
      return attempt.result
    }
    let device = try openDevice(
      paths: files.map(\.path), mapping: .mirror(copyCount: 2, byteCounts: contents.map(\.count)),
      backend: backend, queueDepth: 6, hooks: hooks)
    #expect(device.fileByteCounts == contents.map(\.count))
    var generator = SeededGenerator(seed: 5)
    for _ in 0..<20 {
      let extents = randomExtents(
        6, fileByteCount: 900_000, alignment: device.alignment, using: &generator
      ).map { extent in
        let index = Int.random(in: 0..<3, using: &generator)
        let start = extent.offset % contents[index].count / device.alignment * device.alignment
        return Extent(fileIndex: index, offset: start, byteCount: extent.byteCount)
      }
      for (extent, found) in zip(extents, try readAll(extents, of: device)) {
        let end = min(extent.endOffset, contents[extent.fileIndex].count)
        #expect(found == Array(contents[extent.fileIndex][extent.offset..<end]), "\(extent)")
      }
    }
    #expect(read.allSatisfy { $0.total > 0 }, "\(read.map(\.total))")
  }

  @Test(arguments: backends)
  func `Small reads go to each copy in turn`(backend: StorageBackend) throws {
    let bytes = randomBytes(1 << 16, seed: 1)
    let files = [TemporaryFile(bytes), TemporaryFile(bytes)]
    defer { extendLifetime(files) }
    let read = [ByteTally(), ByteTally()]
    var hooks = DeviceHooks()
    hooks.filterResult = { attempt in
      read[attempt.fileIndex].add(1)
      return attempt.result
    }
    let device = try openDevice(
      paths: files.map(\.path), mapping: .mirror(copyCount: 2, byteCounts: [bytes.count]),
      backend: backend, queueDepth: 1, hooks: hooks)
    for _ in 0..<10 {
      _ = try readAll([Extent(fileIndex: 0, offset: 4096, byteCount: 4096)], of: device)
    }
    #expect(read.map(\.total) == [5, 5])
  }

  @Test func `A slow copy is given less to do`() throws {
    let bytes = randomBytes(1 << 20, seed: 8)
    let files = [TemporaryFile(bytes), TemporaryFile(bytes)]
    defer { extendLifetime(files) }
    let read = [ByteTally(), ByteTally()]
    var hooks = DeviceHooks()
    hooks.filterResult = { attempt in
      if attempt.fileIndex == 0 { usleep(20_000) }
      read[attempt.fileIndex].add(attempt.result)
      return attempt.result
    }
    let device = try openDevice(
      paths: files.map(\.path), mapping: .mirror(copyCount: 2, byteCounts: [bytes.count]),
      backend: .pread, queueDepth: 4, hooks: hooks)
    let whole = Extent(fileIndex: 0, offset: 0, byteCount: bytes.count)
    for found in try readAll(Array(repeating: whole, count: 60), of: device) {
      #expect(found == bytes)
    }
    #expect(read[1].total > read[0].total, "\(read.map(\.total))")
  }

  @Test(arguments: backends)
  func `A drive that fails is named with its offset, and others go on`(
    backend: StorageBackend
  ) throws {
    let bytes = randomBytes(40 * 4096, seed: 2)
    let layout = StripeLayout(
      unitByteCount: 8192, memberCount: 3, headerByteCount: 4096, byteCount: bytes.count)
    let files = Self.members(bytes, layout)
    defer { extendLifetime(files) }
    for depth in [1, 2, 30] {
      var hooks = DeviceHooks()
      // Unit 4 is the second of member 1.
      hooks.filterResult = {
        $0.fileIndex == 1 && $0.offset == 4096 + 8192 ? -Int(EIO) : $0.result
      }
      let inner = try openDevice(
        paths: files.map(\.path), backend: backend, queueDepth: depth, hooks: hooks)
      let device = SplittingDevice(inner, mapping: .stripe(layout), queueDepth: 4)
      let buffer = try AlignedBuffer(byteCount: 3 * bytes.count)
      let ranges = [0..<4 * 8192, 0..<bytes.count, 5 * 8192..<bytes.count]
      for (tag, range) in ranges.enumerated() {
        try device.submit(
          ReadRequest(
            fileIndex: 0, offset: range.lowerBound,
            destination: UnsafeMutableRawBufferPointer(
              start: buffer.address + tag * bytes.count, count: range.count),
            tag: 70 + UInt64(tag)))
      }
      #expect(device.inFlight == 3)
      var completed: [UInt64] = []
      var failures: [BlockIOError] = []
      while device.inFlight > 0 {
        do throws(BlockIOError) {
          if let done = try device.reap(waiting: true, timeoutMilliseconds: nil) {
            completed.append(done.tag)
          }
        } catch { failures.append(error) }
      }
      #expect(completed.sorted() == [70, 72], "depth \(depth)")
      #expect(failures.count == 1)
      #expect(failures.first?.path == files[1].path && failures.first?.offset == 4096 + 8192)
      #expect(failures.first?.errno == EIO && failures.first?.tag == 71)
      #expect(inner.inFlight == 0, "a failed read's parts are waited for")
      let last = UnsafeRawBufferPointer(
        start: buffer.address + 2 * bytes.count, count: ranges[2].count)
      #expect(Array(last) == Array(bytes[ranges[2]]))
    }
  }

  @Test(arguments: backends)
  func `Short reads and interruptions change no byte`(backend: StorageBackend) throws {
    let bytes = randomBytes(700_000, seed: 4)
    let layout = StripeLayout(
      unitByteCount: 65536, memberCount: 2, headerByteCount: 4096, byteCount: bytes.count)
    let files = Self.members(bytes, layout)
    defer { extendLifetime(files) }
    let calls = ByteTally()
    var hooks = DeviceHooks()
    hooks.filterResult = { attempt in
      switch calls.add(1) % 5 {
      case 0: -Int(EINTR)
      case 1 where attempt.result > 8192: 4096 + attempt.result / 3
      default: attempt.result
      }
    }
    let device = try openDevice(
      paths: files.map(\.path), mapping: .stripe(layout), backend: backend, queueDepth: 6,
      hooks: hooks)
    var generator = SeededGenerator(seed: 5)
    try expectRandomReads(of: device, bytes: bytes, using: &generator, "faults")
    #expect(device.statistics.retries > 0)
  }

  @Test(arguments: backends)
  func `A member that changed is noticed, and one cut short is an error`(
    backend: StorageBackend
  ) throws {
    let bytes = randomBytes(300_000, seed: 6)
    let layout = StripeLayout(
      unitByteCount: 4096, memberCount: 2, headerByteCount: 4096, byteCount: bytes.count)
    let files = Self.members(bytes, layout)
    defer { extendLifetime(files) }
    let device = try openDevice(
      paths: files.map(\.path), mapping: .stripe(layout), backend: backend)
    try device.checkUnchanged()
    truncate(files[1].path, 8192)
    #expect(throws: BlockIOError.self) { try device.checkUnchanged() }
    let buffer = try AlignedBuffer(byteCount: 1 << 16)
    do throws(BlockIOError) {
      _ = try device.readNow(fileIndex: 0, offset: 0, into: buffer.bytes)
      Issue.record("read")
    } catch {
      #expect(error.path == files[1].path && error.reason == .truncated)
    }
  }
}

/// A count that threads may add to.
private final class ByteTally: Sendable {
  private let count = Atomic<Int>(0)

  @discardableResult
  func add(_ number: Int) -> Int { count.add(number, ordering: .relaxed).oldValue }

  var total: Int { count.load(ordering: .relaxed) }
}
