import Glibc
import KVCache
import ModelFormat
import TensorBasics
import TestSupport

/// Makes entries whose data says what it stands for.
struct EntryMaker {
  var origin = KeyValueOrigin(
    model: .content(7), graph: 1, type: "f16", layerCount: 2, keyValueHeadCount: 1, headDim: 8,
    rowByteCount: 4000, rowStride: 4096)
  var directory: KeyValueDirectory

  /// The row of a layer that ends a sequence of tokens: made from all of them.
  func row(_ tokens: ArraySlice<Int32>, layer: Int) -> [UInt8] {
    var seed = UInt64(layer + 1)
    for token in tokens { seed = (seed ^ UInt64(UInt32(bitPattern: token))) &* 0x100_0000_01B3 }
    var generator = SeededGenerator(seed: seed)
    return (0..<origin.rowByteCount).map { _ in UInt8(truncatingIfNeeded: generator.next()) }
  }

  /// Stores slabs of `tokens` after what the store holds of them, with `keepsPartial` the last one in part.
  @discardableResult
  func store(
    _ tokens: [Int32], text: String = "text", keepsPartial: Bool = false
  ) throws -> KeyValueEntryWriter.Outcome {
    let length = KeyValueOrigin.slabPositionCount
    let slabCount = tokens.count / length
    let prefix = directory.prefix(of: tokens + [0], origin: origin)
    let writer = try KeyValueEntryWriter(
      in: directory, origin: origin, slabCapacity: slabCount + 3,
      modelName: "tiny")
    let file = open(writer.path, O_WRONLY)
    defer { close(file) }
    var checksums: [UInt64] = []
    var offset = writer.dataOffset + prefix.slabCount * origin.slabByteCount
    for slab in prefix.slabCount..<max(prefix.slabCount, slabCount) {
      for layer in 0..<origin.layerCount {
        let row = row(tokens[..<((slab + 1) * length)], layer: layer)
        checksums.append(row.withUnsafeBytes(FlashImage.checksum))
        precondition(pwrite(file, row, row.count, off_t(offset)) == row.count)
        offset += origin.rowStride
      }
    }
    let buffer = try AlignedBuffer(byteCount: origin.rowStride)
    let partial = KeyValueEntryWriter.PartialSlab(positionCount: tokens.count % length) { layer in
      buffer.bytes.copyBytes(from: row(tokens[...], layer: layer))
      return UnsafeRawBufferPointer(buffer.bytes)
    }
    return try writer.commit(
      after: prefix, tokens: tokens, rowChecksums: checksums,
      partial: keepsPartial ? partial : nil, text: Array(text.utf8))
  }

  /// How many tokens of `prompt` are found in whole slabs, having checked that the data is theirs.
  func found(_ prompt: [Int32]) -> Int? {
    let prefix = directory.prefix(of: prompt, origin: origin)
    return isIntact(prefix, of: prompt)
      ? prefix.slabCount * KeyValueOrigin.slabPositionCount : nil
  }

  /// Whether a prefix's sources hold the rows of `prompt`.
  func isIntact(_ prefix: KeyValuePrefix, of prompt: [Int32]) -> Bool {
    rows(prefix, of: prompt).allSatisfy { $0.isRight && $0.isBelieved }
  }

  /// Whether every row that is not of `prompt` betrays itself by its checksum.
  func isNeverWrong(_ prefix: KeyValuePrefix, of prompt: [Int32]) -> Bool {
    rows(prefix, of: prompt).allSatisfy { $0.isRight || !$0.isBelieved }
  }

  /// For each row whether it is that of `prompt`, and whether its checksum agrees.
  private func rows(
    _ prefix: KeyValuePrefix, of prompt: [Int32]
  ) -> [(isRight: Bool, isBelieved: Bool)] {
    var rows: [(isRight: Bool, isBelieved: Bool)] = []
    for source in prefix.sources {
      precondition(source.firstSlab * origin.layerCount == rows.count, "sources follow each other")
      let file = open(source.path, O_RDONLY)
      defer { close(file) }
      for index in 0..<source.slabCount * origin.layerCount {
        var bytes = [UInt8](repeating: 0, count: origin.rowByteCount)
        let offset = source.dataOffset + index * origin.rowStride
        let count = pread(file, &bytes, bytes.count, off_t(offset))
        let (slab, layer) = rows.count.quotientAndRemainder(dividingBy: origin.layerCount)
        let end = (slab + 1) * KeyValueOrigin.slabPositionCount
        rows.append(
          (
            isRight: count == bytes.count && bytes == row(prompt[..<end], layer: layer),
            isBelieved: bytes.withUnsafeBytes(FlashImage.checksum) == source.rowChecksums[index]
          ))
      }
    }
    return rows
  }

  /// `count` seeded tokens.
  static func tokens(_ count: Int, seed: UInt64) -> [Int32] {
    var generator = SeededGenerator(seed: seed)
    return (0..<count).map { _ in Int32.random(in: 0..<1000, using: &generator) }
  }
}
