import BlockIO
import Glibc
import Synchronization
import TensorBasics
import TestSupport
import Testing

/// A file written by a thread of its own.
@Suite struct FileWriterTests {
  private static let pageByteCount = AlignedBuffer.pageByteCount

  /// Writes page `index`, filled with `index + 1`, of each of `pages`; returns what failed.
  private func write(
    _ pages: [Int], to path: String, hooks: DeviceHooks = DeviceHooks()
  ) throws -> [BlockIOError] {
    let buffer = try AlignedBuffer(byteCount: pages.count * Self.pageByteCount)
    let file = try WritableFile(
      .named(path), byteCount: 16 * Self.pageByteCount, hooks: hooks)
    let writer = try FileWriter(capacity: 3)
    var failures: [BlockIOError] = []
    func take() {
      guard let completion = writer.takeCompletion(waiting: true) else { return }
      #expect(completion.byteCount == Self.pageByteCount)
      if let failure = completion.failure { failures.append(failure) }
    }
    for (index, page) in pages.enumerated() {
      if writer.pendingCount == writer.capacity { take() }
      let bytes = UnsafeMutableRawBufferPointer(
        start: buffer.address + index * Self.pageByteCount, count: Self.pageByteCount)
      bytes.initializeMemory(as: UInt8.self, repeating: UInt8(page + 1))
      writer.enqueue(
        WriteRequest(
          file: file, offset: page * Self.pageByteCount, bytes: UnsafeRawBufferPointer(bytes),
          tag: page))
    }
    while writer.pendingCount > 0 { take() }
    return failures
  }

  @Test(arguments: [0, EINVAL, EOPNOTSUPP])
  func `What is written is there, what is not is zero`(directOpenErrno: Int32) throws {
    let folder = TemporaryFolder()
    defer { extendLifetime(folder) }
    var hooks = DeviceHooks()
    hooks.directOpenErrno = directOpenErrno
    let pages = [7, 0, 3, 15, 4, 5]
    #expect(try write(pages, to: folder.path + "/file", hooks: hooks).isEmpty)
    let bytes = folder.read("file")
    #expect(bytes.count == 16 * Self.pageByteCount)
    for page in 0..<16 {
      let expected = pages.contains(page) ? UInt8(page + 1) : 0
      let range = page * Self.pageByteCount..<(page + 1) * Self.pageByteCount
      #expect(bytes[range].allSatisfy { $0 == expected }, "page \(page)")
    }
  }

  @Test func `A write that fails says where; those after it are tried`() throws {
    let folder = TemporaryFolder()
    defer { extendLifetime(folder) }
    var hooks = DeviceHooks()
    hooks.writeErrno = { $0 == 3 * 4096 ? ENOSPC : 0 }
    let failures = try write([1, 3, 2], to: folder.path + "/file", hooks: hooks)
    #expect(failures.count == 1 && failures[0].errno == ENOSPC && failures[0].offset == 3 * 4096)
    #expect(folder.read("file")[2 * 4096] == 3)
  }

  @Test func `A folder that is not there is refused`() {
    #expect(throws: BlockIOError.self) {
      try WritableFile(.named("/nowhere/file"), byteCount: 4096)
    }
    #expect(throws: BlockIOError.self) {
      try WritableFile(.temporary(folder: "/nowhere"), byteCount: 4096)
    }
  }

  @Test func `A name that is a link is not followed`() throws {
    let folder = TemporaryFolder()
    defer { extendLifetime(folder) }
    folder.write("precious", [1, 2, 3])
    symlink(folder.path + "/precious", folder.path + "/link")
    #expect(throws: BlockIOError.self) {
      try WritableFile(.named(folder.path + "/link"), byteCount: 4096)
    }
    #expect(folder.read("precious") == [1, 2, 3])
  }

  /// With direct I/O and where that is refused.
  @Test(arguments: [0, EOPNOTSUPP])
  func `A temporary file has no name at any time, and is read by its descriptor`(
    directOpenErrno: Int32
  ) throws {
    let folder = TemporaryFolder()
    defer { extendLifetime(folder) }
    var hooks = DeviceHooks()
    hooks.directOpenErrno = directOpenErrno
    let file = try WritableFile(
      .temporary(folder: folder.path), byteCount: 8192, hooks: hooks)
    let writer = try FileWriter(capacity: 1)
    #expect(folder.entries.isEmpty)
    let page = try AlignedBuffer(byteCount: 4096)
    page.bytes.initializeMemory(as: UInt8.self, repeating: 7)
    writer.enqueue(
      WriteRequest(
        file: file, offset: 4096, bytes: UnsafeRawBufferPointer(page.bytes), tag: 0))
    #expect(writer.takeCompletion(waiting: true)?.failure == nil)
    let device = try openDevice(paths: [file.readingPath], queueDepth: 1)
    let found = try readAll([Extent(fileIndex: 0, offset: 4096, byteCount: 4096)], of: device)
    #expect(found == [[UInt8](repeating: 7, count: 4096)])
  }

  /// `EAGAIN` and its like a few times: the write is made again.
  @Test(arguments: [EAGAIN, EBUSY, ENOMEM, EINTR])
  func `A write that the system has no room for at the moment is made again`(
    errno: Int32
  ) throws {
    let folder = TemporaryFolder()
    defer { extendLifetime(folder) }
    let left = Mutex(4)
    var hooks = DeviceHooks()
    hooks.writeErrno = { _ in
      left.withLock { left in
        left -= 1
        return left >= 0 ? errno : 0
      }
    }
    #expect(try write([1, 2], to: folder.path + "/file", hooks: hooks).isEmpty)
    #expect(folder.read("file")[4096] == 2)
  }

  /// A write that the drive never ends is waited for in steps, and given up for good.
  @Test func `A write that hangs is waited for no longer than asked, and can be given up`() throws {
    let folder = TemporaryFolder()
    defer { extendLifetime(folder) }
    let hangs = Atomic(true)
    var hooks = DeviceHooks()
    hooks.writeErrno = { _ in
      while hangs.load(ordering: .acquiring) { usleep(1000) }
      return 0
    }
    let address: UnsafeMutableRawPointer
    do {
      let page = try AlignedBuffer(byteCount: 4096)
      address = page.address
      let file = try WritableFile(
        .named(folder.path + "/file"), byteCount: 4096, hooks: hooks)
      let writer = try FileWriter(capacity: 1)
      writer.enqueue(
        WriteRequest(file: file, offset: 0, bytes: UnsafeRawBufferPointer(page.bytes), tag: 0))
      #expect(writer.takeCompletion(waiting: true, timeoutMilliseconds: 5) == nil)
      writer.abandonWrites()
      #expect(writer.pendingCount == 0)
    }
    // The page is still there for the thread to write from.
    #expect(address.load(as: UInt8.self) == 0)
    hangs.store(false, ordering: .releasing)
  }
}
