/// Text with `▁` for every space, and the places where it may be cut without changing its tokens.
struct EscapedSpaces: Sendable {
  /// Bytes that some string of the vocabulary has before a `▁`: nothing merges across a `▁` that
  /// follows any other byte.
  private var joins = [Bool](repeating: false, count: 256)

  init(_ strings: StringIndex) {
    let bytes = strings.bytes
    for number in 0..<UInt32(strings.count) {
      let start = Int(strings.offsets[Int(number)])
      let end = start + strings.byteCount(of: number)
      for index in start..<max(start, end - 3)
      where bytes[index + 1] == 0xE2 && bytes[index + 2] == 0x96 && bytes[index + 3] == 0x81 {
        joins[Int(bytes[index])] = true
      }
    }
  }

  /// Takes note of a merge, whose result need not be a string of the vocabulary.
  mutating func note(left: ArraySlice<UInt8>, right: ArraySlice<UInt8>) {
    if let last = left.last, right.starts(with: Vocabulary.escapedSpace) { joins[Int(last)] = true }
  }

  /// Replaces the contents of `output` by the escaped form of `text`.
  static func escape(
    _ text: UnsafeBufferPointer<UInt8>, startsWithSpace: Bool, into output: inout [UInt8]
  ) {
    output.removeAll(keepingCapacity: true)
    if startsWithSpace { output.append(contentsOf: Vocabulary.escapedSpace) }
    for byte in text {
      if byte == 0x20 {
        output.append(contentsOf: Vocabulary.escapedSpace)
      } else {
        output.append(byte)
      }
    }
  }

  /// Calls `body` with stretches of escaped `text` that can be merged one by one.
  func forEachSegment(
    of text: UnsafeBufferPointer<UInt8>, _ body: (UnsafeBufferPointer<UInt8>) -> Void
  ) {
    var start = 0
    var index = 1
    while index + 2 < text.count {
      if text[index] == 0xE2, text[index + 1] == 0x96, text[index + 2] == 0x81,
        !joins[Int(text[index - 1])]
      {
        body(UnsafeBufferPointer(rebasing: text[start..<index]))
        start = index
      }
      index += 1
    }
    if start < text.count { body(UnsafeBufferPointer(rebasing: text[start...])) }
  }
}
