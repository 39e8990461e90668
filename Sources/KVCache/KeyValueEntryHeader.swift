import TensorBasics

/// The first 4096 bytes of an entry's file, as `docs/kv-store.md` specifies it.
struct KeyValueEntryHeader: Sendable {
  var origin: KeyValueOrigin
  /// Where the entry's first page group lies in the file.
  var dataOffset: Int
  /// The entry's name: a hash of origin and all tokens up to the end of its last complete page group.
  var id: UInt64
  /// The entry that holds the page groups before this one's; 0 if there are none.
  var parent: UInt64
  /// Page groups before this entry's.
  var firstPageGroup: Int
  /// Page groups of this entry, the last perhaps in part.
  var pageGroupCount: Int
  /// Positions of the last page group: 1...128.
  var lastPositionCount: Int
  /// Bytes of a page of the last page group where that is not complete, which may be of another type than complete ones.
  var tailPageByteCount: Int
  /// Over the tokens of its first page group, so that most entries need no second look.
  var openingChecksum: UInt64
  /// Over its tokens and page checksums.
  var tablesChecksum: UInt64
  /// Logits after one of the entry's tokens; nil if it has none.
  var logits: Logits?
  /// States after some of the entry's tokens, in the order of positions.
  var states: [States]
  /// The model's name, for people.
  var modelName: [UInt8]
  /// The beginning of the text from the first token on, for people.
  var text: [UInt8]

  static let byteCount = 4096
  static let version: UInt32 = 2
  /// Longest tables that are read.
  static let tablesByteLimit = 64 << 20

  private static let magic = Array("FLASHKVE".utf8)
  private static let namesOffset = 144
  private static let checksumOffset = byteCount - 8
  /// Most bytes of ``modelName`` and of ``text``.
  static let nameByteLimit = 256
  static let textByteLimit = 1024
  private static let pageGroupLimit = 1 << 23

  /// Where logits lie in the file.
  struct Logits: Sendable {
    /// Tokens from the sequence's first up to the one that they follow.
    var position: Int
    var offset: Int
    /// f32 each.
    var count: Int
    /// XXH3-64 of their bytes, with the position as its seed.
    var checksum: UInt64

    var byteCount: Int { count * MemoryLayout<Float>.stride }
    /// Most that are read: far more than any vocabulary has.
    static let countLimit = 1 << 24
  }

  /// Where the states of all layers after a position lie in the file.
  struct States: Sendable, Equatable {
    /// Tokens from the sequence's first up to the one that they follow.
    var position: Int
    var offset: Int
    /// XXH3-64 of their bytes, with the position as its seed.
    var checksum: UInt64

    /// Most of an entry.
    static let countLimit = 12
  }

  private static let statesOffset = 3744
  private static let logitsOffset = 4048
  private static let tailOffset = 4080

  /// Why a file is not an entry that can be used.
  enum Problem: Error, Equatable {
    /// Not what was written: changed, cut short, or never an entry.
    case damaged
    /// Of a version that this program does not know.
    case otherVersion
  }

  /// Where the data of an entry of at most `pageGroupCount` page groups begins: after the room for its tables, for
  /// logits and for states, which begin at the end of that for what is before them.
  static func dataOffset(
    _ origin: KeyValueOrigin, pageGroupCount: Int, logitsByteCount: Int = 0, statesCount: Int = 0
  ) -> Int {
    padded(byteCount + pageGroupCount * origin.tableByteCount) + padded(logitsByteCount)
      + statesCount * origin.stateByteCount
  }

  private static func padded(_ count: Int) -> Int {
    (count + byteCount - 1) / byteCount * byteCount
  }

  /// Page groups of this entry that are complete, at least one.
  var wholePageGroupCount: Int {
    lastPositionCount == KeyValueOrigin.pageGroupPositionCount ? pageGroupCount : pageGroupCount - 1
  }

  /// Tokens of this entry.
  var tokenCount: Int {
    (pageGroupCount - 1) * KeyValueOrigin.pageGroupPositionCount + lastPositionCount
  }

  /// The last states after at most so many tokens of the sequence that can be gone on from: of page groups that cannot be
  /// divided, at the end of one, or in the one that was being filled.
  func lastStates(upTo tokenCount: Int, dividingPageGroups: Bool) -> States? {
    let length = KeyValueOrigin.pageGroupPositionCount
    return states.last {
      $0.position <= tokenCount
        && (dividingPageGroups || $0.position % length == 0
          || $0.position / length == firstPageGroup + wholePageGroupCount)
    }
  }

  /// Whether the last page group is not complete.
  var hasTail: Bool { wholePageGroupCount < pageGroupCount }

  /// Bytes from a page of the last page group to the next, where that is not complete.
  var tailPageStride: Int { Self.padded(tailPageByteCount) }

  /// Bytes of all pages.
  var dataByteCount: Int {
    wholePageGroupCount * origin.pageGroupByteCount
      + (hasTail ? origin.layerCount * tailPageStride : 0)
  }

  /// Bytes of a page, and where it lies in the file.
  func page(pageGroup: Int, layer: Int) -> (byteCount: Int, offset: Int) {
    let start = dataOffset + pageGroup * origin.pageGroupByteCount
    guard pageGroup == wholePageGroupCount else {
      return (origin.pageByteCount, start + layer * origin.pageStride)
    }
    return (tailPageByteCount, start + layer * tailPageStride)
  }

  /// Bytes of the tables, which follow the header.
  var tablesByteCount: Int { pageGroupCount * origin.tableByteCount }

  /// Bytes of the file, a hole before the data included.
  var fileByteCount: Int { dataOffset + dataByteCount }

  /// Bytes of the file that take room on the drive.
  var ownByteCount: Int {
    Self.dataOffset(
      origin, pageGroupCount: pageGroupCount, logitsByteCount: logits?.byteCount ?? 0,
      statesCount: states.count)
      + dataByteCount
  }

  /// Bytes of the smallest entry: one page group, without logits, and with the states after it where layers have some.
  static func leastByteCount(_ origin: KeyValueOrigin) -> Int {
    dataOffset(origin, pageGroupCount: 1, statesCount: 1) + origin.pageGroupByteCount
  }

  /// The header's bytes.
  func encoded() -> [UInt8] {
    var bytes = Self.magic
    bytes.appendLittleEndian(Self.version)
    bytes.appendLittleEndian(UInt32(KeyValueOrigin.pageGroupPositionCount))
    bytes.appendLittleEndian(origin.model.stated.number)
    bytes.append(contentsOf: origin.type.utf8)
    bytes.append(contentsOf: [UInt8](repeating: 0, count: 32 - bytes.count))
    bytes.appendLittleEndian(UInt32(origin.layerCount))
    bytes.appendLittleEndian(UInt32(origin.keyValueHeadCount))
    bytes.appendLittleEndian(UInt32(origin.headDim))
    bytes.appendLittleEndian(UInt32(modelName.count))
    bytes.appendLittleEndian(UInt64(origin.pageStride))
    bytes.appendLittleEndian(UInt64(dataOffset))
    bytes.appendLittleEndian(id)
    bytes.appendLittleEndian(parent)
    bytes.appendLittleEndian(UInt64(firstPageGroup))
    bytes.appendLittleEndian(UInt64(pageGroupCount))
    bytes.appendLittleEndian(openingChecksum)
    bytes.appendLittleEndian(tablesChecksum)
    bytes.appendLittleEndian(UInt32(text.count))
    bytes.appendLittleEndian(UInt32(lastPositionCount))
    bytes.appendLittleEndian(UInt64(origin.pageByteCount))
    bytes.appendLittleEndian(origin.graph)
    bytes.appendLittleEndian(origin.model.stated.kind)
    bytes.appendLittleEndian(UInt32(0))
    bytes.append(contentsOf: modelName)
    bytes.append(contentsOf: text)
    bytes.append(contentsOf: [UInt8](repeating: 0, count: Self.statesOffset - bytes.count))
    bytes.appendLittleEndian(UInt64(origin.stateByteCount))
    bytes.appendLittleEndian(UInt64(states.count))
    for states in states {
      bytes.appendLittleEndian(UInt64(states.position))
      bytes.appendLittleEndian(UInt64(states.offset))
      bytes.appendLittleEndian(states.checksum)
    }
    bytes.append(contentsOf: [UInt8](repeating: 0, count: Self.logitsOffset - bytes.count))
    for value in [logits?.position ?? 0, logits?.offset ?? 0, logits?.count ?? 0] {
      bytes.appendLittleEndian(UInt64(value))
    }
    bytes.appendLittleEndian(logits?.checksum ?? 0)
    bytes.appendLittleEndian(
      UInt64(tailPageByteCount == origin.pageByteCount ? 0 : tailPageByteCount))
    bytes.append(contentsOf: [UInt8](repeating: 0, count: Self.checksumOffset - bytes.count))
    bytes.appendLittleEndian(bytes.withUnsafeBytes(Checksum.of))
    return bytes
  }
}

extension KeyValueEntryHeader {
  /// Reads and checks a header, which may hold anything.
  ///
  /// - Parameters:
  ///   - bytes: the file's first ``byteCount`` bytes, or all it has.
  ///   - fileByteCount: the file's size.
  init(parsing bytes: UnsafeRawBufferPointer, fileByteCount: Int) throws(Problem) {
    func integer<Value: FixedWidthInteger & BitwiseCopyable>(
      _ offset: Int, _ type: Value.Type
    ) -> Value {
      Value(littleEndian: bytes.loadUnaligned(fromByteOffset: offset, as: Value.self))
    }
    guard bytes.count == Self.byteCount, bytes.starts(with: Self.magic) else { throw .damaged }
    guard integer(8, UInt32.self) == Self.version else { throw .otherVersion }
    guard
      integer(Self.checksumOffset, UInt64.self)
        == Checksum.of(UnsafeRawBufferPointer(rebasing: bytes[..<Self.checksumOffset])),
      integer(12, UInt32.self) == UInt32(KeyValueOrigin.pageGroupPositionCount),
      let model = KeyValueOrigin.Model(
        statedKind: integer(136, UInt32.self), number: integer(16, UInt64.self)),
      let origin = KeyValueOrigin(
        stated: model, graph: integer(128, UInt64.self),
        type: String(decoding: bytes[24..<32].prefix { $0 != 0 }, as: UTF8.self),
        layerCount: Int(integer(32, UInt32.self)),
        keyValueHeadCount: Int(integer(36, UInt32.self)),
        headDim: Int(integer(40, UInt32.self)),
        pageByteCount: Int(clamping: integer(120, UInt64.self)),
        pageStride: Int(clamping: integer(48, UInt64.self)),
        stateByteCount: Int(clamping: integer(Self.statesOffset, UInt64.self)))
    else { throw .damaged }
    self.origin = origin
    (logits, states, modelName, text) = (nil, [], [], [])
    let nameByteCount = Int(integer(44, UInt32.self))
    dataOffset = Int(clamping: integer(56, UInt64.self))
    id = integer(64, UInt64.self)
    parent = integer(72, UInt64.self)
    firstPageGroup = Int(clamping: integer(80, UInt64.self))
    pageGroupCount = Int(clamping: integer(88, UInt64.self))
    openingChecksum = integer(96, UInt64.self)
    tablesChecksum = integer(104, UInt64.self)
    let textByteCount = Int(integer(112, UInt32.self))
    lastPositionCount = Int(integer(116, UInt32.self))
    let tailPageByteCount = Int(clamping: integer(Self.tailOffset, UInt64.self))
    self.tailPageByteCount = tailPageByteCount == 0 ? origin.pageByteCount : tailPageByteCount
    guard nameByteCount <= Self.nameByteLimit, textByteCount <= Self.textByteLimit,
      (1...Self.pageGroupLimit).contains(pageGroupCount),
      (1...KeyValueOrigin.pageGroupPositionCount).contains(lastPositionCount),
      pageGroupCount > 1 || lastPositionCount == KeyValueOrigin.pageGroupPositionCount,
      (0...Self.pageGroupLimit).contains(firstPageGroup),
      pageGroupCount * origin.tableByteCount <= Self.tablesByteLimit,
      dataOffset % Self.byteCount == 0,
      dataOffset >= Self.dataOffset(origin, pageGroupCount: pageGroupCount),
      dataOffset <= fileByteCount,
      // In this order nothing overflows, whatever the file states.
      self.tailPageByteCount <= KeyValueOrigin.pageByteLimit,
      wholePageGroupCount <= (fileByteCount - dataOffset) / origin.pageGroupByteCount,
      dataByteCount <= fileByteCount - dataOffset
    else { throw .damaged }
    let found = Logits(
      position: Int(clamping: integer(Self.logitsOffset, UInt64.self)),
      offset: Int(clamping: integer(Self.logitsOffset + 8, UInt64.self)),
      count: Int(clamping: integer(Self.logitsOffset + 16, UInt64.self)),
      checksum: integer(Self.logitsOffset + 24, UInt64.self))
    logits = found.count == 0 ? nil : found
    let first = firstPageGroup * KeyValueOrigin.pageGroupPositionCount
    guard
      found.count == 0
        || found.count <= Logits.countLimit && found.position > first
          && found.position - first <= tokenCount && found.offset <= dataOffset
          && found.byteCount <= dataOffset - found.offset
    else { throw .damaged }
    states = try states(in: bytes)
    let names = bytes[Self.namesOffset...]
    modelName = Array(names.prefix(nameByteCount))
    text = Array(names.dropFirst(nameByteCount).prefix(textByteCount))
  }

  /// Reads and checks which states a header has, which may be anything.
  private func states(in bytes: UnsafeRawBufferPointer) throws(Problem) -> [States] {
    func integer(_ offset: Int) -> UInt64 {
      UInt64(littleEndian: bytes.loadUnaligned(fromByteOffset: offset, as: UInt64.self))
    }
    let first = firstPageGroup * KeyValueOrigin.pageGroupPositionCount
    let count = Int(clamping: integer(Self.statesOffset + 8))
    guard count <= (origin.hasStates ? States.countLimit : 0) else { throw .damaged }
    var states: [States] = []
    for index in 0..<count {
      let start = Self.statesOffset + 16 + 24 * index
      let found = States(
        position: Int(clamping: integer(start)), offset: Int(clamping: integer(start + 8)),
        checksum: integer(start + 16))
      guard found.position > states.last?.position ?? first, found.position - first <= tokenCount,
        found.offset <= dataOffset, origin.stateByteCount <= dataOffset - found.offset
      else { throw .damaged }
      states.append(found)
    }
    return states
  }
}
