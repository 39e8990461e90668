import CFlashInfer
import Glibc

/// Calls for metadata, files, rows and the caller's own memory.
extension CInterfaceMachine {
  mutating func metadata() throws(FuzzFinding) {
    let loader = loader()
    let (index, capacity) = (number(), Int(byte()))
    var count: UInt64 = 0
    try Self.expect(
      flashinfer_metadata_count(loader, &count, Self.error), loader == nil ? [3] : [0])
    var metadata = flashinfer_metadata()
    metadata.size = MemoryLayout<flashinfer_metadata>.size
    let status = flashinfer_metadata_at(loader, index, &metadata, Self.error)
    try Self.expect(status, loader == nil ? [3] : index < count ? [0] : [12])
    var values = [UInt8](repeating: 0xA5, count: capacity + 1)
    let read = flashinfer_metadata_read(loader, index, &values, capacity, Self.error)
    try require(values[capacity] == 0xA5, "written past the value")
    guard status == 0, let key = metadata.key else {
      return try Self.expect(read, loader == nil ? [3] : [12])
    }
    try Self.expect(read, metadata.byte_count <= UInt64(capacity) ? [0] : [3])
    var first: UInt64 = 0
    try Self.expect(flashinfer_metadata_find(loader, key, &first, Self.error), [0])
    try require(first <= index, "the first entry of a key comes after another")
  }

  mutating func file() throws(FuzzFinding) {
    let loader = loader()
    let (index, capacity) = (number(), Int(byte()))
    var path = [CChar](repeating: 0x55, count: capacity + 1)
    var byteCount = 0
    let status = path.withUnsafeMutableBufferPointer {
      flashinfer_file_at(
        loader, index, capacity == 0 ? nil : $0.baseAddress, capacity, &byteCount, Self.error)
    }
    try Self.expect(status, loader == nil ? [3] : [0, 12])
    try require(path[capacity] == 0x55, "written past the path")
    guard status == 0 else { return }
    try require(
      byteCount > 0 && (byteCount >= capacity || strlen(path) == byteCount), "a path cut short")
  }

  private mutating func rows() -> [flashinfer_rows] {
    (0..<Int(byte() % 5)).map { _ in
      let value = byte()
      return flashinfer_rows(
        tensor: value == 255 ? .max : UInt64(value & 31), part: UInt64(value >> 5),
        first_row: number(), row_count: number())
    }
  }

  mutating func streamRows() throws(FuzzFinding) {
    let loader = loader()
    let rows = rows()
    let status = flashinfer_stream_rows(loader, rows, rows.count, Self.error)
    try Self.expect(status, loader == nil ? [3] : [0, 3, 8, 12])
  }

  mutating func prefetchRows() throws(FuzzFinding) {
    let loader = loader()
    let rows = rows()
    let status = flashinfer_prefetch_rows(loader, rows, rows.count, Self.error)
    try Self.expect(status, loader == nil ? [3] : [0, 3, 7, 12])
  }

  mutating func loadRows() throws(FuzzFinding) {
    let place = Int(byte()) % loaders.count
    let (loader, rows) = (loaders[place], rows())
    let isNewer = byte() & 1 == 1
    let pieces = try Self.pieces(for: rows.map { ($0.tensor, $0.part) }, isNewer: isNewer) {
      array throws(FuzzFinding) in
      let status = flashinfer_load_rows(loader, rows, rows.count, -1, array, Self.error)
      try Self.expect(status, loader == nil ? [3] : [0, 3, 7, 8, 12])
      return status == 0
    }
    guard let pieces else { return }
    try Self.check(pieces, are: rows)
    lent.append(Lent(hold: pieces[0].hold, loader: place, pieces: pieces.map(Piece.init)))
  }

  /// Into memory that begins where the call wants it, or a little after, and may be too short.
  mutating func loadInto() throws(FuzzFinding) {
    let loader = loader()
    let rows = rows()
    let (capacity, shift) = (Int(byte()) * 4096, byte() == 255 ? 512 : 0)
    var byteCount: UInt64 = 0
    let counted = flashinfer_load_byte_count(loader, rows, rows.count, &byteCount, Self.error)
    try Self.expect(counted, loader == nil ? [3] : [0, 3, 12])
    let memory = UnsafeMutableRawBufferPointer.allocate(
      byteCount: capacity + 4096 + 8, alignment: 4096)
    defer { memory.deallocate() }
    memory.initializeMemory(as: UInt8.self, repeating: 0xA5)
    let base = memory.baseAddress.map { $0 + shift }
    let isNewer = byte() & 1 == 1
    let pieces = try Self.pieces(for: rows.map { ($0.tensor, $0.part) }, isNewer: isNewer) {
      array throws(FuzzFinding) in
      let status = flashinfer_load_into(
        loader, rows, rows.count, base, UInt64(capacity), array, Self.error)
      try Self.expect(status, loader == nil ? [3] : [0, 3, 7, 8, 12])
      try require(
        status != 0 || shift == 0 && byteCount <= UInt64(capacity),
        "read into memory that is too short or begins amid a page")
      return status == 0
    }
    try require(
      memory[(shift + capacity)...].allSatisfy { $0 == 0xA5 }, "written past the caller's memory")
    guard let pieces, let base else { return }
    try Self.check(pieces, are: rows)
    for piece in pieces where piece.byte_count > 0 {
      let start = UnsafeRawPointer(base).distance(to: piece.data)
      try require(
        piece.hold == 0 && start >= 0 && start + Int(piece.byte_count) <= capacity,
        "a piece outside the caller's memory")
    }
  }

  mutating func allocate() throws(FuzzFinding) {
    let place = Int(byte()) % loaders.count
    let byteCount = number()
    var (data, hold) = (UnsafeMutableRawPointer?.none, UInt64(0))
    let status = flashinfer_allocate(loaders[place], byteCount, &data, &hold, Self.error)
    try Self.expect(status, loaders[place] == nil ? [3] : [0, 3, 7])
    guard status == 0 else { return }
    let bytes = UnsafeMutableRawBufferPointer(start: data, count: Int(byteCount))
    try require(
      UInt(bitPattern: data) % 4096 == 0 && bytes.allSatisfy { $0 == 0 },
      "lent memory is not aligned, or not zero")
    bytes.initializeMemory(as: UInt8.self, repeating: UInt8(truncatingIfNeeded: byteCount))
    var piece = flashinfer_piece()
    (piece.tensor, piece.data, piece.byte_count) = (.max, UnsafeRawPointer(data), byteCount)
    lent.append(Lent(hold: hold, loader: place, pieces: [Piece(piece)]))
  }

  /// Checks that pieces hold the rows that were asked for.
  private static func check(
    _ pieces: [flashinfer_piece], are rows: [flashinfer_rows]
  ) throws(FuzzFinding) {
    for (piece, rows) in zip(pieces, rows) {
      let end = rows.row_count == .max ? piece.first_row : rows.first_row + rows.row_count
      try require(
        piece.first_row <= rows.first_row && piece.first_row + piece.row_count >= end,
        "rows \(piece.first_row) and \(piece.row_count) for \(rows.first_row), \(rows.row_count)")
    }
  }
}
