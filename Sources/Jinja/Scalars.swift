extension [UInt8] {
  /// The code point at an offset and its length; nil and 1 where the bytes are not UTF-8.
  func scalar(at offset: Int) -> (scalar: Unicode.Scalar?, length: Int) {
    let first = self[offset]
    if first < 0x80 { return (Unicode.Scalar(first), 1) }
    let length = first >= 0xF0 ? 4 : first >= 0xE0 ? 3 : 2
    guard first >= 0xC2, first <= 0xF4, offset + length <= count else { return (nil, 1) }
    var value = UInt32(first) & (0x7F >> UInt32(length))
    for byte in self[offset + 1..<offset + length] {
      guard byte & 0xC0 == 0x80 else { return (nil, 1) }
      value = value << 6 | UInt32(byte & 0x3F)
    }
    guard value >= (length == 4 ? 0x10000 : length == 3 ? 0x800 : 0x80),
      let scalar = Unicode.Scalar(value)
    else { return (nil, 1) }
    return (scalar, length)
  }

  /// Where the character before an offset begins.
  func characterStart(before offset: Int) -> Int {
    for length in 1...4 where offset >= length {
      let found = scalar(at: offset - length)
      if found.scalar != nil, found.length == length { return offset - length }
    }
    return offset - 1
  }

  /// Where white space that begins at an offset ends.
  func whiteSpaceEnd(from start: Int) -> Int {
    var offset = start
    while offset < count, case (let scalar?, let length) = scalar(at: offset), scalar.isPythonSpace
    {
      offset += length
    }
    return offset
  }

  /// Whether other bytes begin at an offset.
  func has(_ other: some Collection<UInt8>, at offset: Int) -> Bool {
    offset >= 0 && offset + other.count <= count
      && self[offset..<offset + other.count].elementsEqual(other)
  }

  /// The first place of other bytes within a range.
  func firstIndex(of other: [UInt8], in range: Range<Int>) -> Int? {
    guard let first = other.first else { return range.lowerBound }
    if other.count == 1 { return self[range].firstIndex(of: first) }
    return withUnsafeBufferPointer { ByteSearch(other).place(in: $0, range) }
  }

  /// The last place of other bytes within a range.
  func lastIndex(of other: [UInt8], in range: Range<Int>) -> Int? {
    if other.isEmpty { return range.upperBound }
    return withUnsafeBufferPointer { ByteSearch(other, fromRight: true).place(in: $0, range) }
  }

  /// How often other bytes are in a range, without overlap.
  func count(of other: [UInt8], in range: Range<Int>) -> Int {
    var (number, start) = (0, range.lowerBound)
    while let found = firstIndex(of: other, in: start..<range.upperBound) {
      number += 1
      start = found + other.count
    }
    return number
  }
}

extension Unicode.Scalar {
  /// Python's `str.isspace`, which `strip` and regular expressions use too.
  var isPythonSpace: Bool {
    switch value {
    case 0x09...0x0D, 0x1C...0x20, 0x85, 0xA0, 0x1680, 0x2000...0x200A, 0x2028, 0x2029, 0x202F,
      0x205F, 0x3000:
      true
    default: false
    }
  }

  /// What `str.splitlines` splits at.
  var isPythonLineEnd: Bool {
    switch value {
    case 0x0A...0x0D, 0x1C...0x1E, 0x85, 0x2028, 0x2029: true
    default: false
    }
  }

  /// Whether `repr` writes it as it is.
  var isPrintable: Bool {
    if self == " " { return true }
    switch properties.generalCategory {
    case .control, .format, .surrogate, .privateUse, .unassigned, .lineSeparator,
      .paragraphSeparator, .spaceSeparator:
      return false
    default: return true
    }
  }

  var isLetter: Bool {
    switch properties.generalCategory {
    case .uppercaseLetter, .lowercaseLetter, .titlecaseLetter, .modifierLetter, .otherLetter: true
    default: false
    }
  }

  /// Python's `str.isdecimal`.
  var isDecimal: Bool { properties.generalCategory == .decimalNumber }

  /// Python's `str.isdigit`.
  var isPythonDigit: Bool {
    switch properties.numericType {
    case .decimal?, .digit?: true
    default: false
    }
  }
}
