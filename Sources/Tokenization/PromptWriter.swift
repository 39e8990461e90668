/// Collects the pieces of a prompt, joining neighbours of a kind.
struct PromptWriter {
  private(set) var pieces: [ChatPiece] = []

  mutating func markup(_ text: String) { append(Array(text.utf8), isMarkup: true) }
  mutating func markup(_ bytes: [UInt8]) { append(bytes, isMarkup: true) }
  mutating func content(_ bytes: some Sequence<UInt8>) { append(Array(bytes), isMarkup: false) }

  private mutating func append(_ bytes: [UInt8], isMarkup: Bool) {
    if bytes.isEmpty { return }
    if let last = pieces.indices.last, pieces[last].isMarkup == isMarkup {
      pieces[last].bytes += bytes
    } else {
      pieces.append(ChatPiece(bytes, isMarkup: isMarkup))
    }
  }
}

/// What templates do to a message's text.
enum MessageText {
  /// `bytes` without white space at either end, as Jinja's `trim` leaves it.
  static func trimmed(_ bytes: [UInt8]) -> [UInt8] {
    let start = bytes.withUnsafeBufferPointer { buffer in
      var position = 0
      while position < buffer.count,
        case .character(let count) = UTF8Scanner.unit(in: buffer, at: position),
        isSpace(buffer[position..<position + count])
      {
        position += count
      }
      return position
    }
    return trimmedRight(Array(bytes[start...]))
  }

  /// `bytes` without white space at the end.
  static func trimmedRight(_ bytes: [UInt8]) -> [UInt8] {
    let end = bytes.withUnsafeBufferPointer { buffer in
      var end = buffer.count
      while end > 0 {
        var start = end - 1
        while start > 0, end - start < 4, buffer[start] & 0xC0 == 0x80 { start -= 1 }
        guard UTF8Scanner.unit(in: buffer, at: start) == .character(end - start),
          isSpace(buffer[start..<end])
        else { break }
        end = start
      }
      return end
    }
    return Array(bytes[..<end])
  }

  /// White space as Python's `str.strip` knows it, of one well-formed character.
  private static func isSpace(_ character: Slice<UnsafeBufferPointer<UInt8>>) -> Bool {
    guard let scalar = String(decoding: character, as: UTF8.self).unicodeScalars.first else {
      return false
    }
    switch scalar.value {
    case 0x09...0x0D, 0x1C...0x20, 0x85, 0xA0, 0x1680, 0x2000...0x200A, 0x2028, 0x2029, 0x202F,
      0x205F, 0x3000:
      return true
    default:
      return false
    }
  }

  /// What an answer says after its last `</think>`: earlier thoughts are not shown to the model again.
  static func withoutThoughts(_ bytes: [UInt8]) -> [UInt8] {
    let mark = Array("</think>".utf8)
    var start = bytes.count - mark.count
    while start >= 0 {
      if bytes[start..<start + mark.count].elementsEqual(mark) {
        return Array(bytes[(start + mark.count)...].drop { $0 == 0x0A })
      }
      start -= 1
    }
    return bytes
  }
}
