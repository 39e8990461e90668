import CFlashInfer
import Glibc

/// A program that uses the C interface as an input says, and knows what it may expect.
struct CInterfaceMachine {
  /// Memory that the library lends.
  struct Lent {
    var hold: UInt64
    var loader: Int
    var pieces: [Piece]
  }
  struct Piece {
    var tensor: UInt64
    var bytes: UnsafeRawBufferPointer
    var checksum: UInt64
  }

  private var input: InputReader
  private var byteCount: Int
  /// Handles, nil if the place is free or its loader was closed; the last one that was closed.
  var loaders = [OpaquePointer?](repeating: nil, count: 3)
  private var closed: OpaquePointer?
  var lent: [Lent] = []
  /// Where the library says what went wrong.
  // Safety: used under the turn of `CInterfaceTarget.run`.
  nonisolated(unsafe) static let error: UnsafeMutablePointer<flashinfer_error> = {
    let error = UnsafeMutablePointer<flashinfer_error>.allocate(capacity: 1)
    error.initialize(to: flashinfer_error())
    error.pointee.size = MemoryLayout<flashinfer_error>.size
    return error
  }()

  init(_ input: UnsafeRawBufferPointer) {
    self.input = InputReader(input)
    byteCount = input.count
  }

  // MARK: - Input

  /// Whether calls are left.
  var hasMore: Bool { byteCount > 0 }

  mutating func byte() -> UInt8 {
    byteCount -= 1
    return input.byte()
  }

  /// A number that is mostly small.
  mutating func number() -> UInt64 {
    let value = UInt64(byte())
    switch value {
    case 0..<240: return value
    case 240: return .max
    case 241: return UInt64(Int64.max)
    case 242: return UInt64(Int64.max) + 1
    case 243: return 1 << 32
    default: return 1 << (value - 192)
    }
  }

  mutating func loader() -> OpaquePointer? { loaders[Int(byte()) % loaders.count] }

  private mutating func parts() -> [flashinfer_part] {
    (0..<Int(byte() % 6)).map { _ in
      let value = byte()
      return flashinfer_part(
        tensor: value == 255 ? .max : UInt64(value & 31), part: UInt64(value >> 5))
    }
  }

  // MARK: - Loaders

  mutating func open() throws(FuzzFinding) {
    let place = Int(byte()) % loaders.count
    let path = CInterfaceFiles.paths[Int(byte()) % CInterfaceFiles.paths.count]
    let choice = byte()
    var options = flashinfer_options()
    options.size = MemoryLayout<flashinfer_options>.size
    options.ram = choice & 64 == 0 ? 1 << 36 : number()
    // The system takes long to end a ring, and to lend one the memory of usual buffers.
    options.backend = choice & 60 == 60 ? 1 : choice & 1 == 0 ? 2 : 3
    options.piece_bytes = choice & 2 == 0 ? 4096 : 32768
    options.read_bytes = choice & 4 == 0 ? 4096 : 16384
    options.queue_depth = 4
    if choice & 128 != 0 {
      (options.caller_bytes, options.piece_bytes) = (number(), number())
      (options.read_bytes, options.queue_depth) = (number(), UInt32(truncatingIfNeeded: number()))
    }
    var opened = OpaquePointer(bitPattern: 1)
    let status = flashinfer_open(path, &options, &opened, Self.error)
    try Self.expect(status, [0, 3, 4, 5, 7])
    guard status == 0 else {
      return try require(opened == OpaquePointer(bitPattern: 1), "a failed open wrote a handle")
    }
    if loaders[place] != nil { try close(place) }
    loaders[place] = opened
  }

  mutating func close() throws(FuzzFinding) { try close(Int(byte()) % loaders.count) }

  private mutating func close(_ place: Int) throws(FuzzFinding) {
    let loader = loaders[place]
    try Self.expect(flashinfer_close(loader, Self.error), loader == nil ? [3] : [0])
    if loader != nil { closed = loader }
    loaders[place] = nil
  }

  mutating func describe() throws(FuzzFinding) {
    let loader = loader()
    var tensor = flashinfer_tensor()
    tensor.size = MemoryLayout<flashinfer_tensor>.size
    let status = flashinfer_tensor_at(loader, number(), &tensor, Self.error)
    try Self.expect(status, loader == nil ? [3] : [0, 12])
    guard status == 0, let name = tensor.name else { return }
    var index: UInt64 = 0
    try Self.expect(flashinfer_find(loader, name, &index, Self.error), [0])
    try require(
      tensor.part_byte_count <= tensor.byte_count && tensor.dimension_count <= 8,
      "tensor \(index) contradicts itself")
  }

  mutating func find() throws(FuzzFinding) {
    let loader = loader()
    var index: UInt64 = 0
    let name: [CChar] = [CChar(bitPattern: byte()), 0]
    try Self.expect(
      flashinfer_find(loader, name, &index, Self.error), loader == nil ? [3] : [0, 3, 12])
  }

  mutating func stream() throws(FuzzFinding) {
    let loader = loader()
    let isWhole = byte() == 255
    let parts = isWhole ? [] : parts()
    let status = parts.withUnsafeBufferPointer {
      flashinfer_stream(loader, isWhole ? nil : $0.baseAddress, parts.count, Self.error)
    }
    // The reads of the stream before are waited for, and a cancellation ends any wait.
    try Self.expect(status, loader == nil ? [3] : [0, 3, 8, 12])
  }

  mutating func next() throws(FuzzFinding) {
    let place = Int(byte()) % loaders.count
    let wait = Int64(byte() % 3) - 1
    var piece = flashinfer_piece()
    piece.size = MemoryLayout<flashinfer_piece>.size
    let status = flashinfer_next(loaders[place], wait, &piece, Self.error)
    try Self.expect(status, loaders[place] == nil ? [3] : [0, 1, 2, 7, 8])
    if status == 0 { lent.append(Lent(hold: piece.hold, loader: place, pieces: [Piece(piece)])) }
  }

  mutating func prefetch() throws(FuzzFinding) {
    let loader = loader()
    let parts = parts()
    let status = flashinfer_prefetch(loader, parts, parts.count, Self.error)
    try Self.expect(status, loader == nil ? [3] : [0, 3, 7, 12])
    guard status == 0, byte() & 3 == 0 else { return }
    try Self.expect(
      flashinfer_cancel_prefetch(loader, parts, parts.count, Self.error), [0])
  }

  mutating func load() throws(FuzzFinding) {
    let place = Int(byte()) % loaders.count
    let (loader, parts) = (loaders[place], parts())
    let isNewer = byte() & 1 == 1
    let pieces = try Self.pieces(for: parts.map { ($0.tensor, $0.part) }, isNewer: isNewer) {
      array throws(FuzzFinding) in
      let status = flashinfer_load(loader, parts, parts.count, -1, array, Self.error)
      try Self.expect(status, loader == nil ? [3] : [0, 3, 7, 8, 12])
      return status == 0
    }
    guard let pieces else { return }
    lent.append(Lent(hold: pieces[0].hold, loader: place, pieces: pieces.map(Piece.init)))
  }

  /// Hands an array of structures of this or a newer program to a call that fills it in.
  ///
  /// - Returns: What it holds then, nil if the call failed.
  static func pieces(
    for parts: [(tensor: UInt64, part: UInt64)], isNewer: Bool,
    fill: (UnsafeMutablePointer<flashinfer_piece>?) throws(FuzzFinding) -> Bool
  ) throws(FuzzFinding) -> [flashinfer_piece]? {
    let size = MemoryLayout<flashinfer_piece>.size + (isNewer ? 16 : 0)
    let end = size * max(1, parts.count)
    let bytes = UnsafeMutableRawBufferPointer.allocate(byteCount: end + 8, alignment: 16)
    defer { bytes.deallocate() }
    bytes.initializeMemory(as: UInt8.self, repeating: 0xA5)
    bytes.storeBytes(of: size, as: Int.self)
    let isFilled = try fill(bytes.baseAddress?.assumingMemoryBound(to: flashinfer_piece.self))
    try require(bytes[end...].allSatisfy { $0 == 0xA5 }, "written past the last element")
    guard isFilled, !parts.isEmpty else { return nil }
    let filled = parts.indices.map {
      bytes.loadUnaligned(fromByteOffset: $0 * size, as: flashinfer_piece.self)
    }
    for (piece, part) in zip(filled, parts) {
      try require(
        piece.tensor == part.tensor && piece.part == part.part && piece.hold == filled[0].hold,
        "a part that was not asked for")
    }
    return filled
  }

  mutating func release() throws(FuzzFinding) {
    let place = Int(byte())
    guard place < lent.count else {
      return try Self.expect(flashinfer_release(UInt64(place) << 40, Self.error), [9])
    }
    try giveBack(lent.remove(at: place))
  }

  private mutating func giveBack(_ lent: Lent) throws(FuzzFinding) {
    for piece in lent.pieces {
      try require(Piece.sum(piece.bytes) == piece.checksum, "lent memory changed")
    }
    try Self.expect(flashinfer_release(lent.hold, Self.error), [0])
    try Self.expect(flashinfer_release(lent.hold, Self.error), [9])
  }

  mutating func bundle() throws(FuzzFinding) {
    let loader = loader()
    var (parts, count) = ([flashinfer_part](repeating: flashinfer_part(), count: 2), 0)
    let status = flashinfer_bundle(loader, number(), number(), &parts, 2, &count, Self.error)
    try Self.expect(status, loader == nil ? [3] : [0, 3, 12])
  }

  mutating func dequantise() throws(FuzzFinding) {
    let (index, first, rows) = (Int(byte()), number(), number())
    let capacity = Int(byte()) * 16
    guard index < lent.count, let loader = loaders[lent[index].loader],
      let piece = lent[index].pieces.first
    else { return }
    var values = [Float](repeating: -1, count: capacity + 1)
    let status = flashinfer_dequantise(
      loader, piece.tensor, piece.bytes.baseAddress, UInt64(piece.bytes.count), first, rows,
      &values, capacity, Self.error)
    try Self.expect(status, [0, 3, 5, 12])
    try require(values[capacity] == -1, "written past the values")
  }

  mutating func count() throws(FuzzFinding) {
    let loader = loader()
    var count: UInt64 = 0
    try Self.expect(flashinfer_tensor_count(loader, &count, Self.error), loader == nil ? [3] : [0])
    var plan = flashinfer_plan()
    plan.size = Int(truncatingIfNeeded: number())
    guard plan.size <= MemoryLayout<flashinfer_plan>.size || plan.size > 16384 else { return }
    let fits = plan.size == MemoryLayout<flashinfer_plan>.size && loader != nil
    try Self.expect(flashinfer_get_plan(loader, &plan, Self.error), fits ? [0] : [3])
    var statistics = flashinfer_statistics()
    statistics.size = MemoryLayout<flashinfer_statistics>.size
    let status = flashinfer_get_statistics(loader, &statistics, Self.error)
    try Self.expect(status, loader == nil ? [3] : [0])
  }

  mutating func cancelLoader() throws(FuzzFinding) {
    let loader = loader()
    let status = flashinfer_cancel(UnsafeMutableRawPointer(loader), Self.error)
    try Self.expect(status, loader == nil ? [3] : [0])
  }

  /// Handles that are none, or no longer.
  mutating func foreign() throws(FuzzFinding) {
    let chosen = byte()
    let handle =
      chosen < 128
      ? closed : OpaquePointer(bitPattern: UInt(truncatingIfNeeded: number() | 1 << 50))
    guard let handle else { return }
    try Self.expect(flashinfer_close(handle, Self.error), [9])
    try Self.expect(flashinfer_stream(handle, nil, 0, Self.error), [9])
    try Self.expect(flashinfer_generator_close(handle, Self.error), [9])
    try Self.expect(flashinfer_cancel(UnsafeMutableRawPointer(handle), Self.error), [9])
  }

  // MARK: - Text

  mutating func generate() throws(FuzzFinding) {
    let choice = byte()
    let count = byte() % 8
    var prompt: [CChar] = []
    while hasMore {
      let byte = byte()
      if byte == 0 { break }
      prompt.append(CChar(bitPattern: byte))
    }
    try CInterfaceGenerator.shared.generate(
      prompt + [0], ticket: choice & 1 == 1, tokenCount: UInt64(count), stops: choice & 6 == 6,
      isChat: choice & 24 == 24)
  }

  mutating func cancelGenerator() throws(FuzzFinding) {
    try CInterfaceGenerator.shared.cancel(byTicket: byte() & 1 == 1)
  }

  // MARK: - Expectations

  /// Gives everything back.
  mutating func end() throws(FuzzFinding) {
    for place in loaders.indices where loaders[place] != nil { try close(place) }
    for lent in lent { try giveBack(lent) }
    lent = []
    try CInterfaceGenerator.shared.settle()
  }

  /// Checks a status, and that an error says something.
  static func expect(_ status: Int32, _ allowed: Set<Int32>) throws(FuzzFinding) {
    let message = withUnsafeBytes(of: error.pointee.message) {
      String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self)
    }
    try require(allowed.contains(status), "status \(status), not one of \(allowed): \(message)")
    guard status > 1 else { return }
    try require(
      error.pointee.status == status && !message.isEmpty, "status \(status) says '\(message)'")
  }
}

extension CInterfaceMachine.Piece {
  init(_ piece: flashinfer_piece) {
    tensor = piece.tensor
    bytes = UnsafeRawBufferPointer(start: piece.data, count: Int(piece.byte_count))
    checksum = Self.sum(bytes)
  }

  static func sum(_ bytes: UnsafeRawBufferPointer) -> UInt64 {
    bytes.reduce(UInt64(bytes.count)) { $0 &* 31 &+ UInt64($1) }
  }
}
