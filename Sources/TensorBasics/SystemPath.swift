/// Paths are bytes to the system and need not be UTF-8; here they are strings, and no byte is lost.
///
/// A byte that does not belong to a character is written as a character of its own, U+10FF80 for 0x80 to
/// U+10FFFF for 0xFF (the end of a private area, so that no name uses them by accident; one that does has its
/// bytes written in the same way).
extension String {
  private static let firstEscape: UInt32 = 0x10_FF00

  /// A path as the system has it, without its final NUL.
  package init(systemPath bytes: some RandomAccessCollection<UInt8>) {
    if let text = String(validating: bytes, as: UTF8.self),
      !text.unicodeScalars.contains(where: { Self.escapedByte($0) != nil })
    {
      self = text
      return
    }
    var scalars = String.UnicodeScalarView()
    var rest = bytes[...]
    while !rest.isEmpty {
      var iterator = rest.makeIterator()
      var parser = Unicode.UTF8.ForwardParser()
      var byteCount = rest.count
      var character: Unicode.Scalar?
      switch parser.parseScalar(from: &iterator) {
      case .valid(let encoded):
        byteCount = encoded.count
        character = Unicode.UTF8.decode(encoded)
      case .error(let length): byteCount = length
      case .emptyInput: break
      }
      if let character, Self.escapedByte(character) == nil {
        scalars.append(character)
      } else {
        scalars.append(contentsOf: rest.prefix(byteCount).map(Self.escape))
      }
      rest = rest.dropFirst(byteCount)
    }
    self.init(scalars)
  }

  /// A path as the system has it, up to its NUL.
  package init(systemPath pointer: UnsafePointer<CChar>) {
    var byteCount = 0
    while pointer[byteCount] != 0 { byteCount += 1 }
    self = pointer.withMemoryRebound(to: UInt8.self, capacity: byteCount) {
      String(systemPath: UnsafeBufferPointer(start: $0, count: byteCount))
    }
  }

  /// The path's bytes as the system takes them, without a final NUL.
  package var systemPath: [UInt8] {
    var bytes: [UInt8] = []
    bytes.reserveCapacity(utf8.count)
    for scalar in unicodeScalars {
      if let byte = Self.escapedByte(scalar) {
        bytes.append(byte)
      } else {
        bytes.append(contentsOf: Unicode.UTF8.encode(scalar) ?? .init())
      }
    }
    return bytes
  }

  /// Calls `body` with the path as the system takes it, ended by NUL.
  package func withSystemPath<Result>(_ body: (UnsafePointer<CChar>) -> Result) -> Result {
    body(systemPath.map { CChar(bitPattern: $0) } + [0])
  }

  /// The text as shown to people: `\xff` for bytes of paths that are not characters.
  package var displayingPaths: String {
    guard unicodeScalars.contains(where: { Self.escapedByte($0) != nil }) else { return self }
    var text = ""
    for scalar in unicodeScalars {
      if let byte = Self.escapedByte(scalar) {
        text += "\\x" + String(byte, radix: 16)
      } else {
        text.unicodeScalars.append(scalar)
      }
    }
    return text
  }

  private static func escape(_ byte: UInt8) -> Unicode.Scalar {
    Unicode.Scalar(firstEscape + UInt32(byte)) ?? "\u{FFFD}"
  }

  private static func escapedByte(_ scalar: Unicode.Scalar) -> UInt8? {
    scalar.value >= firstEscape + 0x80 ? UInt8(truncatingIfNeeded: scalar.value) : nil
  }
}
