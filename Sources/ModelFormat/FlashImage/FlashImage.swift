import TensorBasics

/// The flash image `model.bin`, as `docs/format.md` specifies it.
public enum FlashImage {
  /// The file's first eight bytes.
  static let magic = Array("FLASHIMG".utf8)
  static let version: UInt32 = 1
  /// Offsets and padding of everything but the header are multiples of this.
  public static let alignment = 4096
  /// Longest header that is read.
  public static let headerByteLimit = 64 << 20
  /// Longest tokenizer section that is read.
  public static let tokenizerByteLimit = 256 << 20
  /// How long writers make extents unless told otherwise.
  public static let defaultExtentByteCount = 1 << 20

  /// How long they make the extents of a table whose rows are read one by one: a row brings its extent,
  /// so that it can be checked.
  static let tableExtentByteCount = 32 << 10

  /// `count` rounded up to ``alignment``.
  static func roundedUp(_ count: Int) -> Int { (count + alignment - 1) & ~(alignment - 1) }
}

/// The fixed 64 bytes that an image begins with.
struct FlashImagePrologue {
  static let byteCount = 64

  /// Flags of what readers must know: that RoPE's cosines and sines have a factor, that layers are stated by
  /// their kinds, and that these have parts which the first such readers did not know: sinks, other routing; then states,
  /// gates on attention.
  static let ropeMagnitudeFlag: UInt32 = 1
  static let layersFlag: UInt32 = 2
  static let laterPartsFlag: UInt32 = 4
  static let statesFlag: UInt32 = 8
  /// That layers have heads or FFNs of their own sizes.
  static let sizesFlag: UInt32 = 16
  /// Some blocks replace the residual stream, or scans have factors on inputs or no norm.
  static let factorsFlag: UInt32 = 32
  static let knownFlags =
    ropeMagnitudeFlag | layersFlag | laterPartsFlag | statesFlag | sizesFlag | factorsFlag

  var flags: UInt32 = 0
  var headerByteCount: Int
  var headerChecksum: UInt64
  var fileByteCount: Int

  /// The flags that an image of such a decoder needs.
  static func flags(_ configuration: DecoderConfiguration?) -> UInt32 {
    guard let configuration else { return 0 }
    let header = DecoderHeader(configuration)
    return (configuration.ropeMagnitude == 1 ? 0 : ropeMagnitudeFlag)
      | (header.statesLayers ? layersFlag : 0) | (header.statesLaterParts ? laterPartsFlag : 0)
      | (header.hasStates ? statesFlag : 0) | (header.statesSizes ? sizesFlag : 0)
      | (header.statesFactors ? factorsFlag : 0)
  }

  /// Appends the prologue to `bytes`, which is empty.
  func encode(into bytes: inout [UInt8]) {
    bytes.append(contentsOf: FlashImage.magic)
    bytes.appendLittleEndian(FlashImage.version)
    bytes.appendLittleEndian(flags)
    bytes.appendLittleEndian(UInt64(Self.byteCount))
    bytes.appendLittleEndian(UInt64(headerByteCount))
    bytes.appendLittleEndian(headerChecksum)
    bytes.appendLittleEndian(UInt64(fileByteCount))
    bytes.appendLittleEndian(UInt64(0))
    bytes.appendLittleEndian(bytes.withUnsafeBytes(Checksum.of))
  }
}

extension FlashImagePrologue {
  /// Reads and checks the prologue, and that the file has the length it states.
  init(_ cursor: inout HeaderCursor) throws(ParseInterruption) {
    let magic = try cursor.skip(UInt64(FlashImage.magic.count), "the magic number")
    guard cursor.slice(magic).elementsEqual(FlashImage.magic) else {
      throw cursor.error(
        .unrecognised, at: 0, "not a flash image: it does not begin with \"FLASHIMG\"")
    }
    let version = try cursor.read(UInt32.self, "the version")
    guard version == FlashImage.version else {
      throw cursor.error(
        .unsupported, at: 8,
        "flash image version \(version) is not known; \(FlashImage.version) is")
    }
    flags = try cursor.read(UInt32.self, "the flags")
    let headerOffset = try cursor.read(UInt64.self, "the header offset")
    let headerByteCount = try cursor.read(UInt64.self, "the header length")
    headerChecksum = try cursor.read(UInt64.self, "the header checksum")
    let fileByteCount = try cursor.read(UInt64.self, "the file length")
    let reserved = try cursor.read(UInt64.self, "the prologue")
    let stored = try cursor.read(UInt64.self, "the prologue checksum")
    guard stored == Checksum.of(cursor.slice(0..<Self.byteCount - 8)) else {
      throw cursor.error(.checksumMismatch, at: 0, "the prologue is damaged (checksum)")
    }
    guard flags & ~Self.knownFlags == 0, reserved == 0 else {
      throw cursor.error(.unsupported, at: 12, "flags \(flags) are not known")
    }
    guard fileByteCount <= UInt64(cursor.fileByteCount) else {
      throw cursor.error(
        .truncated, at: cursor.fileByteCount,
        "the image ends here; it was written with \(fileByteCount) bytes")
    }
    guard fileByteCount == UInt64(cursor.fileByteCount) else {
      throw cursor.error(
        .malformed, at: Int(fileByteCount), "the image should end here, but bytes follow")
    }
    guard headerOffset == UInt64(Self.byteCount),
      headerByteCount <= UInt64(FlashImage.headerByteLimit)
    else {
      throw cursor.error(
        .malformed, at: 16, "a header of \(headerByteCount) bytes at byte \(headerOffset)")
    }
    self.headerByteCount = Int(headerByteCount)
    self.fileByteCount = Int(fileByteCount)
  }
}

extension [UInt8] {
  /// Appends an integer's bytes, least significant first.
  mutating func appendLittleEndian(_ value: some FixedWidthInteger) {
    Swift.withUnsafeBytes(of: value.littleEndian) { append(contentsOf: $0) }
  }

  /// Appends zeros up to `count` bytes.
  mutating func padWithZeros(to count: Int) {
    precondition(self.count <= count, "more bytes than were reserved")
    append(contentsOf: repeatElement(0, count: count - self.count))
  }
}
