import BlockIO
import Glibc
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
    let writer = try FileWriter(
      path: path, byteCount: 16 * Self.pageByteCount, capacity: 3, hooks: hooks)
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
          offset: page * Self.pageByteCount, bytes: UnsafeRawBufferPointer(bytes), tag: page))
    }
    while writer.pendingCount > 0 { take() }
    return failures
  }

  @Test(arguments: [true, false])
  func `What is written is there, what is not is zero`(refusesDirect: Bool) throws {
    let folder = TemporaryFolder()
    defer { extendLifetime(folder) }
    var hooks = DeviceHooks()
    hooks.refusesDirectOpen = refusesDirect
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

  @Test func `A write that fails says where; those behind it are tried`() throws {
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
      try FileWriter(path: "/nowhere/file", byteCount: 4096, capacity: 1)
    }
    #expect(throws: BlockIOError.self) { try FileWriter.temporaryPath(inFolder: "/nowhere") }
  }
}
