import TensorBasics

/// The header that every member of a striped image begins with (`docs/format.md`, section 9).
public struct StripeMember: Sendable, Equatable {
  /// What all members of one set have in common: the checksum of the image's prologue.
  public var setIdentifier: UInt64
  /// Which member this is, from 0.
  public var index: Int
  /// Bytes of a unit: how much lies on one member before the image goes on on the next.
  public var unitByteCount: Int
  /// Bytes of the whole image.
  public var imageByteCount: Int
  /// Where the members were written, in their order.
  public var paths: [String]

  /// A member file's first eight bytes.
  static let magic = Array("FLASHSTR".utf8)
  static let version: UInt32 = 1
  /// Bytes before a member's first unit.
  public static let headerByteCount = 4096
  /// Members that a set can have.
  public static let countRange = 2...64
  /// Lengths that units can have; multiples of ``FlashImage/alignment``.
  public static let unitByteCountRange = 4096...(1 << 30)
  /// How long writers make units unless told otherwise.
  public static let defaultUnitByteCount = 512 << 10
  private static let fixedByteCount = 64
  private static let checksumOffset = headerByteCount - 8
  /// Bytes of all paths, with a zero after each.
  public static let pathByteLimit = checksumOffset - fixedByteCount

  public init(
    setIdentifier: UInt64, index: Int, unitByteCount: Int, imageByteCount: Int, paths: [String]
  ) {
    self.setIdentifier = setIdentifier
    self.index = index
    self.unitByteCount = unitByteCount
    self.imageByteCount = imageByteCount
    self.paths = paths
  }

  public var memberCount: Int { paths.count }

  /// The identifier of the set that an image with this beginning is written as.
  ///
  /// The prologue holds the header's checksum and the header those of everything else, so sets with
  /// one identifier hold the same bytes.
  public static func setIdentifier(image: UnsafeRawBufferPointer) -> UInt64 {
    Checksum.of(UnsafeRawBufferPointer(rebasing: image[..<FlashImagePrologue.byteCount]))
  }

  /// Whether paths fit into a header and can be told apart there.
  public static func canHold(paths: [String]) -> Bool {
    paths.allSatisfy { !$0.isEmpty && !$0.systemPath.contains(0) }
      && paths.reduce(0) { $0 + $1.systemPath.count + 1 } <= pathByteLimit
  }

  /// The header's bytes.
  ///
  /// - Precondition: ``canHold(paths:)``.
  public func encoded() -> [UInt8] {
    precondition(Self.canHold(paths: paths), "the paths do not fit")
    var bytes = Self.magic
    bytes.appendLittleEndian(Self.version)
    bytes.appendLittleEndian(UInt32(0))
    bytes.appendLittleEndian(setIdentifier)
    bytes.appendLittleEndian(UInt32(index))
    bytes.appendLittleEndian(UInt32(memberCount))
    bytes.appendLittleEndian(UInt64(unitByteCount))
    bytes.appendLittleEndian(UInt64(imageByteCount))
    bytes.padWithZeros(to: Self.fixedByteCount)
    for path in paths {
      bytes.append(contentsOf: path.systemPath)
      bytes.append(0)
    }
    bytes.padWithZeros(to: Self.checksumOffset)
    bytes.appendLittleEndian(bytes.withUnsafeBytes(Checksum.of))
    return bytes
  }
}

extension StripeMember {
  /// Parses a member's header.
  ///
  /// The file's length is not looked at: the reader, who knows how units are laid out, compares it.
  ///
  /// - Parameters:
  ///   - prefix: the file's first bytes; only read during the call.
  ///   - fileByteCount: length of the member file.
  ///   - path: the member's name, for errors.
  /// - Returns: the header, or how long a prefix is needed.
  /// - Throws: ``FormatError``.
  public static func parse(
    _ prefix: UnsafeRawBufferPointer, fileByteCount: Int, path: String
  ) throws(FormatError) -> ParseProgress<StripeMember> {
    try parseProgress { () throws(ParseInterruption) in
      var cursor = HeaderCursor(
        prefix, fileByteCount: fileByteCount, headerByteLimit: headerByteCount, path: path)
      return try StripeMember(&cursor)
    }
  }

  private init(_ cursor: inout HeaderCursor) throws(ParseInterruption) {
    let magic = try cursor.skip(UInt64(Self.magic.count), "the magic number")
    guard cursor.slice(magic).elementsEqual(Self.magic) else {
      throw cursor.error(
        .unrecognised, at: 0, "not a member of a striped image: it does not begin with \"FLASHSTR\""
      )
    }
    let version = try cursor.read(UInt32.self, "the version")
    guard version == Self.version else {
      throw cursor.error(
        .unsupported, at: 8, "stripe version \(version) is not known; \(Self.version) is")
    }
    let flags = try cursor.read(UInt32.self, "the flags")
    let setIdentifier = try cursor.read(UInt64.self, "the set identifier")
    let index = try cursor.read(UInt32.self, "the member's index")
    let count = try cursor.read(UInt32.self, "the number of members")
    let unit = try cursor.read(UInt64.self, "the unit length")
    let image = try cursor.read(UInt64.self, "the image length")
    _ = try cursor.skip(UInt64(Self.fixedByteCount - cursor.offset), "the member header")
    let paths = try cursor.skip(UInt64(Self.pathByteLimit), "the members' paths")
    let stored = try cursor.read(UInt64.self, "the member header")
    guard stored == Checksum.of(cursor.slice(0..<Self.checksumOffset)) else {
      throw cursor.error(.checksumMismatch, at: 0, "the member header is damaged (checksum)")
    }
    guard flags == 0 else {
      throw cursor.error(.unsupported, at: 12, "flags \(flags) are not known")
    }
    guard Self.countRange.contains(Int(count)), index < count else {
      throw cursor.error(
        .malformed, at: 24, "member \(index) of \(count); sets have \(Self.countRange) members")
    }
    guard unit % UInt64(FlashImage.alignment) == 0, let unitByteCount = Int(exactly: unit),
      Self.unitByteCountRange.contains(unitByteCount)
    else {
      throw cursor.error(
        .malformed, at: 32, "a unit of \(unit) bytes; units are multiples of 4096 up to 1 GiB")
    }
    guard image > 0, image < 1 << 53, image % UInt64(FlashImage.alignment) == 0 else {
      throw cursor.error(
        .malformed, at: 40, "an image of \(image) bytes; images are a multiple of 4096")
    }
    self.init(
      setIdentifier: setIdentifier, index: Int(index), unitByteCount: unitByteCount,
      imageByteCount: Int(image),
      paths: try Self.paths(cursor.slice(paths), count: Int(count), cursor))
  }

  private static func paths(
    _ bytes: UnsafeRawBufferPointer, count: Int, _ cursor: HeaderCursor
  ) throws(ParseInterruption) -> [String] {
    let pieces = bytes.split(separator: 0, maxSplits: count, omittingEmptySubsequences: false)
    guard pieces.count == count + 1, pieces.dropLast().allSatisfy({ !$0.isEmpty }),
      pieces[count].allSatisfy({ $0 == 0 })
    else {
      throw cursor.error(
        .malformed, at: fixedByteCount, "these are not the paths of \(count) members")
    }
    return pieces.dropLast().map { String(systemPath: $0) }
  }
}
