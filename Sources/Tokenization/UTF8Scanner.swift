/// Well-formedness of UTF-8 (Unicode 16, table 3-7): no overlong forms, no surrogates.
enum UTF8Scanner {
  enum Unit: Equatable {
    /// A character of this many bytes.
    case character(Int)
    /// This many bytes that no continuation can make a character.
    case invalid(Int)
    /// All bytes left are the beginning of a character.
    case incomplete
  }

  static let replacement: [UInt8] = [0xEF, 0xBF, 0xBD]

  /// What begins at `position`, which must be before the end of `bytes`.
  static func unit(in bytes: UnsafeBufferPointer<UInt8>, at position: Int) -> Unit {
    let lead = bytes[position]
    if lead < 0x80 { return .character(1) }
    let length: Int
    var lower: UInt8 = 0x80
    var upper: UInt8 = 0xBF
    switch lead {
    case 0xC2...0xDF: length = 2
    case 0xE0: (length, lower) = (3, 0xA0)
    case 0xED: (length, upper) = (3, 0x9F)
    case 0xE1...0xEF: length = 3
    case 0xF0: (length, lower) = (4, 0x90)
    case 0xF4: (length, upper) = (4, 0x8F)
    case 0xF1...0xF3: length = 4
    default: return .invalid(1)
    }
    for index in 1..<length {
      guard position + index < bytes.count else { return .incomplete }
      let byte = bytes[position + index]
      if byte < lower || byte > upper { return .invalid(index) }
      (lower, upper) = (0x80, 0xBF)
    }
    return .character(length)
  }

  /// Length of the character at `position`, or 1 if there is none.
  static func symbolLength(in bytes: UnsafeBufferPointer<UInt8>, at position: Int) -> Int {
    if case .character(let length) = unit(in: bytes, at: position) { return length }
    return 1
  }

  /// Whether all of `bytes` is well-formed.
  static func isValid(_ bytes: UnsafeBufferPointer<UInt8>) -> Bool {
    var position = 0
    while position < bytes.count {
      if bytes[position] < 0x80 {
        position += 1
      } else if case .character(let length) = unit(in: bytes, at: position) {
        position += length
      } else {
        return false
      }
    }
    return true
  }
}

extension UTF8Scanner {
  /// The character at `position` of well-formed UTF-8, and its length.
  static func codePoint(
    in bytes: UnsafeBufferPointer<UInt8>, at position: Int
  ) -> (codePoint: UInt32, byteCount: Int) {
    let lead = UInt32(bytes[position])
    if lead < 0x80 { return (lead, 1) }
    func next(_ index: Int) -> UInt32 { UInt32(bytes[position + index] & 0x3F) }
    if lead < 0xE0 { return ((lead & 0x1F) << 6 | next(1), 2) }
    if lead < 0xF0 { return ((lead & 0xF) << 12 | next(1) << 6 | next(2), 3) }
    return ((lead & 7) << 18 | next(1) << 12 | next(2) << 6 | next(3), 4)
  }
}
