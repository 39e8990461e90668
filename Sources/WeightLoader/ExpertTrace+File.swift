public import BlockIO
package import ModelFormat

/// The file of a trace, all numbers little-endian:
///
/// 1. bytes 0 ..< 64, the header:
///
///    | offset | bytes | content |
///    |---|---|---|
///    | 0 | 8 | `FLASHEXT` in ASCII |
///    | 8 | 4 | version: 1 |
///    | 12 | 4 | flags: 0 |
///    | 16 | 4 | layers, 1 to 4096 |
///    | 20 | 4 | experts of a layer, 1 to 4096 |
///    | 24 | 4 | used experts, 1 to the experts of a layer |
///    | 28 | 4 | bytes of the model's name, 0 to 1024 |
///    | 32 | 8 | tokens |
///    | 40 | 8 | checksum of the model's header, or 0 |
///    | 48 | 16 | zero |
///
/// 2. the model's name in UTF-8;
/// 3. the choices, 2 bytes each, [tokens, layers, used] in the router's order;
/// 4. 8 bytes: XXH3-64 over everything before.
extension ExpertTrace {
  private static let magic = Array("FLASHEXT".utf8)
  private static let version: UInt32 = 1
  private static let headerByteCount = 64
  /// Longest trace that is read: some ten hours of a large model's decoding.
  private static let fileByteLimit = 1 << 30

  /// Writes all whole tokens to a new file and gives it its name.
  ///
  /// - Throws: ``LoaderError/io(_:)``.
  public func write(to file: OutputFile) throws(LoaderError) {
    do { try SmallFile.write(fileBytes(), to: file) } catch { throw .io(error) }
  }

  /// Reads a trace.
  ///
  /// - Throws: ``LoaderError/io(_:)``, or ``LoaderError/format(_:)`` with the offset of what is wrong.
  public static func read(_ path: String) throws(LoaderError) -> ExpertTrace {
    let file: FilePrefix
    do { file = try FilePrefix(path: path, byteCount: fileByteLimit) } catch { throw .io(error) }
    do throws(FormatError) {
      guard file.byteCount == file.fileByteCount else {
        throw FormatError(
          .unsupported, at: file.byteCount, path: path,
          "traces over \(fileByteLimit) bytes are not read")
      }
      return try parse(file.bytes, path: path)
    } catch { throw .format(error) }
  }

  /// The file without the checksum at its end.
  package func fileBytes() -> [UInt8] {
    var name = Array(modelName.utf8)
    if name.count > Self.modelNameByteLimit {
      // Cut between characters.
      var end = Self.modelNameByteLimit
      while name[end] & 0xC0 == 0x80 { end -= 1 }
      name.removeSubrange(end...)
    }
    var bytes = Self.magic
    bytes.reserveCapacity(Self.headerByteCount + name.count + 2 * useCount + 8)
    for value in [Self.version, 0] { bytes.appendLittleEndian(value) }
    for count in [layerCount, expertCount, usedCount, name.count] {
      bytes.appendLittleEndian(UInt32(count))
    }
    bytes.appendLittleEndian(UInt64(tokenCount))
    bytes.appendLittleEndian(modelChecksum)
    bytes.append(contentsOf: repeatElement(0, count: 16))
    bytes.append(contentsOf: name)
    for choice in choices[..<useCount] { bytes.appendLittleEndian(choice) }
    return bytes
  }

  /// Reads a whole file's bytes.
  package static func parse(
    _ bytes: UnsafeRawBufferPointer, path: String?
  ) throws(FormatError) -> ExpertTrace {
    let header = try Header(bytes, path: path)
    guard SmallFile.isIntact(bytes) else {
      throw FormatError(
        .checksumMismatch, at: bytes.count - SmallFile.checksumByteCount, path: path,
        "the trace is damaged (checksum)")
    }
    let nameEnd = headerByteCount + header.nameByteCount
    let name = String(
      decoding: bytes[headerByteCount..<nameEnd], as: UTF8.self)
    var trace = ExpertTrace(
      layerCount: header.layerCount, expertCount: header.expertCount, usedCount: header.usedCount,
      modelName: name, modelChecksum: header.modelChecksum)
    trace.reserve(tokenCount: header.tokenCount)
    // Per expert, one more than the last visit that chose it.
    var chosenBy = [Int](repeating: 0, count: header.expertCount)
    var choice: [Int] = []
    for visit in 0..<header.tokenCount * header.layerCount {
      choice.removeAll(keepingCapacity: true)
      for index in 0..<header.usedCount {
        let offset = nameEnd + 2 * (visit * header.usedCount + index)
        let expert = Int(SmallFile.integer(bytes, at: offset, as: UInt16.self))
        guard expert < header.expertCount else {
          throw FormatError(
            .malformed, at: offset, path: path, "expert \(expert) of \(header.expertCount)")
        }
        guard chosenBy[expert] != visit + 1 else {
          throw FormatError(
            .malformed, at: offset, path: path, "expert \(expert) is chosen twice")
        }
        chosenBy[expert] = visit + 1
        choice.append(expert)
      }
      trace.append(choice)
    }
    return trace
  }

  /// The header's values, checked against each other and the file's length.
  private struct Header {
    let layerCount: Int
    let expertCount: Int
    let usedCount: Int
    let nameByteCount: Int
    let tokenCount: Int
    let modelChecksum: UInt64

    init(_ bytes: UnsafeRawBufferPointer, path: String?) throws(FormatError) {
      guard bytes.prefix(magic.count).elementsEqual(magic.prefix(bytes.count)), !bytes.isEmpty
      else {
        throw FormatError(
          .unrecognised, at: 0, path: path,
          "not a trace of experts: it does not begin with \"FLASHEXT\"")
      }
      guard bytes.count >= headerByteCount + SmallFile.checksumByteCount else {
        throw FormatError(.truncated, at: bytes.count, path: path, "the trace ends in its header")
      }
      let version = SmallFile.integer(bytes, at: 8, as: UInt32.self)
      guard version == ExpertTrace.version else {
        throw FormatError(
          .unsupported, at: 8, path: path,
          "version \(version) of traces is not known; \(ExpertTrace.version) is")
      }
      for offset in [12, 48, 52, 56, 60]
      where SmallFile.integer(bytes, at: offset, as: UInt32.self) != 0 {
        throw FormatError(.unsupported, at: offset, path: path, "unknown flags")
      }
      func count(
        _ offset: Int, _ range: ClosedRange<Int>, _ what: String
      ) throws(FormatError) -> Int {
        let value = Int(SmallFile.integer(bytes, at: offset, as: UInt32.self))
        guard range.contains(value) else {
          throw FormatError(
            .malformed, at: offset, path: path,
            "\(value) \(what); \(range.lowerBound) to \(range.upperBound) are possible")
        }
        return value
      }
      layerCount = try count(16, 1...layerLimit, "layers")
      expertCount = try count(20, 1...expertLimit, "experts")
      usedCount = try count(24, 1...expertCount, "used experts")
      nameByteCount = try count(28, 0...modelNameByteLimit, "bytes of name")
      modelChecksum = SmallFile.integer(bytes, at: 40, as: UInt64.self)
      let tokens = SmallFile.integer(bytes, at: 32, as: UInt64.self)
      let tokenByteCount = 2 * layerCount * usedCount
      let room =
        bytes.count - headerByteCount - nameByteCount - SmallFile.checksumByteCount
      guard room >= 0, tokens <= UInt64(room / tokenByteCount) else {
        throw FormatError(
          .truncated, at: bytes.count, path: path,
          "the trace ends here; it was written with \(tokens) tokens")
      }
      tokenCount = Int(tokens)
      guard tokenCount * tokenByteCount == room else {
        throw FormatError(
          .malformed, at: bytes.count - room + tokenCount * tokenByteCount, path: path,
          "the trace should end here, but bytes follow")
      }
    }
  }
}
