/// GPT-2's spelling of bytes as printable characters, in which byte-level vocabularies are written.
///
/// Bytes 0x21–0x7E, 0xA1–0xAC and 0xAE–0xFF are the code points of the same value; the other 68
/// are U+0100 onwards in ascending order (`Ġ`, U+0120, is the space).
package enum ByteAlphabet {
  /// Byte of each code point below U+0144; -1 for the code points outside the alphabet.
  private static let byteOfCodePoint: [Int16] = {
    var table = [Int16](repeating: -1, count: 0x144)
    var next = 0x100
    for byte in 0..<256 {
      let isPrintable =
        (0x21...0x7E).contains(byte) || (0xA1...0xAC).contains(byte) || (0xAE...0xFF).contains(byte)
      if isPrintable {
        table[byte] = Int16(byte)
      } else {
        table[next] = Int16(byte)
        next += 1
      }
    }
    return table
  }()

  /// Appends the bytes that `spelling` stands for; false, and an unspecified tail, where a
  /// character lies outside the alphabet.
  package static func decode(_ spelling: ArraySlice<UInt8>, into output: inout [UInt8]) -> Bool {
    byteOfCodePoint.withUnsafeBufferPointer { table in
      spelling.withUnsafeBufferPointer { bytes in
        var position = 0
        while position < bytes.count {
          var codePoint = Int(bytes[position])
          position += 1
          if codePoint >= 0x80 {
            // The alphabet ends below U+0144: two-byte characters with leads C2…C5.
            guard (0xC2...0xC5).contains(codePoint), position < bytes.count,
              bytes[position] & 0xC0 == 0x80
            else { return false }
            codePoint = (codePoint & 0x1F) << 6 | Int(bytes[position] & 0x3F)
            position += 1
          }
          guard codePoint < table.count, table[codePoint] >= 0 else { return false }
          output.append(UInt8(table[codePoint]))
        }
        return true
      }
    }
  }

  /// The code point of each byte.
  private static let codePointOfByte: [UInt16] = {
    var table = [UInt16](repeating: 0, count: 256)
    for (codePoint, byte) in byteOfCodePoint.enumerated() where byte >= 0 {
      table[Int(byte)] = UInt16(codePoint)
    }
    return table
  }()

  /// Text in the alphabet, and where its pieces, which end at `ends`, end there.
  package static func encode(
    _ text: UnsafeBufferPointer<UInt8>, _ ends: [UInt32]
  ) -> (bytes: [UInt8], ends: [UInt32]) {
    var bytes: [UInt8] = []
    bytes.reserveCapacity(text.count * 3 / 2)
    var position = 0
    let newEnds = ends.map { end in
      while position < Int(end) {
        let codePoint = codePointOfByte[Int(text[position])]
        if codePoint < 0x80 {
          bytes.append(UInt8(codePoint))
        } else {
          bytes.append(UInt8(0xC0 | codePoint >> 6))
          bytes.append(UInt8(0x80 | codePoint & 0x3F))
        }
        position += 1
      }
      return UInt32(bytes.count)
    }
    return (bytes, newEnds)
  }

  /// How many bytes the first `ends` bytes of a text in the alphabet stand for; `ends` ascend.
  package static func byteCounts(of bytes: [UInt8], upTo ends: [UInt32]) -> [UInt32] {
    var count: UInt32 = 0
    var position = 0
    return ends.map { end in
      while position < Int(end) {
        if bytes[position] & 0xC0 != 0x80 { count += 1 }
        position += 1
      }
      return count
    }
  }

  /// Bytes in the alphabet.
  static func encode(_ bytes: [UInt8]) -> [UInt8] {
    bytes.withUnsafeBufferPointer { encode($0, [UInt32(bytes.count)]).bytes }
  }
}
