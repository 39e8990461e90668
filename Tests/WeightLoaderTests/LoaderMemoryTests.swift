import Kernels
import ModelFormat
import TensorBasics
import TestSupport
import Testing
import WeightLoader

/// Floats of tensors, and how the budget is divided and kept to.
@Suite struct LoaderMemoryTests {
  private let folder = TemporaryFolder()

  private func open(
    _ path: String, extra: Int = 150 << 20, streamByteCount: Int? = nil
  ) throws -> TensorLoader {
    var options = LoaderOptions()
    options.assumedResidentByteCount = 0
    options.streamByteCount = streamByteCount
    return try TensorLoader.open(path, ram: extra, options: options)
  }

  private func failure(_ body: () throws -> Void) -> LoaderError? {
    do { try body() } catch { return error as? LoaderError }
    return nil
  }

  /// A file with one tensor of `rowCount` rows of Q8_0.
  private func quantised(rowCount: Int, columnCount: Int) -> TinyGGUF {
    var generator = SeededGenerator(seed: 8)
    let blocks = rowCount * columnCount / 32
    var data: [UInt8] = []
    for _ in 0..<blocks {
      data += [0, 0x3C]  // a scale of 1
      for _ in 0..<32 { data.append(UInt8.random(in: 0...255, using: &generator)) }
    }
    return TinyGGUF(tensors: [
      .init(
        name: "w", type: ElementType.q8_0.rawValue,
        dimensions: [UInt64(columnCount), UInt64(rowCount)], data: data)
    ])
  }

  @Test func `Values are the elements of each row, of any format and list`() throws {
    let gguf = TinyModel.withExperts("qwen3moe").gguf(seed: 4).bytes()
    let paths = [
      folder.write("m.gguf", gguf), folder.write("m.bin", try ImageBuilder.image(of: gguf)),
    ]
    for path in paths {
      let loader = try open(path)
      for (index, tensor) in loader.tensors.enumerated() {
        let type = try #require(tensor.type.elementType)
        for part in 0..<tensor.partCount {
          let whole = try loader.load([TensorPart(index, part: part)])
          let count = tensor.partRowCount * tensor.columnCount
          var wanted = [Float](repeating: 0, count: count)
          try wanted.withUnsafeMutableBufferPointer { values in
            try whole.withBytes { bytes in
              try loader.dequantise(index, bytes, rows: 0..<tensor.partRowCount, into: values)
            }
          }
          if tensor.layout == .rowMajor {
            var row = [Float](repeating: 0, count: tensor.columnCount)
            whole.withBytes { bytes in
              Dequantisation.row(
                bytes.baseAddress!, type: type, columnCount: tensor.columnCount, into: &row)
            }
            #expect(Array(wanted.prefix(row.count)) == row)
          }
          let middle = tensor.partRowCount / 3..<tensor.partRowCount / 3 * 2
          let loaded = try loader.loadValues([
            TensorPart(index, part: part), TensorPart(index, part: part, rows: middle),
          ])
          #expect(
            loaded.withValues(0) { $0.withUnsafeBufferPointer(Array.init) } == wanted,
            "\(tensor.name)")
          let columns = tensor.columnCount
          let slice = wanted[middle.lowerBound * columns..<middle.upperBound * columns]
          #expect(
            loaded.withValues(1) { $0.withUnsafeBufferPointer(Array.init) } == Array(slice),
            "\(tensor.name)")
        }
      }
    }
  }

  @Test func `Floats are held by the budget, and the raw tensor beside them is not`() throws {
    // 8.5 MiB in the file, 32 MiB as floats.
    let path = folder.write("q", quantised(rowCount: 4096, columnCount: 2048).bytes())
    let loader = try open(path, extra: 3 << 20 + 8 << 20 + 36 << 20, streamByteCount: 8 << 20)
    #expect(loader.plan.streamByteCount == 8 << 20 && loader.plan.heldByteCount <= 36 << 20)
    let values = try loader.loadValues("w")
    #expect(values.withValues { $0.count } == 4096 * 2048)
    guard case .tensorsInUse? = failure({ _ = try loader.loadValues("w") }) else {
      Issue.record("more than the budget has")
      return
    }
    withExtendedLifetime(values) {}
    let tight = try open(path, extra: 3 << 20 + 8 << 20 + 31 << 20, streamByteCount: 8 << 20)
    guard case .tensorsInUse? = failure({ _ = try tight.loadValues("w") }) else {
      Issue.record("more than the budget has")
      return
    }
    // Some of it fits.
    #expect(
      try tight.loadValues([TensorPart(0, rows: 0..<1000)]).withValues { $0.count } == 2_048_000)
  }

  @Test func `Memory of the budget is counted while it lives`() throws {
    let path = folder.write("q", quantised(rowCount: 8, columnCount: 32).bytes())
    let loader = try open(path, extra: 32 << 20)
    let most = loader.plan.heldByteCount & ~4095
    var memory: HeldMemory? = try loader.allocate(byteCount: most)
    memory?.withBytes { $0.storeBytes(of: 7, toByteOffset: most - 1, as: UInt8.self) }
    guard case .tensorsInUse? = failure({ _ = try loader.allocate(byteCount: 4096) }) else {
      Issue.record("more than the budget has")
      return
    }
    memory = nil
    memory = try loader.allocate(byteCount: most)
    for count in [Int.max, most + 4097] {
      #expect(failure { _ = try loader.allocate(byteCount: count) } != nil)
    }
  }

  @Test func `Loads of about one size use the same pages after one another, and nothing else does`()
    throws
  {
    let path = folder.write("q", quantised(rowCount: 4096, columnCount: 2048).bytes())
    let loader = try open(path, extra: 32 << 20)
    func load(_ rows: Range<Int>) throws -> (address: UnsafeRawPointer?, copy: [UInt8]) {
      let loaded = try loader.load([TensorPart(0, rows: rows)])
      return loaded.withBytes { ($0.baseAddress?.alignedDown(toMultipleOf: 4096), Array($0)) }
    }
    let first = try load(0..<512)
    for start in [513, 1024, 2000] {
      let next = try load(start..<start + 500)
      #expect(next.address == first.address)
      #expect(next.copy != first.copy)
    }
    #expect(try load(0..<512).copy == first.copy)
    // Far smaller ones have pages of their own, and a program's memory is zero.
    #expect(try load(0..<40).address != first.address)
    let own = try loader.allocate(byteCount: first.copy.count)
    #expect(own.bytes.allSatisfy { $0 == 0 })
    // What is kept makes room for what does not fit beside it.
    let most = loader.plan.heldByteCount & ~4095
    #expect(try loader.allocate(byteCount: most - own.bytes.count).bytes.count > 0)
  }

  @Test(arguments: StorageBackend.allCases)
  func `A prefetch that is given up leaves its memory at once`(backend: StorageBackend) throws {
    let path = folder.write("q", quantised(rowCount: 4096, columnCount: 2048).bytes())
    var options = LoaderOptions()
    options.assumedResidentByteCount = 0
    options.backend = backend
    // Few reads at a time, so that most of a list waits to be submitted.
    (options.readByteCount, options.queueDepth) = (64 << 10, 2)
    guard let loader = try? TensorLoader.open(path, ram: 150 << 20, options: options) else {
      return
    }
    let most = loader.plan.heldByteCount & ~4095
    let lists = (0..<6).map { [TensorPart(0, rows: $0 * 512..<($0 + 1) * 512)] }
    for round in 0..<3 {
      for list in lists { try loader.prefetch(list) }
      for list in lists.dropFirst(round) { try loader.cancelPrefetch(list) }
      for list in lists.prefix(round) { _ = try loader.load(list) }
      #expect(try loader.allocate(byteCount: most).bytes.count == most)
    }
  }

  @Test func `The ring is as long as the caller says, or refused with what would do`() throws {
    let path = folder.write("q", quantised(rowCount: 4096, columnCount: 2048).bytes())
    let automatic = try open(path, extra: 100 << 20)
    #expect(automatic.plan.streamByteCount == 64 << 20)
    let short = try open(path, extra: 100 << 20, streamByteCount: 16 << 20)
    #expect(short.plan.streamByteCount == 16 << 20)
    #expect(short.plan.heldByteCount == automatic.plan.heldByteCount + 48 << 20)
    let least = try open(path, extra: 100 << 20, streamByteCount: 1)
    #expect(least.plan.streamByteCount < 2 << 20)
    for loader in [short, least] {
      var byteCount = 0
      try loader.stream { byteCount += $0.byteCount }
      #expect(byteCount == loader.byteCount)
    }
    for wanted in [98 << 20, Int.max] {
      let refusal = failure { _ = try open(path, extra: 100 << 20, streamByteCount: wanted) }
      guard case .budgetTooSmall(_, let minimum)? = refusal else {
        Issue.record("\(wanted)")
        continue
      }
      #expect(minimum.bytes > 100 << 20)
    }
  }

  @Test func `What is no weight, or does not hold the rows, is refused`() throws {
    let header = #"{"i":{"dtype":"I64","shape":[4,4],"data_offsets":[0,128]}}"#
    let bytes = [UInt8(header.utf8.count)] + [UInt8](repeating: 0, count: 7)
    let integers = try open(
      folder.write("i", bytes + Array(header.utf8) + [UInt8](repeating: 1, count: 128)))
    guard case .notWeights("i", "I64", _)? = failure({ _ = try integers.loadValues("i") }) else {
      Issue.record("integers")
      return
    }
    let loader = try open(folder.write("q", quantised(rowCount: 8, columnCount: 32).bytes()))
    let loaded = try loader.load("w")
    for (rows, room) in [(0..<9, 1000), (-1..<1, 1000), (0..<8, 255), (8..<9, 32)] {
      var values = [Float](repeating: 0, count: room)
      let refusal = failure {
        try values.withUnsafeMutableBufferPointer { values in
          try loaded.withBytes { try loader.dequantise(0, $0, rows: rows, into: values) }
        }
      }
      guard case .badRows? = refusal else {
        Issue.record("\(rows), \(room)")
        continue
      }
    }
  }
}
