import Glibc
import TensorBasics

// What programs read, other than models.
extension Terminal {
  /// Most bytes of a text, which is one prompt or the like.
  public static let textByteLimit = 64 << 20

  /// Bytes of JSON that any text for such a context has room in: a token is seldom as long as 32 bytes of it.
  public static func textByteLimit(contextLength: Int) -> Int {
    max(1 << 17, 32 * min(contextLength, textByteLimit / 32))
  }

  /// A prompt on standard input, or in `path` where that is neither nil nor `-`.
  ///
  /// Editors and `echo` end a text with a newline that is not meant, and some begin it with a byte order
  /// mark: one final newline, LF or CRLF, and the mark are dropped, as llama.cpp does. Everything else is
  /// the prompt, other carriage returns included.
  ///
  /// - Throws: ``CommandError`` as ``readAll(path:mostBytes:)``, and where it is no UTF-8 text.
  public static func readPrompt(path: String?) throws -> [UInt8] {
    let path = path == "-" ? nil : path
    var bytes = try readAll(path: path)
    let name = path ?? "standard input"
    if let position = bytes.firstIndex(of: 0) {
      throw CommandError(
        .badData, "\(name): byte \(position) is NUL: this is binary data, not a prompt")
    }
    guard String(validating: bytes, as: UTF8.self) != nil else {
      throw CommandError(.badData, "\(name): not valid UTF-8 text")
    }
    if bytes.starts(with: [0xEF, 0xBB, 0xBF]) { bytes.removeFirst(3) }
    if bytes.last == UInt8(ascii: "\n") {
      bytes.removeLast()
      if bytes.last == UInt8(ascii: "\r") { bytes.removeLast() }
    }
    return bytes
  }

  /// Everything on standard input, or in `path`.
  ///
  /// - Parameter mostBytes: how long a text may be.
  /// - Throws: ``CommandError`` if it cannot be read, or is longer.
  public static func readAll(
    path: String?, mostBytes: Int = textByteLimit
  ) throws -> [UInt8] {
    var bytes: [UInt8] = []
    try readBlocks(path: path) { block in
      guard bytes.count + block.count <= mostBytes else {
        throw CommandError(
          .badData,
          "\(path ?? "standard input"): longer than \(ByteCount(mostBytes)), which no prompt is")
      }
      bytes += block
    }
    return bytes
  }

  private static func readBlocks(
    path: String?, _ take: (ArraySlice<UInt8>) throws -> Void
  ) throws {
    let file =
      path.map { path in
        path.withSystemPath { open($0, O_RDONLY | O_CLOEXEC) }
      } ?? STDIN_FILENO
    let name = path ?? "standard input"
    guard file >= 0 else {
      throw CommandError(
        [ENOENT, ENOTDIR, ELOOP, EACCES].contains(errno) ? .noInput : .failure,
        "\(name): \(String(cString: strerror(errno)))")
    }
    defer { if path != nil { close(file) } }
    try readBlocks(file, name: name, take)
  }

  /// Gives `take` what comes, until its end.
  static func readBlocks(
    _ file: Int32, name: String, _ take: (ArraySlice<UInt8>) throws -> Void
  ) throws {
    var block = [UInt8](repeating: 0, count: 1 << 16)
    while true {
      try wait(for: file)
      let count = read(file, &block, block.count)
      if count < 0, errno == EINTR || errno == EAGAIN { continue }
      guard count >= 0 else {
        throw CommandError(
          errno == EISDIR ? .badData : .failure, "\(name): \(String(cString: strerror(errno)))")
      }
      guard count > 0 else { return }
      try take(block[..<count])
    }
  }

  /// Sleeps until a file may be read.
  ///
  /// A signal between the look at the flag and the sleep is seen a moment later.
  ///
  /// - Throws: ``CommandError`` when the user interrupts.
  public static func wait(for file: Int32) throws(CommandError) {
    var entry = pollfd(fd: file, events: Int16(POLLIN), revents: 0)
    repeat {
      if Interruption.flag.isRaised { throw CommandError(.interrupted, "interrupted") }
    } while poll(&entry, 1, 100) <= 0
  }
}
