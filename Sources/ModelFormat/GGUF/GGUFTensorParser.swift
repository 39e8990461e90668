import TensorBasics

/// Parses tensor infos and places the tensors in the file.
struct GGUFTensorParser {
  private let alignment: Int
  private var infos: [GGUFTensorInfo] = []
  private var names = ByteKeyIndex()
  /// Longest tensor name the format allows.
  private static let nameByteLimit = 64
  private static let dimensionLimit = 4

  init(alignment: Int) { self.alignment = alignment }

  /// Parses the info at the cursor; its offset is still relative to the data.
  mutating func parseInfo(_ cursor: inout HeaderCursor) throws(ParseInterruption) {
    let start = cursor.offset
    let name = try parseName(&cursor)
    let dimensions = try parseDimensions(&cursor, name)
    let number = try cursor.read(UInt32.self, "the type of tensor \"\(name)\"")
    let type = StorageType.gguf(number)
    let byteCount = try byteCount(dimensions, type, name, cursor, at: start)
    let offset = try cursor.read(UInt64.self, "the offset of tensor \"\(name)\"")
    guard offset % UInt64(alignment) == 0 else {
      throw cursor.error(
        .malformed, at: cursor.offset - 8,
        "tensor \"\(name)\" has offset \(offset), not a multiple of the alignment \(alignment)")
    }
    guard offset <= UInt64(cursor.fileByteCount) else {
      throw cursor.error(
        .truncated, at: cursor.offset - 8,
        "tensor \"\(name)\" has offset \(offset) in a file of \(cursor.fileByteCount) bytes")
    }
    infos.append(
      GGUFTensorInfo(
        name: name, type: type, typeNumber: number, dimensions: dimensions, offset: Int(offset),
        byteCount: byteCount, infoOffset: start))
  }

  /// Turns offsets into file offsets and checks that tensors lie in the file and do not overlap.
  consuming func place(
    after cursor: HeaderCursor
  ) throws(ParseInterruption) -> (dataOffset: Int, infos: [GGUFTensorInfo]) {
    let dataOffset = (cursor.offset + alignment - 1) & ~(alignment - 1)
    var placed = infos
    for index in placed.indices { placed[index].offset += dataOffset }
    let order = placed.indices.sorted { placed[$0].offset < placed[$1].offset }
    let ends = order.dropFirst().map { placed[$0].offset } + [cursor.fileByteCount]
    for (index, end) in zip(order, ends) where placed[index].type.isOpaque {
      placed[index].byteCount = max(0, end - placed[index].offset)
    }
    for info in placed
    where info.offset > cursor.fileByteCount || info.byteCount > cursor.fileByteCount - info.offset
    {
      throw cursor.error(
        .truncated, at: info.infoOffset,
        "tensor \"\(info.name)\" (\(info.byteCount) bytes at byte \(info.offset)) does not lie in the"
          + " file of \(cursor.fileByteCount) bytes")
    }
    for (first, second) in zip(order, order.dropFirst()) {
      try checkGap(placed[first], placed[second], cursor)
    }
    return (dataOffset, placed)
  }

  /// Refuses neighbours that overlap or lie further apart than padding, as llama.cpp does: the type or a dimension
  /// of the first is not what was written.
  private func checkGap(
    _ first: GGUFTensorInfo, _ second: GGUFTensorInfo, _ cursor: HeaderCursor
  ) throws(ParseInterruption) {
    let end = first.offset + first.byteCount
    guard end <= second.offset else {
      throw cursor.error(
        .malformed, at: second.infoOffset,
        "tensors \"\(first.name)\" and \"\(second.name)\" overlap")
    }
    guard second.offset - end < alignment else {
      throw cursor.error(
        .malformed, at: first.infoOffset,
        "tensor \"\(first.name)\" (\(first.type.name), \(first.byteCount) bytes) leaves "
          + "\(second.offset - end) bytes before \"\(second.name)\", more than padding to \(alignment): its type or "
          + "its dimensions are damaged; download the file again")
    }
  }

  private mutating func parseName(
    _ cursor: inout HeaderCursor
  ) throws(ParseInterruption) -> String {
    let start = cursor.offset
    let length = try cursor.read(UInt64.self, "a tensor name")
    guard (1...UInt64(Self.nameByteLimit)).contains(length) else {
      throw cursor.error(
        .malformed, at: start,
        "a tensor name of \(length) bytes; 1 to \(Self.nameByteLimit) are allowed")
    }
    let range = try cursor.skip(length, "a tensor name")
    guard let name = String(validating: cursor.slice(range), as: UTF8.self) else {
      throw cursor.error(.malformed, at: range.lowerBound, "a tensor name is not UTF-8")
    }
    guard names.insert(range, in: cursor.bytes) else {
      throw cursor.error(.malformed, at: start, "tensor \"\(name)\" appears twice")
    }
    return name
  }

  private func parseDimensions(
    _ cursor: inout HeaderCursor, _ name: String
  ) throws(ParseInterruption) -> [Int] {
    let count = try cursor.read(UInt32.self, "the dimension count of tensor \"\(name)\"")
    guard (1...UInt32(Self.dimensionLimit)).contains(count) else {
      throw cursor.error(
        .malformed, at: cursor.offset - 4,
        "tensor \"\(name)\" has \(count) dimensions; 1 to \(Self.dimensionLimit) are allowed")
    }
    var dimensions: [Int] = []
    var product = 1
    for _ in 0..<count {
      let length = try cursor.read(UInt64.self, "the dimensions of tensor \"\(name)\"")
      let (next, overflow) = product.multipliedReportingOverflow(by: Int(clamping: length))
      guard length > 0, !overflow, length <= UInt64(Int.max) else {
        throw cursor.error(
          .malformed, at: cursor.offset - 8,
          "tensor \"\(name)\" has a dimension of \(length)")
      }
      product = next
      dimensions.append(Int(length))
    }
    return dimensions
  }

  private func byteCount(
    _ dimensions: [Int], _ type: StorageType, _ name: String, _ cursor: HeaderCursor, at start: Int
  ) throws(ParseInterruption) -> Int {
    guard !type.isOpaque else { return 0 }
    guard dimensions[0] % type.blockElementCount == 0 else {
      throw cursor.error(
        .malformed, at: start,
        "tensor \"\(name)\" has rows of \(dimensions[0]) elements, not whole blocks of"
          + " \(type.blockElementCount) as \(type.name) needs")
    }
    let rowCount = dimensions.dropFirst().reduce(1, *)
    let (rowByteCount, isTooLong) = (dimensions[0] / type.blockElementCount)
      .multipliedReportingOverflow(by: type.blockByteCount)
    let (byteCount, overflow) = rowByteCount.multipliedReportingOverflow(by: rowCount)
    guard !isTooLong, !overflow, byteCount <= cursor.fileByteCount else {
      throw cursor.error(
        .truncated, at: start,
        "tensor \"\(name)\" (\(type.name), \(rowCount) rows of \(dimensions[0])) is larger than the"
          + " file of \(cursor.fileByteCount) bytes")
    }
    return byteCount
  }
}
