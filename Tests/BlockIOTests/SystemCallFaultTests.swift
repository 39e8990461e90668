import BlockIO
import Glibc
import TensorBasics
import TestSupport
import Testing

/// System calls that fail: every kind of call that reading and writing makes, one at a time.
///
/// A plan of faults holds for a whole process, so each test has one of its own.
@Suite struct SystemCallFaultTests {
  private static let byteCount = 200_000

  /// Opens, registers, reads and compares; what opening and reading say where they fail.
  private static func read(_ file: TemporaryFile, _ backend: StorageBackend) throws -> [String] {
    let expected = randomBytes(byteCount, seed: 7)
    let device = try openDevice(paths: [file.path], backend: backend, queueDepth: 4)
    let memory = try AlignedBuffer(byteCount: 2 << 20)
    defer { device.drain() }
    device.register(memory.bytes)
    let extents = (0..<12).map { Extent(fileIndex: 0, offset: $0 * 16384, byteCount: 16384) }
    for (extent, bytes) in zip(extents, try readAll(extents, of: device)) {
      #expect(bytes == Array(expected[extent.offset..<extent.endOffset]))
    }
    try device.checkUnchanged()
    device.unregister(memory.bytes)
    return device.notes
  }

  /// Every call of `work` fails once, with each of `errors`: it ends or throws, nothing stays open, and
  /// afterwards it works.
  private static func sweep(
    _ calls: [FaultPlan.Call], _ errors: [Int32], _ work: () throws -> Void
  ) {
    FaultPlan.begin()
    #expect(throws: Never.self) { try work() }
    let counts = FaultPlan.end().counts
    let descriptors = FaultSweep.openDescriptorCount
    for call in calls {
      for errno in errors {
        // Of many calls of one kind the first, the last, and some between.
        let count = counts[call] ?? 0
        #expect(count > 0, "\(call) is never made")
        for index in Set([0, 1, 2, count / 2, count - 1]).filter({ $0 >= 0 && $0 < count }) {
          FaultPlan.begin(call, index..<(index + 1), errno: errno)
          do { try work() } catch {
            let said = "\(error)"
            #expect(
              said.contains("errno") || error is AllocationError || said.contains("replaced"),
              "\(call) \(index), \(errno): \(said)")
          }
          let refusalCount = FaultPlan.end().refusalCount
          // How often the kernel is waited for after the first time is the drive's affair.
          #expect(
            refusalCount == 1 || (refusalCount == 0 && call == .awaitReads && index > 0),
            "\(call) \(index), \(errno)")
          #expect(FaultSweep.openDescriptorCount == descriptors, "\(call) \(index), \(errno)")
        }
      }
    }
    #expect(throws: Never.self) { try work() }
  }

  @Test func `Whatever system call fails once, io_uring reads or says why`() async {
    await #expect(processExitsWith: .success) {
      let file = TemporaryFile(randomBytes(Self.byteCount, seed: 7))
      Self.sweep(
        [
          .allocate, .open, .inspect, .adjust, .makeRing, .registerFiles, .registerMemory,
          .submitReads, .awaitReads, .completeRead,
        ], [EIO, EAGAIN, ENOMEM, EPERM]
      ) { _ = try Self.read(file, .uring) }
      extendLifetime(file)
    }
  }

  @Test func `Whatever system call fails once, pread threads read or say why`() async {
    await #expect(processExitsWith: .success) {
      let file = TemporaryFile(randomBytes(Self.byteCount, seed: 7))
      Self.sweep(
        [.allocate, .open, .inspect, .adjust, .read, .startThread], [EIO, EAGAIN, ENOMEM, EPERM]
      ) { _ = try Self.read(file, .pread) }
      extendLifetime(file)
    }
  }

  @Test func `Whatever system call fails once, a mapping reads or says why`() async {
    await #expect(processExitsWith: .success) {
      let file = TemporaryFile(randomBytes(Self.byteCount, seed: 7))
      Self.sweep([.allocate, .open, .inspect, .adjust, .map], [EIO, ENODEV, ENOMEM]) {
        _ = try Self.read(file, .mmap)
      }
      extendLifetime(file)
    }
  }

  @Test func `Whatever system call fails once, a file is written or it is said why`() async {
    await #expect(processExitsWith: .success) {
      let folder = TemporaryFolder()
      Self.sweep(
        [.allocate, .open, .openUnnamed, .truncate, .write, .startThread],
        [EIO, EAGAIN, ENOSPC, EMFILE]
      ) {
        for place in [
          WritableFile.Place.temporary(folder: folder.path), .named(folder.path + "/file"),
        ] {
          let file = try WritableFile(place, byteCount: 8192)
          let writer = try FileWriter(capacity: 2)
          let page = try AlignedBuffer(byteCount: 4096)
          for index in 0..<2 {
            writer.enqueue(
              WriteRequest(
                file: file, offset: 4096 * index, bytes: UnsafeRawBufferPointer(page.bytes),
                tag: index))
          }
          while writer.pendingCount > 0 {
            if let failure = writer.takeCompletion(waiting: true)?.failure { throw failure }
          }
        }
      }
      #expect(folder.entries.filter { $0 != "file" }.isEmpty)
      extendLifetime(folder)
    }
  }

  @Test func `Without io_uring, auto reads by threads and says so`() async {
    await #expect(processExitsWith: .success) {
      let file = TemporaryFile(randomBytes(Self.byteCount, seed: 7))
      for errno in [EPERM, ENOSYS, ENOMEM, EMFILE] {
        FaultPlan.begin(.makeRing, 0..<1000, errno: errno)
        let notes = try Self.read(file, .auto)
        #expect(notes.contains { $0.contains("io_uring") })
        #expect(throws: BlockIOError.self) { try Self.read(file, .uring) }
        _ = FaultPlan.end()
      }
      extendLifetime(file)
    }
  }

  @Test func `Memory that may not be registered is read into unregistered`() async {
    await #expect(processExitsWith: .success) {
      let file = TemporaryFile(randomBytes(Self.byteCount, seed: 7))
      FaultPlan.begin(.registerMemory, 1..<1000, errno: ENOMEM)
      let notes = try Self.read(file, .uring)
      #expect(notes.count == 1 && notes[0].contains("registered"))
      _ = FaultPlan.end()
      extendLifetime(file)
    }
  }

  /// The kernel takes no reads for a while, or for ever.
  @Test(arguments: [EAGAIN, EBUSY])
  func `Reads that the kernel does not take yet are handed to it again`(errno: Int32) async {
    await #expect(processExitsWith: .success) { [errno] in
      let file = TemporaryFile(randomBytes(Self.byteCount, seed: 7))
      FaultPlan.begin(.submitReads, 0..<6, errno: errno)
      _ = try Self.read(file, .uring)
      #expect(FaultPlan.end().refusalCount == 6)
      FaultPlan.begin(.submitReads, 0..<1000, errno: errno)
      #expect {
        try Self.read(file, .uring)
      } throws: { ($0 as? BlockIOError)?.operation == .submit }
      _ = FaultPlan.end()
      _ = try Self.read(file, .uring)
      extendLifetime(file)
    }
  }

  /// The kernel may start no threads for reads, and the system is short of memory as well.
  @Test func `Reads that the ring gives back are made otherwise, and can be given up meanwhile`()
    async
  {
    await #expect(processExitsWith: .success) {
      let file = TemporaryFile(randomBytes(Self.byteCount, seed: 7))
      FaultPlan.begin(.completeRead, 0..<1000, errno: ECANCELED)
      _ = try Self.read(file, .uring)
      let device = try openDevice(paths: [file.path], backend: .uring, queueDepth: 2)
      let memory = try AlignedBuffer(byteCount: 4096)
      FaultPlan.begin(.completeRead, 0..<1000, errno: ECANCELED)
      FaultPlan.refuse(.read, 0..<1000, errno: EAGAIN)
      try device.submit(ReadRequest(fileIndex: 0, offset: 0, destination: memory.bytes, tag: 0))
      try device.flush()
      // The first attempts follow each other; before a later one the device returns.
      var count = 0
      while FaultPlan.counts[.read] ?? 0 < 4, count < 10_000 {
        try #expect(device.reap(waiting: true, timeoutMilliseconds: 1) == nil)
        count += 1
      }
      let attempts = FaultPlan.counts[.read] ?? 0
      try #expect(device.reap(waiting: true, timeoutMilliseconds: 0) == nil)
      #expect(device.inFlight == 1 && attempts <= 5, "\(attempts)")
      _ = FaultPlan.end()
      #expect(try device.reap(waiting: true, timeoutMilliseconds: nil)?.byteCount == 4096)
      extendLifetime(file)
    }
  }

  /// The kernel has reads, and the device cannot learn of their end.
  @Test func `Memory that the kernel may still write to is never given back`() async {
    await #expect(processExitsWith: .success) {
      let file = TemporaryFile(randomBytes(Self.byteCount, seed: 7))
      var address: UnsafeMutableRawPointer?
      for isDrained in [true, false] {
        do {
          let device = try openDevice(paths: [file.path], backend: .uring, queueDepth: 2)
          let memory = try AlignedBuffer(byteCount: 4096)
          address = memory.address
          // Nobody sees the read's end: every wait fails, as do looks at what has come.
          try device.submit(
            ReadRequest(fileIndex: 0, offset: 0, destination: memory.bytes, tag: 0))
          FaultPlan.begin(.submitReads, 0..<1000, errno: EIO)
          #expect(throws: BlockIOError.self) { try device.flush() }
          if isDrained {
            device.drain()
            #expect(device.inFlight == 0 && device.notes.count == 1, "\(device.notes)")
            #expect(throws: BlockIOError.self) {
              try device.submit(
                ReadRequest(fileIndex: 0, offset: 0, destination: memory.bytes, tag: 0))
            }
            #expect(AbandonedMemory.overlaps(UnsafeRawBufferPointer(memory.bytes)))
          }
          _ = FaultPlan.end()
        }
        // It would be gone but for that.
        if isDrained, let address { #expect(address.load(as: UInt8.self) == 0) }
      }
      extendLifetime(file)
    }
  }
}
