// The functions have the names of flashinfer.h.
// swift-format-ignore-file: AlwaysUseLowerCamelCase

public import CFlashInfer
import Kernels
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

/// C's list of parts as the loader's.
private func list(
  _ parts: UnsafePointer<flashinfer_part>?, _ count: Int
) throws(CallError) -> [TensorPart] {
  let parts = try required(parts, "parts")
  guard (0...Int(FLASHINFER_LIST_LIMIT)).contains(count) else {
    throw CallError(
      .invalid, "count is \(UInt(bitPattern: count)), more than \(FLASHINFER_LIST_LIMIT)")
  }
  var list: [TensorPart] = []
  for index in 0..<count {
    list.append(
      TensorPart(
        try integer(parts[index].tensor, "parts[\(index)].tensor"),
        part: try integer(parts[index].part, "parts[\(index)].part")))
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
        is_last: found.isLast ? 1 : 0, reserved: 0
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
      try remove(hold, as: LoadedTensors.self)
    }
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
public func flashinfer_load(
  _ loader: OpaquePointer?, _ parts: UnsafePointer<flashinfer_part>?, _ count: Int,
  _ timeout_milliseconds: Int64, _ pieces: UnsafeMutablePointer<flashinfer_piece>?,
  _ error: UnsafeMutablePointer<flashinfer_error>?
) -> flashinfer_status {
  call(error) {
    let loader = try LoaderHandle.find(loader).loader
    let list = try list(parts, count)
    guard !list.isEmpty else { throw CallError(.invalid, "count is 0: nothing to load") }
    // Elements have the caller's size.
    let pieces = UnsafeMutableRawPointer(try required(pieces, "pieces"))
    let size = try flashinfer_piece.size(at: pieces, "pieces")
    guard
      let loaded = try loader.load(list, timeoutMilliseconds: timeout(timeout_milliseconds))
    else { return .timeout }
    let hold = HandleTable.shared.add(loaded)
    for (index, part) in list.enumerated() {
      let bytes = loaded.bytes(index)
      flashinfer_piece(
        size: size, hold: hold, data: bytes.baseAddress, byte_count: UInt64(bytes.count),
        tensor: UInt64(part.tensor), part: UInt64(part.part), byte_offset: 0, is_last: 1,
        reserved: 0
      ).write(to: pieces + index * size, size: size)
    }
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
    let record = loader.tensors[try tensorIndex(tensor, of: loader)]
    guard let type = record.type.elementType else {
      throw CallError(
        .badData,
        "tensor '\(record.name)' is of type \(record.type.name), which weights do not have")
    }
    let data = try required(data, "data")
    let values = try required(values, "values")
    let (first, count) = (
      try integer(first_row, "first_row"), try integer(row_count, "row_count")
    )
    let columnCount = record.columnCount
    // A row, or a group of sixteen.
    let unitByteCount = record.unitByteCount
    let unitRowCount = record.layout == .interleaved ? RowGroup.rowCount : 1
    let held =
      unitByteCount == 0
      ? 0 : try integer(byte_count, "byte_count") / unitByteCount * unitRowCount
    guard first <= held, count <= held - first else {
      throw CallError(
        .invalid,
        "\(byte_count) bytes of '\(record.name)' hold \(held) rows, not \(count) from row \(first)")
    }
    let needed = count.multipliedReportingOverflow(by: columnCount)
    guard !needed.overflow, needed.partialValue <= size(capacity) else {
      throw CallError(
        .invalid,
        "values has room for \(size(capacity)) floats; \(count) rows of \(columnCount) do not fit")
    }
    for row in 0..<count {
      let output = values + row * columnCount
      let place = first + row
      let unit = data + place / unitRowCount * unitByteCount
      switch record.layout {
      case .interleaved:
        Dequantisation.row(
          inGroup: unit, row: place % unitRowCount, type: type, columnCount: columnCount,
          into: output)
      case .rowMajor:
        Dequantisation.row(unit, type: type, columnCount: columnCount, into: output)
      }
    }
    return .ok
  }
}
