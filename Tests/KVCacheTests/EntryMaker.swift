import Glibc
import KVCache
import ModelFormat
import TensorBasics
import TestSupport

/// Makes entries whose data says what it stands for.
struct EntryMaker {
  var origin = KeyValueOrigin(
    model: .content(7), graph: 1, type: "f16", layerCount: 2, keyValueHeadCount: 1, headDim: 8,
    pageByteCount: 4000, pageStride: 4096)
  var directory: KeyValueDirectory
  /// Bytes of a page that is not complete.
  var tailPageByteCount = 4000

  /// The page of a layer that ends a sequence of tokens: made from all of them.
  func page(_ tokens: ArraySlice<Int32>, layer: Int) -> [UInt8] {
    var seed = UInt64(layer + 1)
    for token in tokens { seed = (seed ^ UInt64(UInt32(bitPattern: token))) &* 0x100_0000_01B3 }
    var generator = SeededGenerator(seed: seed)
    return (0..<origin.pageByteCount).map { _ in UInt8(truncatingIfNeeded: generator.next()) }
  }

  /// The page of a layer that is not complete: what a complete one would hold, and zeros.
  func tailPage(_ tokens: ArraySlice<Int32>, layer: Int) -> [UInt8] {
    let page = page(tokens, layer: layer).prefix(tailPageByteCount)
    return page + [UInt8](repeating: 0, count: tailPageByteCount - page.count)
  }

  /// Stores page groups of `tokens` after what the store holds of them, with `keepsPartial` the last one in part, and the
  /// logits after the last token.
  @discardableResult
  func store(
    _ tokens: [Int32], text: String = "text", keepsPartial: Bool = false, logits: [Float] = [],
    statesAfter positions: [Int] = []
  ) throws -> KeyValueEntryWriter.Outcome {
    let length = KeyValueOrigin.pageGroupPositionCount
    let pageGroupCount = tokens.count / length
    let prefix = directory.prefix(of: tokens + [0], origin: origin)
    let writer = try KeyValueEntryWriter(
      in: directory, origin: origin, pageGroupCapacity: pageGroupCount + 3,
      logitCount: logits.count, modelName: "tiny")
    try logits.withUnsafeBufferPointer { try writer.keep(logits: $0, after: tokens.count) }
    for position in positions {
      try states(position).withUnsafeBytes { try writer.keep(states: $0, after: position) }
    }
    let file = open(writer.path, O_WRONLY)
    defer { close(file) }
    var checksums: [UInt64] = []
    var offset = writer.dataOffset + prefix.pageGroupCount * origin.pageGroupByteCount
    for pageGroup in prefix.pageGroupCount..<max(prefix.pageGroupCount, pageGroupCount) {
      for layer in 0..<origin.layerCount {
        let page = page(tokens[..<((pageGroup + 1) * length)], layer: layer)
        checksums.append(page.withUnsafeBytes(Checksum.of))
        precondition(pwrite(file, page, page.count, off_t(offset)) == page.count)
        offset += origin.pageStride
      }
    }
    let buffer = try AlignedBuffer(byteCount: tailPageByteCount)
    let partial = KeyValueEntryWriter.PartialPageGroup(
      positionCount: tokens.count % length, pageByteCount: tailPageByteCount
    ) { layer in
      buffer.bytes.copyBytes(from: tailPage(tokens[...], layer: layer))
      return UnsafeRawBufferPointer(buffer.bytes)
    }
    return try writer.commit(
      after: prefix, tokens: tokens, pageChecksums: checksums,
      partial: keepsPartial ? partial : nil, text: Array(text.utf8))
  }

  /// States after a position.
  func states(_ position: Int) -> [UInt8] {
    var generator = SeededGenerator(seed: UInt64(position))
    return (0..<origin.stateByteCount).map { _ in UInt8(truncatingIfNeeded: generator.next()) }
  }

  /// The states that a prefix ends with; nil where they are not what was written.
  func states(of prefix: KeyValuePrefix) -> [UInt8]? {
    var bytes = [UInt8](repeating: 0, count: origin.stateByteCount)
    let isFound = bytes.withUnsafeMutableBytes { prefix.states?.read(into: $0) ?? false }
    return isFound ? bytes : nil
  }

  /// How many tokens of `prompt` are found in whole page groups, having checked that the data is theirs.
  func found(_ prompt: [Int32]) -> Int? {
    let prefix = directory.prefix(of: prompt, origin: origin)
    return isIntact(prefix, of: prompt)
      ? prefix.pageGroupCount * KeyValueOrigin.pageGroupPositionCount : nil
  }

  /// The logits after `prompt`, and how much of it needs no computing.
  func logits(after prompt: [Int32], count: Int) -> (values: [Float]?, tokenCount: Int) {
    let prefix = directory.prefix(of: prompt, origin: origin, usingLogits: true)
    var values = [Float](repeating: 0, count: count)
    let isFound = values.withUnsafeMutableBufferPointer { prefix.readLogits(into: $0) }
    return (isFound ? values : nil, prefix.tokenCount)
  }

  /// Whether a prefix's sources hold the pages of `prompt`.
  func isIntact(_ prefix: KeyValuePrefix, of prompt: [Int32]) -> Bool {
    pages(prefix, of: prompt).allSatisfy { $0.isRight && $0.isBelieved }
  }

  /// Whether every page that is not of `prompt` betrays itself by its checksum.
  func isNeverWrong(_ prefix: KeyValuePrefix, of prompt: [Int32]) -> Bool {
    pages(prefix, of: prompt).allSatisfy { $0.isRight || !$0.isBelieved }
  }

  /// For each page whether it is that of `prompt`, and whether its checksum agrees.
  private func pages(
    _ prefix: KeyValuePrefix, of prompt: [Int32]
  ) -> [(isRight: Bool, isBelieved: Bool)] {
    var pages: [(isRight: Bool, isBelieved: Bool)] = []
    for source in prefix.sources {
      precondition(
        source.firstPageGroup * origin.layerCount == pages.count, "sources follow each other")
      let file = open(source.path, O_RDONLY)
      defer { close(file) }
      for index in 0..<source.pageGroupCount * origin.layerCount {
        var bytes = [UInt8](repeating: 0, count: origin.pageByteCount)
        let offset = source.dataOffset + index * origin.pageStride
        let count = pread(file, &bytes, bytes.count, off_t(offset))
        let (pageGroup, layer) = pages.count.quotientAndRemainder(dividingBy: origin.layerCount)
        let end = (pageGroup + 1) * KeyValueOrigin.pageGroupPositionCount
        pages.append(
          (
            isRight: count == bytes.count && bytes == page(prompt[..<end], layer: layer),
            isBelieved: bytes.withUnsafeBytes(Checksum.of) == source.pageChecksums[index]
          ))
      }
    }
    return pages
  }

  /// `count` seeded tokens.
  static func tokens(_ count: Int, seed: UInt64) -> [Int32] {
    var generator = SeededGenerator(seed: seed)
    return (0..<count).map { _ in Int32.random(in: 0..<1000, using: &generator) }
  }
}
