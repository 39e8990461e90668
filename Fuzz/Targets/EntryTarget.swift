import Glibc
import KVCache
import ModelFormat
import TensorBasics

extension FuzzTarget {
  /// Entries of the store of keys and values, in parts, which the target puts together with checksums
  /// that agree: 144 bytes of the first page, a length and so many bytes of names (two bytes), the
  /// file's length in pages (two bytes), the tables. The pages are zeros.
  static let entry = FuzzTarget(
    name: "kv-entry", inputByteLimit: 4096, dictionary: ["FLASHKVE", "f16", "q8", "q4"],
    seeds: { EntryTarget.seeds }, run: EntryTarget.run)
}

enum EntryTarget {
  private static let origin = KeyValueOrigin(
    model: .content(7), graph: 9, type: "f16", layerCount: 2, keyValueHeadCount: 1, headDim: 8,
    pageByteCount: 4000,
    pageStride: 4096)
  private static let pageByteCount = 4096
  private static let mostPages = 4096

  /// A folder in memory; where the process is killed, it stays behind, empty or with one file.
  private static let folder: String = {
    var template = Array("/dev/shm/flashinfer-fuzz-XXXXXX".utf8CString)
    precondition(mkdtemp(&template) != nil, "/dev/shm cannot be written to")
    let path = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
    removedAtExit = strdup(path)
    atexit {
      if let removedAtExit { rmdir(removedAtExit) }
    }
    return path
  }()
  // Safety: written once, while `folder` is made, and read when the process ends.
  nonisolated(unsafe) private static var removedAtExit: UnsafeMutablePointer<CChar>?

  static func run(_ input: UnsafeRawBufferPointer) throws(FuzzFinding) -> Bool {
    let file = File(input)
    let path = "\(folder)/\(file.name).kv"
    try write(file, to: path)
    defer { unlink(path) }
    guard let directory = try? KeyValueDirectory(path: folder, byteLimit: 1 << 30) else {
      throw FuzzFinding("the folder cannot be opened")
    }
    let items = directory.items()
    try require(items.count == 1 && items[0].byteCount >= 0, "\(items.count) items for one file")
    let item = items[0]
    try require(
      item.problem != nil || (item.tokenCount >= item.ownTokenCount && item.ownTokenCount > 0),
      "an entry of \(item.tokenCount) tokens, \(item.ownTokenCount) of its own")
    let prompt = file.tokens + [1]
    let prefix = directory.prefix(of: prompt, origin: origin)
    try check(prefix, promptCount: prompt.count)
    return item.problem == nil
  }

  private static func check(
    _ prefix: KeyValuePrefix, promptCount: Int
  ) throws(FuzzFinding) {
    try require(prefix.tokenCount < promptCount, "more tokens found than asked for")
    for source in prefix.sources {
      try require(
        source.pageChecksums.count == source.pageGroupCount * origin.layerCount
          && source.dataOffset % pageByteCount == 0, "an impossible source")
    }
    guard let tail = prefix.tail else { return }
    try require(
      (1..<KeyValueOrigin.pageGroupPositionCount + 1).contains(tail.positionCount),
      "an impossible tail")
    var page = [UInt8](repeating: 0, count: origin.pageStride)
    for layer in 0..<origin.layerCount {
      _ = page.withUnsafeMutableBytes { tail.read(layer: layer, into: $0) }
    }
  }

  private static func write(_ file: borrowing File, to path: String) throws(FuzzFinding) {
    let descriptor = open(path, O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0o600)
    defer { close(descriptor) }
    let count = Glibc.write(descriptor, file.bytes, file.bytes.count)
    // Cut short where the input says so, and padded with zeros.
    let cut = ftruncate(descriptor, off_t(file.byteCount))
    try require(count == file.bytes.count && cut == 0, "\(path) cannot be written")
  }

  /// An entry's file with checksums that agree.
  private struct File {
    var bytes: [UInt8]
    let byteCount: Int
    /// The tokens of the tables, at most those of eight page groups.
    let tokens: [Int32]

    var name: String {
      let digits = String(EntryTarget.integer(bytes, at: 64, byteCount: 8), radix: 16)
      return String(repeating: "0", count: 16 - digits.count) + digits
    }

    init(_ input: UnsafeRawBufferPointer) {
      var reader = InputReader(input)
      bytes = Array(reader.bytes(count: 144))
      bytes.padWithZeros(to: 144)
      let nameByteCount = Int(reader.integer(byteCount: 2))
      bytes += reader.bytes(count: min(nameByteCount, pageByteCount - 152))
      let pageCount = Int(reader.integer(byteCount: 2)) % mostPages
      bytes.padWithZeros(to: pageByteCount)
      bytes += reader.rest()
      let pageGroupCount = EntryTarget.integer(bytes, at: 88, byteCount: 8)
      let layerCount = EntryTarget.integer(bytes, at: 32, byteCount: 4)
      let tablesByteCount = Int(clamping: min(pageGroupCount, 64) * (512 + 8 * min(layerCount, 64)))
      bytes.padWithZeros(to: pageByteCount + tablesByteCount)
      let bytes = bytes
      tokens = (0..<Int(min(pageGroupCount, 8)) * KeyValueOrigin.pageGroupPositionCount).map {
        Int32(
          truncatingIfNeeded: EntryTarget.integer(
            bytes, at: pageByteCount + 4 * $0, byteCount: 4))
      }
      byteCount = pageCount * pageByteCount
      sign(96, pageByteCount..<pageByteCount + min(512, tablesByteCount))
      sign(104, pageByteCount..<pageByteCount + tablesByteCount)
      sign(pageByteCount - 8, 0..<pageByteCount - 8)
    }

    /// Puts the checksum of a range at `offset`.
    private mutating func sign(_ offset: Int, _ range: Range<Int>) {
      let checksum = bytes[range].withUnsafeBytes(Checksum.of)
      for index in 0..<8 {
        bytes[offset + index] = UInt8(truncatingIfNeeded: checksum >> UInt64(8 * index))
      }
    }
  }

  private static func integer(_ bytes: [UInt8], at offset: Int, byteCount: Int) -> UInt64 {
    (0..<byteCount).reduce(0) { $0 | UInt64(bytes[offset + $1]) << UInt64(8 * $1) }
  }

  // MARK: Seeds

  /// One page group, three page groups, and one and a part; the file's length fits each.
  static let seeds: [[UInt8]] = [(1, 128), (3, 128), (2, 5)].map { pageGroupCount, lastCount in
    var page = Array("FLASHKVE".utf8)
    page.appendLittleEndian(UInt32(2))
    page.appendLittleEndian(UInt32(128))
    page.appendLittleEndian(UInt64(7))
    page += origin.type.utf8
    page.padWithZeros(to: 32)
    for value in [2, 1, 8, 4] { page.appendLittleEndian(UInt32(value)) }
    for value in [4096, 8192, 0xAB, 0, 0, pageGroupCount, 0, 0] {
      page.appendLittleEndian(UInt64(value))
    }
    page.appendLittleEndian(UInt32(2))
    page.appendLittleEndian(UInt32(lastCount))
    page.appendLittleEndian(UInt64(4000))
    page.appendLittleEndian(origin.graph)
    page.appendLittleEndian(UInt32(1))
    page.appendLittleEndian(UInt32(0))
    page.appendLittleEndian(UInt16(6))
    page += "tinyhi".utf8
    page.appendLittleEndian(UInt16(2 + 2 * pageGroupCount))
    for token in 0..<Int32(128 * pageGroupCount) { page.appendLittleEndian(token & 15) }
    return page
  }
}
