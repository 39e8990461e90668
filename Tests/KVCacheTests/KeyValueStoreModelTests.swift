import BlockIO
import Glibc
import KVCache
import Kernels
import Synchronization
import TensorBasics
import TestSupport
import Testing

/// The store beside arrays of everything it was given: random chunks, policies, tiers, resets and prefixes.
@Suite struct KeyValueStoreModelTests {
  private static let contextLength = 1100
  private static let chunkLength = 300

  private static func shape(
    _ type: KeyValueType, layerCount: Int = 2, window: Int? = nil
  ) -> KeyValueShape {
    KeyValueShape(
      layerCount: layerCount, keyValueHeadCount: 2, headDim: 32, contextLength: contextLength,
      type: type, windows: (0..<layerCount).map { $0 == 0 ? window : nil })
  }

  /// A plan of the least memory and `spare` pages.
  private static func plan(_ shape: KeyValueShape, spare: Int?) throws -> KeyValuePlan {
    let least = KeyValuePlan.minimumByteCount(shape, chunkLength: chunkLength)
    return try #require(
      KeyValuePlan(
        shape, budgetByteCount: spare.map { least + $0 * shape.pageStride } ?? 1 << 30,
        chunkLength: chunkLength))
  }

  private static func randomShape(
    _ type: KeyValueType, using generator: inout SeededGenerator
  ) -> KeyValueShape {
    shape(
      type, layerCount: Int.random(in: 1...3, using: &generator),
      window: [nil, 200, 500].randomElement(using: &generator) ?? nil)
  }

  /// Files in `folder`, read in any way, and one of some policies.
  private static func randomOptions(
    _ type: KeyValueType, _ folder: TemporaryFolder, policies: [KeyValuePolicyChoice],
    using generator: inout SeededGenerator
  ) -> KeyValueOptions {
    var options = KeyValueOptions()
    options.type = type
    options.folder = folder.path
    options.backend = [.auto, .uring, .pread, .mmap].randomElement(using: &generator) ?? .auto
    options.policy = policies.randomElement(using: &generator) ?? .full
    return options
  }

  @Test(arguments: KeyValueType.allCases)
  func `Whatever is done to a store, it holds what it was given`(type: KeyValueType) throws {
    for seed in UInt64(0)..<12 {
      var generator = SeededGenerator(seed: seed)
      let folder = TemporaryFolder()
      defer { extendLifetime(folder) }
      let shape = Self.randomShape(type, using: &generator)
      let plan = try Self.plan(
        shape, spare: [nil, 0, 2, 9].randomElement(using: &generator) ?? nil)
      var options = Self.randomOptions(
        type, folder,
        policies: [.full, .recent(sinks: 128, recent: 128), .top(share: 0.3), .top(share: 1)],
        using: &generator)
      var fileCount = 0
      if Bool.random(using: &generator) {
        options.files.own = .init(path: folder.path + "/own0")
      }
      var checked = try CheckedStore(shape, plan, options)
      var isAnswering = false
      for _ in 0..<25 {
        let room = Self.contextLength - 1 - checked.known.positionCount
        switch Int.random(in: 0..<12, using: &generator) {
        case 0:
          checked.reset()
          isAnswering = false
          try Self.resume(checked, using: &generator)
        case 1 where options.files.own != nil && !isAnswering:
          // Another store goes on from the file.
          let pageGroupCount = min(
            checked.store.finish(after: 0), checked.known.positionCount / 128)
          guard pageGroupCount > 0 else { continue }
          var known = checked.known
          known.truncate(to: pageGroupCount * 128)
          let part = KeyValueStore.Prefix.Part(
            path: folder.path + "/own\(fileCount)", dataOffset: 4096, firstPageGroup: 0,
            pageGroupCount: pageGroupCount,
            checksums: checked.store.pageChecksums(ofPageGroups: 0..<pageGroupCount))
          fileCount += 1
          // Its own file is not another's prefix: it holds only what follows.
          var next = options
          next.files.own = nil
          next.files.prefix.parts = [part]
          options.files.own = nil
          checked = try CheckedStore(shape, plan, next, known: known)
          #expect(checked.store.prefixPositionCount == pageGroupCount * 128)
        case 7:
          try checked.truncate(
            to: Int.random(in: 0...checked.known.positionCount, using: &generator),
            using: &generator)
        case 2...6 where !isAnswering && room > 0:
          let count = min(room, Int.random(in: 1...Self.chunkLength, using: &generator))
          try checked.pass(count, .read, using: &generator)
        default:
          guard room > 0 else { continue }
          isAnswering = true
          let drafts = options.policy.takesDrafts && Bool.random(using: &generator)
          for _ in 0..<min(room, 40) where checked.known.positionCount < Self.contextLength - 1 {
            if drafts {
              try checked.passTentatively(using: &generator)
            } else {
              try checked.pass(1, .answer, using: &generator)
            }
          }
        }
      }
      #expect(checked.store.writeFailure == nil)
    }
  }

  @Test(arguments: [nil, 0, 3, 30])
  func `A page group of more layers than pages pass through memory is opened again`(
    spare: Int?
  ) throws {
    var generator = SeededGenerator(seed: 7)
    let folder = TemporaryFolder()
    let shape = Self.shape(.f16, layerCount: 40)
    var options = KeyValueOptions()
    options.folder = folder.path
    let checked = try CheckedStore(shape, try Self.plan(shape, spare: spare), options)
    for count in [300, 300, 60] { try checked.pass(count, .read, using: &generator) }
    for position in [601, 300, 130, 127] {
      try checked.truncate(to: position, using: &generator)
      #expect(checked.known.positionCount == position)
      try checked.pass(1, .read, using: &generator)
    }
    try checked.pass(200, .read, using: &generator)
  }

  @Test func `A context that fills its memory is cut without more`() throws {
    var generator = SeededGenerator(seed: 8)
    let shape = KeyValueShape(
      layerCount: 40, keyValueHeadCount: 2, headDim: 32, contextLength: 320, type: .f16,
      windows: Array(repeating: nil, count: 40))
    let checked = try CheckedStore(shape, try Self.plan(shape, spare: nil), KeyValueOptions())
    for (count, position) in [(300, 257), (50, 240), (70, 100)] {
      try checked.pass(count, .read, using: &generator)
      try checked.truncate(to: position, using: &generator)
      #expect(checked.known.positionCount == position)
      #expect(checked.store.pool.unusedByteCount >= 0)
    }
    try checked.pass(200, .read, using: &generator)
  }

  @Test func `A cut goes through pages on file while all other memory is lent`() throws {
    var generator = SeededGenerator(seed: 9)
    let folder = TemporaryFolder()
    defer { extendLifetime(folder) }
    let shape = Self.shape(.f16, layerCount: 40)
    let plan = try #require(
      KeyValuePlan(shape, sequenceCount: 2, budgetByteCount: 1 << 30, chunkLength: 300))
    let pool = try KeyValuePool(
      plan, KeyValueOptions(), queryHeadCount: 2 * shape.keyValueHeadCount)
    let files = KeyValueStore.Files(own: .init(path: folder.path + "/own"))
    let checked = try CheckedStore(pool.openSequence(files: files), isSelective: false)
    for count in [300, 300] { try checked.pass(count, .read, using: &generator) }
    #expect(checked.store.finish(after: 0) == 4)
    for position in [500, 400, 260, 130] {
      pool.lend(pool.lentByteCount + pool.unusedByteCount)
      // Another sequence begins, for which pages leave memory.
      let other = try pool.openSequence()
      #expect(pool.unusedByteCount == 0)
      try checked.truncate(to: position, using: &generator)
      #expect(checked.known.positionCount == position)
      other.close()
      pool.lend(0)
      try checked.pass(1, .read, using: &generator)
    }
    checked.store.close()
    try pool.drain()
    #expect(pool.isEmpty)
  }

  /// Puts some positions of the first page group back into a store that was reset.
  private static func resume(
    _ checked: CheckedStore, using generator: inout SeededGenerator
  ) throws {
    let count = Int.random(in: 1..<128, using: &generator)
    #expect(!checked.store.resume(positionCount: count) { _, _ in false })
    _ = checked.known.append(count, using: &generator)
    let known = checked.known
    #expect(
      checked.store.resume(positionCount: count) { layer, page in
        known.openPage(layer: layer, pageGroup: 0).withUnsafeBytes { page.copyMemory(from: $0) }
        return true
      })
    #expect(checked.store.partialPositionCount == count)
  }

  @Test(arguments: KeyValueType.allCases)
  func `Sequences that share a pool hold what each was given`(type: KeyValueType) throws {
    for seed in UInt64(0)..<16 {
      var generator = SeededGenerator(seed: seed)
      let folder = TemporaryFolder()
      defer { extendLifetime(folder) }
      let shape = Self.randomShape(type, using: &generator)
      let count = Int.random(in: 2...5, using: &generator)
      let least = KeyValuePlan.minimumByteCount(
        shape, sequenceCount: count, chunkLength: Self.chunkLength)
      let spare = [nil, 0, 3, 20].randomElement(using: &generator) ?? nil
      let plan = try #require(
        KeyValuePlan(
          shape, sequenceCount: count,
          budgetByteCount: spare.map { least + $0 * shape.pageStride } ?? 1 << 30,
          chunkLength: Self.chunkLength))
      let options = Self.randomOptions(
        type, folder,
        policies: [.full, .full, .recent(sinks: 128, recent: 128), .top(share: 0.3)],
        using: &generator)
      let pool = try KeyValuePool(plan, options, queryHeadCount: 2 * shape.keyValueHeadCount)
      var open: [CheckedStore] = []
      for _ in 0..<60 {
        try Self.change(
          &open, in: pool, isSelective: options.policy != .full, using: &generator)
      }
      open.removeAll()
      #expect(pool.freeSequenceCount == count && pool.writeFailure == nil)
      try pool.drain()
      #expect(pool.isEmpty, "seed \(seed)")
    }
  }

  /// One of: a sequence ends, is forked, cut, broken off or begins; or a sweep of some of them.
  private static func change(
    _ open: inout [CheckedStore], in pool: KeyValuePool, isSelective: Bool,
    using generator: inout SeededGenerator
  ) throws {
    switch Int.random(in: 0..<12, using: &generator) {
    case 0 where !open.isEmpty:
      open.remove(at: open.indices.randomElement(using: &generator) ?? 0)
    case 1 where !open.isEmpty && pool.freeSequenceCount > 0:
      let origin = open[open.indices.randomElement(using: &generator) ?? 0]
      open.append(
        try CheckedStore(
          origin.store.fork(), isSelective: isSelective, known: origin.known))
    case 2 where !open.isEmpty:
      let sequence = open[open.indices.randomElement(using: &generator) ?? 0]
      try sequence.truncate(
        to: Int.random(in: 0...sequence.known.positionCount, using: &generator),
        using: &generator)
    case 3 where !open.isEmpty:
      // A sweep that is broken off somewhere.
      let sequence = open[open.indices.randomElement(using: &generator) ?? 0]
      let before = sequence.known.positionCount
      guard before < Self.contextLength else { return }
      let room = min(Self.chunkLength, Self.contextLength - before)
      try CheckedStore.sweep(
        [(sequence, Int.random(in: 1...room, using: &generator), .read)],
        layerCount: Int.random(in: 0..<pool.shape.layerCount, using: &generator),
        using: &generator)
      sequence.store.abandonChunk()
      try sequence.truncate(to: before, using: &generator)
    case 5 where !open.isEmpty && !isSelective:
      let sequence = open[open.indices.randomElement(using: &generator) ?? 0]
      guard sequence.known.positionCount < Self.contextLength else { return }
      try sequence.passTentatively(using: &generator)
    case 4 where pool.freeSequenceCount > 0:
      open.append(
        try CheckedStore(pool.openSequence(), isSelective: isSelective))
    default:
      var left = Self.chunkLength
      var spans: [(CheckedStore, Int, RowKind)] = []
      for sequence in open.shuffled(using: &generator) {
        let room = min(left, Self.contextLength - sequence.known.positionCount)
        guard room > 0, Int.random(in: 0..<4, using: &generator) > 0 else { continue }
        let reads = Int.random(in: 0..<3, using: &generator) == 0
        let rows = reads ? Int.random(in: 1...room, using: &generator) : 1
        spans.append((sequence, rows, reads ? .read : .answer))
        left -= rows
      }
      try CheckedStore.sweep(spans, using: &generator)
    }
  }

  // MARK: Drives that do not answer

  /// A store on threads whose reads or writes hang once `isHanging` says so, which raises the flag.
  private final class HangingDrive: Sendable {
    let isHanging = Atomic(false)
    let cancellation = CancellationFlag()
    let raises: Bool
    init(raises: Bool = true) { self.raises = raises }

    func hang() {
      while isHanging.load(ordering: .acquiring) {
        if raises { cancellation.raise() }
        usleep(1000)
      }
    }

    func begin() { isHanging.store(true, ordering: .releasing) }

    func end() {
      isHanging.store(false, ordering: .releasing)
      cancellation.lower()
    }
  }

  private static func options(_ drive: HangingDrive, _ folder: TemporaryFolder) -> KeyValueOptions {
    var options = KeyValueOptions()
    options.folder = folder.path
    options.backend = .pread
    options.cancellation = drive.cancellation
    return options
  }

  @Test func `Reads that hang are waited for until the caller asks to stop`() throws {
    let (drive, folder) = (HangingDrive(), TemporaryFolder())
    defer { extendLifetime(folder) }
    let shape = Self.shape(.f16)
    var options = Self.options(drive, folder)
    options.hooks.filterResult = {
      drive.hang()
      return $0.result
    }
    var generator = SeededGenerator(seed: 1)
    let checked = try CheckedStore(shape, Self.plan(shape, spare: 0), options)
    for _ in 0..<3 {
      for _ in 0..<3 { try checked.pass(300, .read, using: &generator) }
      drive.begin()
      #expect {
        for _ in 0..<3 { try checked.pass(1, .answer, using: &generator) }
      } throws: { if case .interrupted? = $0 as? KeyValueError { true } else { false } }
      // It does not wait there either, nor for what comes after: the drive still hangs.
      checked.reset()
      #expect {
        for _ in 0..<3 { try checked.pass(300, .read, using: &generator) }
        for _ in 0..<3 { try checked.pass(1, .answer, using: &generator) }
      } throws: { if case .interrupted? = $0 as? KeyValueError { true } else { false } }
      checked.reset()
      // The drive answers after all, and the store is as good as new.
      drive.end()
    }
    try checked.pass(300, .read, using: &generator)
    drive.begin()
    // Nor does letting go of a store whose reads hang.
    _ = consume checked
    drive.end()
  }

  @Test func `Writes that hang are waited for until the caller asks to stop`() throws {
    let (drive, folder) = (HangingDrive(), TemporaryFolder())
    defer { extendLifetime(folder) }
    let shape = Self.shape(.f16)
    var options = Self.options(drive, folder)
    options.hooks.writeErrno = { _ in
      drive.hang()
      return 0
    }
    var generator = SeededGenerator(seed: 1)
    let checked = try CheckedStore(shape, Self.plan(shape, spare: 0), options)
    for _ in 0..<2 {
      drive.begin()
      #expect {
        for _ in 0..<3 { try checked.pass(300, .read, using: &generator) }
      } throws: { if case .interrupted? = $0 as? KeyValueError { true } else { false } }
      #expect(checked.store.finish(after: 0) < 3)
      checked.reset()
      drive.end()
      for _ in 0..<3 { try checked.pass(300, .read, using: &generator) }
      checked.reset()
    }
    drive.begin()
    try? checked.pass(300, .read, using: &generator)
    _ = consume checked
    drive.end()
  }

  @Test func `A drive that does not answer is spoken of`() throws {
    let (drive, folder) = (HangingDrive(raises: false), TemporaryFolder())
    defer { extendLifetime(folder) }
    let shape = Self.shape(.q8)
    var options = Self.options(drive, folder)
    options.type = .q8
    options.hooks.filterResult = {
      drive.hang()
      return $0.result
    }
    var generator = SeededGenerator(seed: 1)
    let checked = try CheckedStore(shape, Self.plan(shape, spare: 0), options)
    var stalls: [Stall] = []
    checked.store.pool.onStall = {
      stalls.append($0)
      drive.end()
    }
    for _ in 0..<3 { try checked.pass(300, .read, using: &generator) }
    drive.begin()
    for _ in 0..<3 { try checked.pass(1, .answer, using: &generator) }
    let stall = try #require(stalls.first)
    #expect(stall.path.contains(folder.path) && stall.readsInFlight > 0 && stall.seconds >= 2)
    #expect(stall.byteCount == shape.pageByteCount && stall.description.contains("layer"))
  }

  /// Every read fails once, of pages and of parts of pages: an error with its place, and after a reset the
  /// store works.
  @Test(arguments: [KeyValuePolicyChoice.full, .top(share: 0.3)])
  func `A read that fails costs the chunk and not the store`(policy: KeyValuePolicyChoice) throws {
    let folder = TemporaryFolder()
    defer { extendLifetime(folder) }
    let shape = Self.shape(.f16)
    let countdown = Atomic(Int.max)
    var options = KeyValueOptions()
    options.folder = folder.path
    options.policy = policy
    options.hooks.filterResult = {
      countdown.subtract(1, ordering: .relaxed).newValue == 0 ? -Int(EIO) : $0.result
    }
    var generator = SeededGenerator(seed: 3)
    let checked = try CheckedStore(shape, Self.plan(shape, spare: 0), options)
    for index in 1...12 {
      // What the context before had read is nobody's any more.
      try checked.store.pool.drain()
      countdown.store(index, ordering: .relaxed)
      do {
        for _ in 0..<3 { try checked.pass(300, .read, using: &generator) }
        for _ in 0..<20 { try checked.pass(1, .answer, using: &generator) }
        #expect(countdown.load(ordering: .relaxed) > 0 || policy != .full)
      } catch let error as KeyValueError {
        guard case .io(let cause, let layer?) = error else {
          Issue.record("\(error)")
          return
        }
        #expect(cause.errno == EIO && cause.path?.contains(folder.path) == true && layer < 2)
      }
      countdown.store(.max, ordering: .relaxed)
      checked.reset()
      for _ in 0..<2 { try checked.pass(300, .read, using: &generator) }
      checked.reset()
    }
  }
}
