import BlockIO
import Kernels
import ModelFormat
import TensorBasics
import TestSupport
import Testing
import WeightLoader

/// Rows of tensors, the caller's memory and floats, against what whole tensors are.
@Suite struct TensorRowsTests {
  private let folder = TemporaryFolder()

  private func open(
    _ path: String, extra: Int = 150 << 20, _ change: (inout LoaderOptions) -> Void = { _ in }
  ) throws -> TensorLoader {
    var options = LoaderOptions()
    options.assumedResidentByteCount = 0
    change(&options)
    return try TensorLoader.open(path, ram: extra, options: options)
  }

  private func failure(_ body: () throws -> Void) -> LoaderError? {
    do { try body() } catch { return error as? LoaderError }
    return nil
  }

  /// A model with experts as a GGUF file, whose rows are plain, and as an image, whose rows are interleaved.
  private func models() throws -> [String] {
    let gguf = TinyModel.withExperts("qwen3moe").gguf(seed: 4).bytes()
    return [
      folder.write("m.gguf", gguf), folder.write("m.bin", try ImageBuilder.image(of: gguf)),
    ]
  }

  /// Lists of rows of any tensors, neighbours and repetitions among them.
  private func lists(_ loader: TensorLoader, seed: UInt64) -> [[TensorPart]] {
    var generator = SeededGenerator(seed: seed)
    return (0..<12).map { _ in
      (0..<Int.random(in: 1...40, using: &generator)).map { _ in
        let tensor = Int.random(in: 0..<loader.tensors.count, using: &generator)
        let record = loader.tensors[tensor]
        let first = Int.random(in: 0...record.partRowCount, using: &generator)
        let end = Int.random(in: first...min(record.partRowCount, first + 20), using: &generator)
        let part = Int.random(in: 0..<record.partCount, using: &generator)
        return TensorPart(
          tensor, part: part, rows: Bool.random(using: &generator) ? first..<end : nil)
      }
    }
  }

  /// What of a whole part its rows are.
  private func bytes(_ loader: TensorLoader, _ part: TensorPart, _ rows: Range<Int>) throws
    -> [UInt8]
  {
    let whole = try loader.load([TensorPart(part.tensor, part: part.part)])
    let tensor = loader.tensors[part.tensor]
    let start = rows.lowerBound / tensor.unitRowCount * tensor.unitByteCount
    let units = (rows.count + tensor.unitRowCount - 1) / tensor.unitRowCount
    return whole.withBytes { Array($0[start..<start + units * tensor.unitByteCount]) }
  }

  /// Whether `rows` are those that were asked for, or of interleaved ones the groups around them.
  private func expectAround(_ wanted: TensorPart, _ rows: Range<Int>, _ loader: TensorLoader) {
    let tensor = loader.tensors[wanted.tensor]
    let asked = wanted.rows ?? 0..<tensor.partRowCount
    guard !asked.isEmpty else { return #expect(rows.isEmpty) }
    let unit = tensor.unitRowCount
    #expect(rows.lowerBound == asked.lowerBound / unit * unit)
    #expect(
      rows.upperBound == min(tensor.partRowCount, (asked.upperBound + unit - 1) / unit * unit))
  }

  @Test(arguments: [0, 1])
  func `Rows that are loaded are the rows of the whole`(format: Int) throws {
    let loader = try open(try models()[format])
    for list in lists(loader, seed: 11) {
      let loaded = try loader.load(list)
      for (index, part) in list.enumerated() {
        let rows = loaded.rows(index)
        expectAround(part, rows, loader)
        #expect(try loaded.withBytes(index, Array.init) == bytes(loader, part, rows), "\(part)")
      }
    }
  }

  @Test(arguments: [0, 1])
  func `Rows that are streamed are the rows of the whole, in their order`(format: Int) throws {
    let loader = try open(try models()[format]) { $0.pieceByteCount = 4096 }
    for list in lists(loader, seed: 12) {
      var found: [(part: TensorPart, rows: Range<Int>, bytes: [UInt8], isLast: Bool)] = []
      try loader.stream(list) { piece in
        let bytes = piece.withBytes(Array.init)
        if let last = found.last, !last.isLast {
          found[found.count - 1].bytes += bytes
          found[found.count - 1].rows = last.rows.lowerBound..<piece.rows.upperBound
          found[found.count - 1].isLast = piece.isLast
        } else {
          let part = TensorPart(piece.tensor, part: piece.part)
          found.append((part, piece.rows, bytes, piece.isLast))
        }
      }
      #expect(found.count == list.count)
      for (part, piece) in zip(list, found) {
        #expect(piece.part == TensorPart(part.tensor, part: part.part))
        expectAround(part, piece.rows, loader)
        #expect(try piece.bytes == bytes(loader, part, piece.rows), "\(part)")
      }
    }
  }

  @Test(arguments: [0, 1])
  func `The caller's memory gets the same bytes, wherever the drive is`(format: Int) throws {
    for backend in [StorageBackend.auto, .pread, .mmap] {
      let loader = try open(try models()[format]) { $0.backend = backend }
      for list in lists(loader, seed: 13).prefix(4) {
        let byteCount = try loader.loadByteCount(list)
        let memory = try AlignedBuffer(byteCount: byteCount + 4096)
        memory.bytes.initializeMemory(as: UInt8.self, repeating: 0xA5)
        let found = try loader.load(
          list, into: UnsafeMutableRawBufferPointer(rebasing: memory.bytes[..<byteCount]))
        for (part, piece) in zip(list, found) {
          #expect(
            try Array(memory.bytes[piece.bytes]) == bytes(loader, part, piece.rows), "\(part)")
        }
        #expect(memory.bytes[byteCount...].allSatisfy { $0 == 0xA5 }, "written past the end")
      }
    }
  }

  @Test
  func `Memory that is too short or not at a page is refused, and cancelling leaves it alone`()
    throws
  {
    let loader = try open(try models()[0])
    let list = [TensorPart(0), TensorPart(1)]
    let byteCount = try loader.loadByteCount(list)
    let memory = try AlignedBuffer(byteCount: byteCount + 4096)
    for range in [0..<byteCount - 1, 1..<byteCount + 1, 0..<0] {
      let part = UnsafeMutableRawBufferPointer(rebasing: memory.bytes[range])
      guard case .badDestination(_, byteCount)? = failure({ _ = try loader.load(list, into: part) })
      else {
        Issue.record("\(range)")
        continue
      }
    }
    loader.cancellation.raise()
    guard case .interrupted? = failure({ _ = try loader.load(list, into: memory.bytes) }) else {
      Issue.record("not interrupted")
      return
    }
    #expect(try loader.load(list, into: memory.bytes).count == 2)
  }

  @Test func `One row is one small read, and thousands are asked for at once`() throws {
    let layout = SafetensorsLayout([.init("table", .f32, [5000, 700])], metadata: [:])
    var bytes = layout.header
    for row in 0..<5000 {
      let values = [Float](repeating: Float(row), count: 700)
      values.withUnsafeBytes { bytes.append(contentsOf: $0) }
    }
    let loader = try open(folder.write("table", bytes))
    #expect(loader.tensors[0].rowByteCount == 2800 && loader.tensors[0].partRowCount == 5000)
    _ = try loader.load([TensorPart(0, rows: 1234..<1235)])
    #expect(loader.statistics.bytesRead <= 8192 && loader.statistics.requests == 1)
    var generator = SeededGenerator(seed: 3)
    let rows = (0..<2000).map { _ in Int.random(in: 0..<5000, using: &generator) }
    let loaded = try loader.load(rows.map { TensorPart(0, rows: $0..<$0 + 1) })
    for (index, row) in rows.enumerated() {
      #expect(loaded.withBytes(index) { $0.loadUnaligned(as: Float.self) } == Float(row))
    }
    #expect(loader.statistics.requests <= 2001 && loader.statistics.bytesRead <= bytes.count)
  }

  @Test func `Damage of an image is found in rows of it`() throws {
    let intact = try ImageBuilder.image(of: TinyModel().gguf(seed: 3).bytes())
    let description = try ImageBuilder.description(of: intact)
    for (index, record) in description.tensors.enumerated() where record.rowCount > 1 {
      var damaged = intact
      damaged[record.offset + record.byteCount / 2] ^= 4
      let loader = try open(folder.write("damaged", damaged))
      let part = TensorPart(index, rows: record.rowCount / 2..<record.rowCount / 2 + 1)
      for error in [
        failure { _ = try loader.load([part]) }, failure { try loader.stream([part]) { _ in } },
      ] {
        guard case .format(let cause)? = error, cause.kind == .checksumMismatch else {
          Issue.record("\(record.name): \(error.map(String.init(describing:)) ?? "no error")")
          continue
        }
      }
    }
  }

  @Test func `Rows that are not there are named`() throws {
    let loader = try open(try models()[0])
    let count = loader.tensors[0].partRowCount
    for rows in [0..<count + 1, count + 1..<count + 2, -1..<1] {
      guard
        case .noSuchRows(rows, _, count, _)? = failure({
          _ = try loader.load([TensorPart(0, rows: rows)])
        })
      else {
        Issue.record("\(rows)")
        continue
      }
    }
    #expect(try loader.load([TensorPart(0, rows: count..<count)]).byteCount() == 0)
  }

  @Test func `Tensors say where they lie in their files`() throws {
    let paths = try models()
    for path in paths {
      let loader = try open(path)
      #expect(loader.files == [path])
      let file = folder.read(String(path.split(separator: "/").last ?? ""))
      for (index, tensor) in loader.tensors.enumerated() {
        for part in 0..<tensor.partCount {
          let start = tensor.offset + part * tensor.byteStride
          let wanted = Array(file[start..<start + tensor.partByteCount])
          #expect(
            try loader.load([TensorPart(index, part: part)]).withBytes(0, Array.init) == wanted)
        }
      }
    }
  }
}
