import BlockIO
import Glibc
import TensorBasics

/// A text whose lines can be read again: a file, or a copy of what comes through a pipe.
public final class LineFile {
  /// A line, as it passes by.
  public struct Line {
    /// From 1.
    public let number: Int
    /// Its first bytes, as many as are kept, without the newline.
    public let bytes: [UInt8]
    /// Where all of it is.
    public let place: Range<Int>
    /// Whether there is nothing in it but spaces and tabs, also in what is not kept.
    public let isBlank: Bool
    /// Whether a newline ends it; false only of the last line.
    public let isEnded: Bool

    public var isWhole: Bool { bytes.count == place.count }
  }

  /// What people call it.
  public let name: String
  private let file: Int32
  private let isOwned: Bool
  /// Where the text begins in the file.
  private var start = 0

  /// - Parameters:
  ///   - path: nil = standard input.
  ///   - copyFolder: where what cannot be read again is copied to, into a file without a name.
  /// - Throws: ``CommandError`` if it cannot be opened or copied.
  public init(path: String?, copyFolder: @autoclosure () -> String = "/var/tmp") throws {
    name = path ?? "standard input"
    let opened = path.map { $0.withSystemPath { open($0, O_RDONLY | O_CLOEXEC) } } ?? STDIN_FILENO
    guard opened >= 0 else { throw Self.failure(name, .failure) }
    var status = stat()
    guard fstat(opened, &status) == 0 else {
      if path != nil { close(opened) }
      throw Self.failure(name, .failure)
    }
    guard status.st_mode & S_IFMT != S_IFREG else {
      (file, isOwned, start) = (opened, path != nil, max(0, lseek(opened, 0, SEEK_CUR)))
      return
    }
    defer { if path != nil { close(opened) } }
    let copy = try UnixDescriptor(temporaryIn: copyFolder(), bypassingPageCache: false)
    (file, isOwned) = (dup(copy.rawValue), true)
    guard file >= 0 else { throw Self.failure(name, .failure) }
    try copyAll(from: opened, to: copyFolder())
  }

  deinit { if isOwned { close(file) } }

  /// Gives `take` each line, one after the other. The text may have any length.
  ///
  /// - Parameter mostBytes: what is kept of a line.
  /// - Throws: ``CommandError`` if it cannot be read; what `take` throws.
  public func forEachLine(keeping mostBytes: Int, _ take: (Line) throws -> Void) throws {
    var (bytes, number, begin, end, isBlank) = ([UInt8](), 1, start, start, true)
    func add(_ part: ArraySlice<UInt8>) {
      bytes += part.prefix(mostBytes - bytes.count)
      if isBlank { isBlank = part.allSatisfy { [9, 13, 32].contains($0) } }
      end += part.count
    }
    func finish(isEnded: Bool) throws {
      try take(
        Line(
          number: number, bytes: bytes, place: begin..<end, isBlank: isBlank, isEnded: isEnded))
      bytes.removeAll(keepingCapacity: true)
      (number, isBlank) = (number + 1, true)
    }
    var block = [UInt8](repeating: 0, count: 1 << 16)
    while true {
      let count = try read(into: &block, at: end)
      guard count > 0 else { break }
      var rest = block[..<count]
      while let newline = rest.firstIndex(of: UInt8(ascii: "\n")) {
        add(rest[..<newline])
        try finish(isEnded: true)
        end += 1
        begin = end
        rest = rest[(newline + 1)...]
      }
      add(rest)
    }
    if end > begin { try finish(isEnded: false) }
  }

  /// The bytes at a place; fewer where the file has become shorter.
  public func bytes(at place: Range<Int>) throws -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: place.count)
    var done = 0
    while done < bytes.count {
      let count = try bytes[done...].withUnsafeMutableBytes {
        try read(into: $0, at: place.lowerBound + done)
      }
      guard count > 0 else { break }
      done += count
    }
    return Array(bytes[..<done])
  }

  private func read(into block: inout [UInt8], at offset: Int) throws -> Int {
    try block.withUnsafeMutableBytes { try read(into: $0, at: offset) }
  }

  private func read(into bytes: UnsafeMutableRawBufferPointer, at offset: Int) throws -> Int {
    while true {
      if Interruption.flag.isRaised { throw CommandError(.interrupted, "interrupted") }
      let count = pread(file, bytes.baseAddress, bytes.count, off_t(offset))
      guard count < 0 else { return count }
      if errno != EINTR { throw Self.failure(name, .failure) }
    }
  }

  private func copyAll(from source: Int32, to folder: String) throws {
    try Terminal.readBlocks(source, name: name) { block in
      var rest = block
      while !rest.isEmpty {
        let count = rest.withUnsafeBytes { write(file, $0.baseAddress, $0.count) }
        if count < 0, errno == EINTR { continue }
        guard count > 0 else {
          throw Self.failure("a copy of \(name) in \(folder)", .failure)
        }
        rest = rest.dropFirst(count)
      }
    }
  }

  private static func failure(_ name: String, _ status: ExitStatus) -> CommandError {
    let code = errno
    return CommandError(
      [ENOENT, ENOTDIR, ELOOP, EACCES].contains(code)
        ? .noInput : code == EISDIR ? .badData : status,
      "\(name): \(String(cString: strerror(code)))")
  }
}
