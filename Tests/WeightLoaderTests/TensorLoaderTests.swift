import BlockIO
import ModelFormat
import TensorBasics
import TestSupport
import Testing
import WeightLoader

/// Streams, loads and prefetches of files of every kind, against the files' own bytes.
@Suite struct TensorLoaderTests {
  private let folder = TemporaryFolder()

  private func open(
    _ path: String, backend: StorageBackend = .auto, pieceByteCount: Int = 8 << 20,
    extra: Int = 150 << 20
  ) throws -> TensorLoader {
    var options = LoaderOptions()
    options.backend = backend
    options.pieceByteCount = pieceByteCount
    options.assumedResidentByteCount = 0
    return try TensorLoader.open(path, ram: extra, options: options)
  }

  /// The error that `body` ends in.
  private func failure(_ body: () throws -> Void) -> LoaderError? {
    do { try body() } catch { return error as? LoaderError }
    return nil
  }

  /// Safetensors of these lengths in bytes, each filled from a seed.
  private func safetensors(_ byteCounts: [Int]) -> [UInt8] {
    var generator = SeededGenerator(seed: 5)
    var header = "{"
    var end = 0
    for (index, count) in byteCounts.enumerated() {
      header += index == 0 ? "" : ","
      header += "\"t\(index)\":{\"dtype\":\"U8\",\"shape\":[\(count)],"
      header += "\"data_offsets\":[\(end),\(end + count)]}"
      end += count
    }
    header += "}"
    let length = UInt64(header.utf8.count)
    var bytes = (0..<8).map { UInt8(truncatingIfNeeded: length >> (8 * $0)) } + Array(header.utf8)
    for _ in 0..<end { bytes.append(UInt8.random(in: 0...255, using: &generator)) }
    return bytes
  }

  private static let byteCounts = [1, 0, 4095, 4096, 70_000, 3, 1 << 20, 300_001, 0, 17]

  /// The bytes of each tensor as `pieces` bring them, which must follow each other.
  private func collected(
    _ loader: TensorLoader, _ parts: [TensorPart]? = nil
  ) throws -> [TensorPart: [UInt8]] {
    var found: [TensorPart: [UInt8]] = [:]
    try loader.stream(parts) { piece in
      let part = TensorPart(piece.tensor, part: piece.part)
      #expect(piece.byteOffset == found[part]?.count ?? 0)
      found[part, default: []] += piece.withBytes(Array.init)
      let isWhole = found[part]?.count == loader.tensors[piece.tensor].partByteCount
      #expect(piece.isLast == isWhole)
    }
    return found
  }

  /// What the file holds of each tensor.
  private func expected(_ file: [UInt8], _ byteCounts: [Int]) -> [[UInt8]] {
    var start = file.count - byteCounts.reduce(0, +)
    return byteCounts.map { count in
      defer { start += count }
      return Array(file[start..<start + count])
    }
  }

  @Test(arguments: [StorageBackend.auto, .pread, .mmap])
  func `A stream brings every byte of every tensor, however pieces are cut`(
    backend: StorageBackend
  ) throws {
    let file = safetensors(Self.byteCounts)
    let path = folder.write("all", file)
    let wanted = expected(file, Self.byteCounts)
    for (piece, extra) in [(8 << 20, 150 << 20), (1 << 16, 8 << 20), (4096, 5 << 20)] {
      let loader = try open(path, backend: backend, pieceByteCount: piece, extra: extra)
      #expect(loader.kind == .safetensors)
      let found = try collected(loader)
      #expect(found.count == wanted.count)
      for (index, bytes) in wanted.enumerated() {
        #expect(found[TensorPart(index)] == bytes, "tensor \(index), pieces of \(piece)")
      }
    }
  }

  @Test func `Lists come in their order, repeated, and single tensors whole`() throws {
    let file = safetensors(Self.byteCounts)
    let loader = try open(folder.write("list", file))
    let wanted = expected(file, Self.byteCounts)
    let list = [9, 4, 3, 6, 0, 1, 7].map { TensorPart($0) }
    var order: [Int] = []
    try loader.stream(list) { piece in
      if order.last != piece.tensor { order.append(piece.tensor) }
    }
    #expect(order == [9, 4, 3, 6, 0, 1, 7])
    for (index, bytes) in wanted.enumerated() {
      #expect(try loader.load("t\(index)").withBytes(0, Array.init) == bytes)
    }
    let several = try loader.load(list)
    for index in list.indices {
      #expect(several.withBytes(index, Array.init) == wanted[list[index].tensor])
    }
    #expect(loader.index(of: "t9") == 9 && loader.index(of: "t10") == nil)
  }

  @Test func `Loads and prefetches go on beside a stream`() throws {
    let file = safetensors(Self.byteCounts)
    let loader = try open(folder.write("both", file))
    let wanted = expected(file, Self.byteCounts)
    try loader.begin()
    var streamed = 0
    while let piece = try loader.next() {
      streamed += piece.byteCount
      let other = (piece.tensor + 4) % wanted.count
      try loader.prefetch([TensorPart(other)])
      #expect(piece.withBytes(Array.init) == wanted[piece.tensor])
      #expect(try loader.load([TensorPart(other)]).withBytes(0, Array.init) == wanted[other])
    }
    #expect(streamed == Self.byteCounts.reduce(0, +))
  }

  @Test func `Models of every format have the same tensors`() throws {
    let gguf = TinyModel.withExperts("qwen3moe").gguf(seed: 2).bytes()
    let image = try ImageBuilder.image(of: gguf)
    let source = try open(folder.write("m.gguf", gguf))
    let converted = try open(folder.write("m.bin", image))
    #expect(source.kind == .gguf && converted.kind == .flashImage)
    #expect(Set(source.tensors.map(\.name)) == Set(converted.tensors.map(\.name)))
    for tensor in source.tensors {
      let other = try converted.tensor(named: tensor.name)
      #expect(other.shape == tensor.shape && other.type == tensor.type)
      #expect(other.partCount == tensor.partCount)
    }
    let pieces = try collected(converted)
    for part in converted.allParts {
      #expect(try converted.load([part]).withBytes(0, Array.init) == pieces[part])
    }
    let bundle = try converted.bundle(layer: 1, expert: 3)
    #expect(bundle.map { converted.tensors[$0.tensor].name }.first == "blk.1.ffn_gate_exps.weight")
    #expect(bundle.count == 3 && bundle.allSatisfy { $0.part == 3 })
    #expect(throws: LoaderError.self) { try converted.bundle(layer: 1, expert: 8) }
  }

  @Test func `A folder of safetensors files is one`() throws {
    let first = safetensors([5000, 6000])
    folder.write("a-1.safetensors", first)
    folder.write("a-2.safetensors", Array(safetensors([7000])))
    folder.write("notes.txt", [1])
    let loader = try open(folder.path)
    #expect(loader.tensors.map(\.byteCount) == [5000, 6000, 7000])
    #expect(try collected(loader)[TensorPart(1)] == expected(first, [5000, 6000])[1])
  }

  @Test func `Damage of an image is found in streams and loads`() throws {
    let intact = try ImageBuilder.image(of: TinyModel().gguf(seed: 3).bytes())
    let description = try ImageBuilder.description(of: intact)
    for (index, record) in description.tensors.enumerated() {
      var damaged = intact
      damaged[record.offset + record.byteCount / 2] ^= 4
      let loader = try open(folder.write("damaged", damaged))
      let errors = [
        failure { try loader.stream { _ in } },
        failure { _ = try loader.load([TensorPart(index)]) },
        failure { try loader.stream([TensorPart(index)]) { _ in } },
      ]
      for error in errors {
        guard case .format(let cause)? = error, cause.kind == .checksumMismatch else {
          Issue.record("\(record.name): \(error.map(String.init(describing:)) ?? "no error")")
          continue
        }
      }
    }
  }

  @Test func `Budgets below what works are refused with what would work`() throws {
    let path = folder.write("small", safetensors(Self.byteCounts))
    let error = failure { _ = try open(path, extra: 1 << 20) }
    guard case .budgetTooSmall(_, let minimum)? = error else {
      Issue.record("\(String(describing: error))")
      return
    }
    #expect(try collected(open(path, extra: minimum.bytes)).count == Self.byteCounts.count)
    guard case .budgetTooSmall? = failure({ _ = try TensorLoader.open(path, ram: 1 << 20) }) else {
      Issue.record("less than the process holds")
      return
    }
  }

  @Test func `Pieces and tensors in use are an error, and no more once they are gone`() throws {
    let path = folder.write("kept", safetensors([Int](repeating: 1 << 20, count: 24)))
    let loader = try open(path, extra: 14 << 20)
    var kept: [TensorPiece] = []
    let error = failure {
      try loader.begin()
      while let piece = try loader.next() { kept.append(piece) }
    }
    guard case .piecesInUse? = error else {
      Issue.record("\(String(describing: error))")
      return
    }
    kept.removeFirst(2)
    #expect(try loader.next() != nil)
    kept = []
    #expect(try collected(loader).count == 24)
    var loaded: [LoadedTensors] = []
    let refusal = failure {
      for index in 0..<24 { loaded.append(try loader.load([TensorPart(index)])) }
    }
    guard case .tensorsInUse? = refusal else {
      Issue.record("\(String(describing: refusal))")
      return
    }
    loaded = []
    #expect(try loader.load([TensorPart(23)]).byteCount() == 1 << 20)
  }

  @Test func `Calls after the end, during another, or of what is not there are errors`() throws {
    let loader = try open(folder.write("closed", safetensors([100, 200])))
    guard case .noSuchTensorIndex(2, 2, _)? = failure({ try loader.begin([TensorPart(2)]) }) else {
      Issue.record("a tensor that is not there")
      return
    }
    guard case .noSuchTensor? = failure({ _ = try loader.load("t2") }) else {
      Issue.record("a name that is not there")
      return
    }
    try loader.begin()
    let piece = try loader.next()
    try loader.close()
    try loader.close()
    #expect(piece?.byteCount == 100)
    guard case .closedByCaller? = failure({ _ = try loader.next() }) else {
      Issue.record("use after closing")
      return
    }
  }

  @Test func `A raised flag ends a stream, which can be begun again`() throws {
    let loader = try open(folder.write("stop", safetensors([1 << 20, 1 << 20])))
    try loader.begin()
    loader.cancellation.raise()
    for _ in 0..<2 {
      guard case .interrupted? = failure({ _ = try loader.next() }) else {
        Issue.record("not interrupted")
        return
      }
    }
    #expect(try collected(loader).count == 2)
  }

  @Test func `A flag raised before a stream or a load ends one of them`() throws {
    let loader = try open(folder.write("early", safetensors([1 << 20, 1 << 20])))
    loader.cancellation.raise()
    guard case .interrupted? = failure({ try loader.stream { _ in } }) else {
      Issue.record("the stream was not interrupted")
      return
    }
    #expect(try collected(loader).count == 2)
    loader.cancellation.raise()
    guard case .interrupted? = failure({ _ = try loader.load("t0") }) else {
      Issue.record("the load was not interrupted")
      return
    }
    #expect(try loader.load("t0").bytes(0).count == 1 << 20)
  }

  @Test func `Foreign and truncated files are errors`() throws {
    let bytes = safetensors(Self.byteCounts)
    for count in [0, 3, 8, 40, bytes.count - 1] {
      let path = folder.write("cut", Array(bytes[..<count]))
      guard case .format? = failure({ _ = try open(path) }) else {
        Issue.record("\(count) bytes")
        continue
      }
    }
    guard case .io? = failure({ _ = try open("/nowhere") }) else {
      Issue.record("no file")
      return
    }
  }

  @Test func `Bytes of types that are not known come as they lie in the file`() throws {
    var generator = SeededGenerator(seed: 2)
    func random(_ count: Int) -> [UInt8] {
      (0..<count).map { _ in UInt8.random(in: 0...255, using: &generator) }
    }
    let contents = [random(96), random(128), random(64), random(4 * 292)]
    let file = TinyGGUF(tensors: [
      .init(name: "fork", type: 144, dimensions: [64, 4], data: contents[0]),
      .init(name: "integers", type: 26, dimensions: [8, 4], data: contents[1]),
      .init(name: "removed", type: 4, dimensions: [32], data: contents[2]),
      .init(name: "intermediate", type: 15, dimensions: [256, 4], data: contents[3]),
    ])
    let loader = try open(folder.write("types.gguf", file.bytes()))
    let found = try collected(loader)
    #expect((0..<4).map { found[TensorPart($0)] } == contents)
    #expect(loader.tensors.map(\.typeName) == ["type 144", "I32", "Q4_2", "Q8_K"])
    #expect(loader.tensors.map(\.partRowCount) == [0, 4, 0, 4])
    let rows = failure { try loader.stream([TensorPart(0, rows: 1..<2)]) { _ in } }
    guard case .noSuchRows = rows else {
      Issue.record("\(String(describing: rows))")
      return
    }
  }
}
