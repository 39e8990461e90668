/// Text with U+FFFD for every byte that is no UTF-8, and the way back to the original's offsets.
struct RepairedText {
  private(set) var bytes: [UInt8] = []
  /// Offsets in ``bytes`` of the replacements, ascending.
  private var replacements: [UInt32] = []

  init(_ text: UnsafeBufferPointer<UInt8>) {
    bytes.reserveCapacity(text.count + text.count / 4)
    var position = 0
    while position < text.count {
      if case .character(let count) = UTF8Scanner.unit(in: text, at: position) {
        bytes.append(contentsOf: text[position..<position + count])
        position += count
      } else {
        replacements.append(UInt32(bytes.count))
        bytes.append(contentsOf: UTF8Scanner.replacement)
        position += 1
      }
    }
  }

  /// Offsets in the original text of ascending offsets in ``bytes``; inside a replacement, the end of the byte
  /// that it stands for.
  func originalOffsets(_ offsets: [UInt32]) -> [UInt32] {
    let grown = UInt32(UTF8Scanner.replacement.count - 1)
    var before = 0
    return offsets.map { offset in
      while before < replacements.count, replacements[before] < offset { before += 1 }
      guard before > 0 else { return offset }
      let end = replacements[before - 1] + grown + 1
      return max(offset, end) - UInt32(before) * grown
    }
  }
}
