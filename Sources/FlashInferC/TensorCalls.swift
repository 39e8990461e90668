// The functions have the names of flashinfer.h.
// swift-format-ignore-file: AlwaysUseLowerCamelCase

public import CFlashInfer
import ModelFormat
import TensorBasics
import WeightLoader

@c @implementation
public func flashinfer_stream(
  _ loader: OpaquePointer?, _ parts: UnsafePointer<flashinfer_part>?, _ count: Int,
  _ error: UnsafeMutablePointer<flashinfer_error>?
) -> flashinfer_status {
  call(error) {
    let loader = try LoaderHandle.find(loader).loader
    try loader.begin(parts == nil ? nil : try list(parts, count))
    return .ok
  }
}

/// The elements of C's list, of which there may be so many and no more.
private func elements<Element>(
  _ list: UnsafePointer<Element>?, _ count: Int, _ name: String
) throws(CallError) -> UnsafeBufferPointer<Element> {
  let list = try required(list, name)
  guard (0...Int(FLASHINFER_LIST_LIMIT)).contains(count) else {
    throw CallError(
      .invalid, "count is \(UInt(bitPattern: count)), more than \(FLASHINFER_LIST_LIMIT)")
  }
  return UnsafeBufferPointer(start: list, count: count)
}

/// C's list of parts as the loader's.
private func list(
  _ parts: UnsafePointer<flashinfer_part>?, _ count: Int
) throws(CallError) -> [TensorPart] {
  var list: [TensorPart] = []
  for (index, part) in try elements(parts, count, "parts").enumerated() {
    list.append(
      TensorPart(
        try integer(part.tensor, "parts[\(index)].tensor"),
        part: try integer(part.part, "parts[\(index)].part")))
  }
  return list
}

/// C's list of rows as the loader's.
private func list(
  _ rows: UnsafePointer<flashinfer_rows>?, _ count: Int, of loader: TensorLoader
) throws(CallError) -> [TensorPart] {
  var list: [TensorPart] = []
  for (index, rows) in try elements(rows, count, "rows").enumerated() {
    let name = "rows[\(index)]"
    let tensor = try tensorIndex(rows.tensor, of: loader)
    let part = try integer(rows.part, name + ".part")
    if rows.first_row == 0, rows.row_count == .max {
      // The whole part, which also those tensors have whose rows are not known.
      list.append(TensorPart(tensor, part: part))
      continue
    }
    let first = try integer(rows.first_row, name + ".first_row")
    let wanted =
      rows.row_count == .max
      ? max(0, loader.tensors[tensor].partRowCount - first)
      : try integer(rows.row_count, name + ".row_count")
    let (end, overflows) = first.addingReportingOverflow(wanted)
    guard !overflows else {
      throw CallError(.invalid, "\(name) ends at a row beyond 2^63")
    }
    list.append(TensorPart(tensor, part: part, rows: first..<end))
  }
  return list
}

/// The longest wait as the loader takes it; nil = as long as it takes.
private func timeout(_ milliseconds: Int64) -> Int? {
  milliseconds < 0 ? nil : Int(milliseconds)
}

@c @implementation
public func flashinfer_next(
  _ loader: OpaquePointer?, _ timeout_milliseconds: Int64,
  _ piece: UnsafeMutablePointer<flashinfer_piece>?, _ error: UnsafeMutablePointer<flashinfer_error>?
) -> flashinfer_status {
  call(error) {
    let piece = try required(piece, "piece")
    let size = try flashinfer_piece.size(at: piece, "piece")
    let loader = try LoaderHandle.find(loader).loader
    switch try loader.next(timeoutMilliseconds: timeout(timeout_milliseconds)) {
    case .end: return .end
    case .timedOut: return .timeout
    case .piece(let found):
      flashinfer_piece(
        size: size, hold: HandleTable.shared.add(found), data: found.bytes.baseAddress,
        byte_count: UInt64(found.bytes.count), tensor: UInt64(found.tensor),
        part: UInt64(found.part), byte_offset: UInt64(found.byteOffset),
        is_last: found.isLast ? 1 : 0, reserved: 0, first_row: UInt64(found.rows.lowerBound),
        row_count: UInt64(found.rows.count)
      ).write(to: piece, size: size)
      return .ok
    }
  }
}

@c @implementation
public func flashinfer_release(
  _ hold: flashinfer_hold, _ error: UnsafeMutablePointer<flashinfer_error>?
) -> flashinfer_status {
  call(error) {
    try HandleTable.shared.removeHold(hold)
    return .ok
  }
}

extension HandleTable {
  /// Lets go of memory that was lent.
  fileprivate func removeHold(_ hold: UInt64) throws(CallError) {
    do throws(CallError) { try remove(hold, as: TensorPiece.self) } catch {
      do throws(CallError) { try remove(hold, as: LoadedTensors.self) } catch {
        try remove(hold, as: HeldMemory.self)
      }
    }
  }
}

@c @implementation
public func flashinfer_stream_rows(
  _ loader: OpaquePointer?, _ rows: UnsafePointer<flashinfer_rows>?, _ count: Int,
  _ error: UnsafeMutablePointer<flashinfer_error>?
) -> flashinfer_status {
  call(error) {
    let loader = try LoaderHandle.find(loader).loader
    try loader.begin(try list(rows, count, of: loader))
    return .ok
  }
}

@c @implementation
public func flashinfer_prefetch(
  _ loader: OpaquePointer?, _ parts: UnsafePointer<flashinfer_part>?, _ count: Int,
  _ error: UnsafeMutablePointer<flashinfer_error>?
) -> flashinfer_status {
  call(error) {
    try LoaderHandle.find(loader).loader.prefetch(try list(parts, count))
    return .ok
  }
}

@c @implementation
public func flashinfer_prefetch_rows(
  _ loader: OpaquePointer?, _ rows: UnsafePointer<flashinfer_rows>?, _ count: Int,
  _ error: UnsafeMutablePointer<flashinfer_error>?
) -> flashinfer_status {
  call(error) {
    let loader = try LoaderHandle.find(loader).loader
    try loader.prefetch(try list(rows, count, of: loader))
    return .ok
  }
}

@c @implementation
public func flashinfer_cancel_prefetch(
  _ loader: OpaquePointer?, _ parts: UnsafePointer<flashinfer_part>?, _ count: Int,
  _ error: UnsafeMutablePointer<flashinfer_error>?
) -> flashinfer_status {
  call(error) {
    try LoaderHandle.find(loader).loader.cancelPrefetch(try list(parts, count))
    return .ok
  }
}

@c @implementation
public func flashinfer_cancel_prefetch_rows(
  _ loader: OpaquePointer?, _ rows: UnsafePointer<flashinfer_rows>?, _ count: Int,
  _ error: UnsafeMutablePointer<flashinfer_error>?
) -> flashinfer_status {
  call(error) {
    let loader = try LoaderHandle.find(loader).loader
    try loader.cancelPrefetch(try list(rows, count, of: loader))
    return .ok
  }
}

/// C's array of pieces, whose elements have the caller's size.
private struct PieceArray {
  private let start: UnsafeMutableRawPointer
  private let size: Int

  /// - Parameter count: of the list that is to be loaded, which must not be empty.
  init(_ pieces: UnsafeMutablePointer<flashinfer_piece>?, count: Int) throws(CallError) {
    guard count > 0 else { throw CallError(.invalid, "count is 0: nothing to load") }
    start = UnsafeMutableRawPointer(try required(pieces, "pieces"))
    size = try flashinfer_piece.size(at: start, "pieces")
  }

  /// Fills in entry `index`: `part`, of which `bytes` have come.
  func fill(
    _ index: Int, _ part: TensorPart, _ bytes: UnsafeRawBufferPointer, rows: Range<Int>,
    hold: UInt64, of loader: TensorLoader
  ) {
    flashinfer_piece(
      size: size, hold: hold, data: bytes.baseAddress, byte_count: UInt64(bytes.count),
      tensor: UInt64(part.tensor), part: UInt64(part.part),
      byte_offset: UInt64(loader.tensors[part.tensor].byteOffset(ofRow: rows.lowerBound)),
      is_last: 1, reserved: 0, first_row: UInt64(rows.lowerBound), row_count: UInt64(rows.count)
    ).write(to: start + index * size, size: size)
  }
}

@c @implementation
public func flashinfer_load(
  _ loader: OpaquePointer?, _ parts: UnsafePointer<flashinfer_part>?, _ count: Int,
  _ timeout_milliseconds: Int64, _ pieces: UnsafeMutablePointer<flashinfer_piece>?,
  _ error: UnsafeMutablePointer<flashinfer_error>?
) -> flashinfer_status {
  call(error) {
    let loader = try LoaderHandle.find(loader).loader
    return try load(try list(parts, count), timeout_milliseconds, pieces, of: loader)
  }
}

@c @implementation
public func flashinfer_load_rows(
  _ loader: OpaquePointer?, _ rows: UnsafePointer<flashinfer_rows>?, _ count: Int,
  _ timeout_milliseconds: Int64, _ pieces: UnsafeMutablePointer<flashinfer_piece>?,
  _ error: UnsafeMutablePointer<flashinfer_error>?
) -> flashinfer_status {
  call(error) {
    let loader = try LoaderHandle.find(loader).loader
    return try load(try list(rows, count, of: loader), timeout_milliseconds, pieces, of: loader)
  }
}

/// Loads a list and fills C's pieces in.
private func load(
  _ list: [TensorPart], _ milliseconds: Int64, _ pieces: UnsafeMutablePointer<flashinfer_piece>?,
  of loader: TensorLoader
) throws -> Status {
  let pieces = try PieceArray(pieces, count: list.count)
  guard let loaded = try loader.load(list, timeoutMilliseconds: timeout(milliseconds)) else {
    return .timeout
  }
  let hold = HandleTable.shared.add(loaded)
  for (index, part) in list.enumerated() {
    pieces.fill(
      index, part, loaded.bytes(index), rows: loaded.rows(index), hold: hold, of: loader)
  }
  return .ok
}

@c @implementation
public func flashinfer_load_byte_count(
  _ loader: OpaquePointer?, _ rows: UnsafePointer<flashinfer_rows>?, _ count: Int,
  _ byte_count: UnsafeMutablePointer<UInt64>?, _ error: UnsafeMutablePointer<flashinfer_error>?
) -> flashinfer_status {
  call(error) {
    let byteCount = try required(byte_count, "byte_count")
    let loader = try LoaderHandle.find(loader).loader
    byteCount.pointee = UInt64(try loader.loadByteCount(try list(rows, count, of: loader)))
    return .ok
  }
}

@c @implementation
public func flashinfer_load_into(
  _ loader: OpaquePointer?, _ rows: UnsafePointer<flashinfer_rows>?, _ count: Int,
  _ memory: UnsafeMutableRawPointer?, _ byte_count: UInt64,
  _ pieces: UnsafeMutablePointer<flashinfer_piece>?,
  _ error: UnsafeMutablePointer<flashinfer_error>?
) -> flashinfer_status {
  call(error) {
    let loader = try LoaderHandle.find(loader).loader
    let list = try list(rows, count, of: loader)
    let pieces = try PieceArray(pieces, count: list.count)
    let destination = UnsafeMutableRawBufferPointer(
      start: try required(memory, "memory"), count: Int(clamping: byte_count))
    let loaded = try loader.load(list, into: destination)
    for (index, part) in list.enumerated() {
      pieces.fill(
        index, part,
        UnsafeRawBufferPointer(
          rebasing: UnsafeRawBufferPointer(destination)[loaded[index].bytes]),
        rows: loaded[index].rows, hold: 0, of: loader)
    }
    return .ok
  }
}

@c @implementation
public func flashinfer_allocate(
  _ loader: OpaquePointer?, _ byte_count: UInt64,
  _ data: UnsafeMutablePointer<UnsafeMutableRawPointer?>?,
  _ hold: UnsafeMutablePointer<flashinfer_hold>?, _ error: UnsafeMutablePointer<flashinfer_error>?
) -> flashinfer_status {
  call(error) {
    let data = try required(data, "data")
    let hold = try required(hold, "hold")
    let loader = try LoaderHandle.find(loader).loader
    let memory = try loader.allocate(byteCount: try integer(byte_count, "byte_count"))
    data.pointee = memory.bytes.baseAddress
    hold.pointee = HandleTable.shared.add(memory)
    return .ok
  }
}

@c @implementation
public func flashinfer_dequantise(
  _ loader: OpaquePointer?, _ tensor: UInt64, _ data: UnsafeRawPointer?, _ byte_count: UInt64,
  _ first_row: UInt64, _ row_count: UInt64, _ values: UnsafeMutablePointer<Float>?,
  _ capacity: Int, _ error: UnsafeMutablePointer<flashinfer_error>?
) -> flashinfer_status {
  call(error) {
    let loader = try LoaderHandle.find(loader).loader
    let index = try tensorIndex(tensor, of: loader)
    let data = try required(data, "data")
    let values = try required(values, "values")
    let first = try integer(first_row, "first_row")
    let (end, overflows) = first.addingReportingOverflow(try integer(row_count, "row_count"))
    guard !overflows else { throw CallError(.invalid, "first_row and row_count reach beyond 2^63") }
    try loader.dequantise(
      index,
      UnsafeRawBufferPointer(start: data, count: try integer(byte_count, "byte_count")),
      rows: first..<end, into: UnsafeMutableBufferPointer(start: values, count: size(capacity)))
    return .ok
  }
}
