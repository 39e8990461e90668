import BlockIO
import ModelFormat
import TensorBasics
import TestSupport
import Testing
import WeightLoader

/// A stream by itself: what a caller may do after it was interrupted.
@Suite struct WeightStreamTests {
  private struct Rig {
    let device: FaultyDevice
    let stream: WeightStream
    let cancellation = CancellationFlag()
    let bytes: [UInt8]

    /// A stream of every matrix, in a ring of few pieces.
    init(_ path: String, _ bytes: [UInt8], _ backend: StorageBackend) throws {
      self.bytes = bytes
      device = FaultyDevice(
        try openDevice(paths: [path], backend: backend, queueDepth: 8), paths: [path])
      let source = ModelSource(
        path: path, description: try ModelSource.describe(path), device: device)
      let model = source.description
      let matrices = model.tensors.indices.filter { model.tensors[$0].rowCount > 1 }
      let options = ResidencyPlan.Options(readByteCount: 16 << 10, stagingByteCount: 80 << 10)
      let order = StreamOrder(segments: [matrices])
      let plan = try ResidencyPlan.make(
        model: model, order: order, budget: 120 << 10, options: options, borrowable: 100 << 10)
      stream = try WeightStream(source: source, plan: plan, cancellation: cancellation)
    }

    /// Acquires every piece and compares it with the file, trying again after each interruption.
    func sweep() throws -> Int {
      var interruptions = 0
      for piece in stream.plan.pieces.indices {
        let wanted = stream.plan.pieces[piece]
        var address: UnsafeMutableRawPointer?
        while address == nil {
          do { address = try stream.acquire(piece) } catch {
            guard case LoaderError.interrupted = error else { throw error }
            interruptions += 1
            cancellation.lower()
          }
        }
        let found = UnsafeRawBufferPointer(start: address, count: wanted.byteCount)
        #expect(found.elementsEqual(bytes[wanted.offset..<wanted.offset + wanted.byteCount]))
        stream.release(piece)
      }
      return interruptions
    }
  }

  private func model() -> [UInt8] {
    var model = TinyModel()
    model.layerCount = 3
    return model.gguf(seed: 2).bytes()
  }

  /// Has a number of parts to do, each of which takes so long.
  private final class Work: IdleWork {
    private var partCount: Int
    private(set) var doneCount = 0
    private(set) var leastNanoseconds = Int.max

    init(partCount: Int) { self.partCount = partCount }

    func work(within nanoseconds: Int) -> Bool {
      leastNanoseconds = min(leastNanoseconds, nanoseconds)
      guard doneCount < partCount else { return false }
      doneCount += 1
      return true
    }
  }

  @Test(arguments: [StorageBackend.uring, .pread, .mmap], [0, 3, 1000])
  func `What is done in the waits changes nothing that is read`(
    backend: StorageBackend, partCount: Int
  ) throws {
    let bytes = model()
    let file = TemporaryFile(bytes)
    defer { extendLifetime(file) }
    let rig = try Rig(file.path, bytes, backend)
    rig.device.comesWhenWaitedForOnly = true
    let work = Work(partCount: partCount)
    try rig.stream.announce(segments: 1)
    // Before the first sweep it is not known how fast the drive is.
    #expect(try rig.sweep() == 0)
    rig.stream.idleWork = work
    for _ in 0..<3 {
      try rig.stream.announce(segments: 1)
      #expect(try rig.sweep() == 0)
    }
    #expect(work.doneCount == partCount && work.leastNanoseconds > 0)
    #expect(rig.stream.readingByteCount == 0)
  }

  @Test(arguments: [StorageBackend.uring, .pread, .mmap])
  func `A piece can be asked for again after an interruption`(backend: StorageBackend) throws {
    let bytes = model()
    let file = TemporaryFile(bytes)
    defer { extendLifetime(file) }
    let rig = try Rig(file.path, bytes, backend)
    rig.device.onRead = { number, _ in
      if number % 3 == 0 { rig.cancellation.raise() }
      return nil
    }
    var interruptions = 0
    for _ in 0..<4 {
      while true {
        do {
          try rig.stream.announce(segments: 1)
          break
        } catch LoaderError.interrupted { rig.cancellation.lower() }
      }
      interruptions += try rig.sweep()
    }
    #expect(interruptions > 8)
  }

  @Test(arguments: [StorageBackend.uring, .pread, .mmap])
  func `A sweep that was interrupted can be taken back or abandoned, and another begun`(
    backend: StorageBackend
  ) throws {
    let bytes = model()
    let file = TemporaryFile(bytes)
    defer { extendLifetime(file) }
    let rig = try Rig(file.path, bytes, backend)
    for round in 0..<40 {
      let alarm = rig.device.readCount + round % 11
      rig.device.onRead = { number, _ in
        if number == alarm { rig.cancellation.raise() }
        return nil
      }
      var isInterrupted = false
      do {
        try rig.stream.announce(segments: 1)
        for piece in rig.stream.plan.pieces.indices {
          _ = try rig.stream.acquire(piece)
          rig.stream.release(piece)
        }
      } catch LoaderError.interrupted { isInterrupted = true }
      rig.cancellation.lower()
      rig.device.onRead = nil
      guard isInterrupted else { continue }
      if round % 2 == 0 { try rig.stream.cancelAnnounced() } else { rig.stream.abandon() }
      try rig.stream.announce(segments: 1)
      #expect(try rig.sweep() == 0)
    }
  }

  @Test(arguments: [StorageBackend.uring, .pread, .mmap])
  func `Runs stay in borrowed memory until it is given back`(backend: StorageBackend) throws {
    let bytes = model()
    let file = TemporaryFile(bytes)
    defer { extendLifetime(file) }
    let rig = try Rig(file.path, bytes, backend)
    let stream = rig.stream
    var generator = SeededGenerator(seed: 0xB0)
    #expect(stream.borrowableByteCount > 64 << 10)
    #expect(try stream.borrow(.max) == stream.borrowableByteCount)
    for round in 0..<60 {
      let (count, before) = (stream.plan.streamedByteCount, rig.device.statistics.bytesRead)
      // Runs that have a new place come with the first of the two sweeps.
      for _ in 0..<2 {
        try stream.announce(segments: 1)
        #expect(try rig.sweep() == 0)
      }
      let read = rig.device.statistics.bytesRead - before
      #expect(stream.isSettled)
      // Pinned runs come with the first; after one that was broken off, its last reads count too.
      let isWhole = round > 0 && round % 3 != 2
      #expect(!isWhole || read <= 2 * count - stream.borrowedByteCount, "round \(round)")
      if round % 3 == 1 {
        // With runs on their way.
        try stream.announce(segments: 1)
        if Bool.random(using: &generator) { try stream.cancelAnnounced() } else { stream.abandon() }
      }
      let wanted = Int.random(in: 0...120 << 10, using: &generator)
      #expect(try stream.borrow(wanted) <= wanted)
    }
    #expect(try stream.borrow(0) == 0)
    let before = rig.device.statistics.bytesRead
    try stream.announce(segments: 1)
    #expect(try rig.sweep() == 0)
    #expect(rig.device.statistics.bytesRead - before == stream.plan.streamedByteCount)
  }

  @Test func `Memory is given back when reads into it have come, or stays borrowed`() throws {
    let bytes = model()
    let file = TemporaryFile(bytes)
    defer { extendLifetime(file) }
    let rig = try Rig(file.path, bytes, .uring)
    let borrowed = try rig.stream.borrow(.max)
    try rig.stream.announce(segments: 1)
    rig.stream.abandon()
    rig.cancellation.raise()
    let error = #expect(throws: LoaderError.self) { try rig.stream.borrow(0) }
    guard case .interrupted? = error else {
      Issue.record("\(error.map(\.description) ?? "")")
      return
    }
    #expect(rig.stream.borrowedByteCount == borrowed)
    rig.cancellation.lower()
    #expect(try rig.stream.borrow(0) == 0)
    try rig.stream.announce(segments: 1)
    #expect(try rig.sweep() == 0)
  }

  @Test func `Bundles that were held or read ahead are let go when a sweep is abandoned`() throws {
    let file = TemporaryFile(TinyModel(architecture: "qwen2moe").gguf(seed: 2).bytes())
    defer { extendLifetime(file) }
    let source = try ModelSource.open(file.path)
    let model = source.description
    let stacked = model.tensors.indices.filter { model.tensors[$0].stack != nil }
    let matrices = model.tensors.indices.filter {
      model.tensors[$0].stack == nil && model.tensors[$0].rowCount > 1
    }
    let family = BundleFamily(
      tensors: Array(stacked.prefix(3)), of: model, alignment: source.readAlignment)
    let plan = try ResidencyPlan.make(
      model: model, order: StreamOrder(segments: [matrices]), budget: 1 << 30)
    let stream = try WeightStream(
      source: source, plan: plan, families: [family],
      slots: BundleSlots([family], within: 3 * family.slotByteCount, heldAtOnce: 1))
    for round in 0..<4 {
      try stream.announce(segments: 1)
      stream.beginSweep(rowCount: 1)
      for bundle in 0..<3 {
        #expect(stream.hasRoomForBundle(of: 0), "round \(round), bundle \(bundle)")
        guard stream.hasRoomForBundle(of: 0) else { return }
        let number = (3 * round + bundle) % family.bundleCount
        if bundle == 2 {
          try stream.prefetch(bundle: number, of: 0)
        } else {
          try stream.request(bundle: number, of: 0)
        }
      }
      #expect(!stream.hasRoomForBundle(of: 0))
      stream.abandon()
    }
  }

  @Test func `The first error of a drive is what every later call throws`() throws {
    let bytes = model()
    let file = TemporaryFile(bytes)
    defer { extendLifetime(file) }
    let rig = try Rig(file.path, bytes, .auto)
    rig.device.onRead = { number, _ in number == 4 ? .error(5) : nil }
    try rig.stream.announce(segments: 1)
    let first = #expect(throws: LoaderError.self) { try rig.sweep() }
    guard case .io(let cause)? = first, cause.errno == 5, cause.path == file.path else {
      Issue.record("\(first.map(\.description) ?? "")")
      return
    }
    let later = #expect(throws: LoaderError.self) { _ = try rig.stream.acquire(0) }
    rig.stream.abandon()
    let last = #expect(throws: LoaderError.self) { try rig.stream.announce(segments: 1) }
    #expect(later?.description == first?.description && last?.description == first?.description)
  }
}
