import Glibc
import Synchronization
public import TensorBasics

/// Standard output and error without buffering surprises.
public enum Terminal {
  /// One line on standard error.
  public static func note(_ line: String) {
    write(line.displayingPaths + "\n", to: STDERR_FILENO)
  }

  /// Replaces the current line of an interactive standard error.
  static func status(_ line: String) { write("\r\u{1B}[K" + line, to: STDERR_FILENO) }

  /// A warning, once per call, on standard error.
  public static func warn(_ line: String) { note("warning: \(line)") }

  /// Text on standard output, at once.
  public static func print(_ text: String) { write(text, to: STDOUT_FILENO) }

  /// Bytes on standard output, at once.
  public static func print(_ bytes: [UInt8]) { bytes.withUnsafeBufferPointer { print($0) } }

  /// Bytes on standard output, at once.
  public static func print(_ bytes: UnsafeBufferPointer<UInt8>) {
    write(UnsafeRawBufferPointer(bytes), to: STDOUT_FILENO)
  }

  /// Ends the process without running destructors.
  public static func exit(_ status: ExitStatus) -> Never { _exit(status.rawValue) }

  public static var errorIsInteractive: Bool { isatty(STDERR_FILENO) == 1 }
  public static var inputIsInteractive: Bool { isatty(STDIN_FILENO) == 1 }

  /// A prompt on standard input, or in `path` where that is neither nil nor `-`.
  ///
  /// Editors and `echo` end a text with a newline that is not meant, and some begin it with a byte order
  /// mark: one final newline, LF or CRLF, and the mark are dropped, as llama.cpp does. Everything else is
  /// the prompt, other carriage returns included.
  ///
  /// - Throws: ``CommandError`` as ``readAll(path:)``, and where it is no UTF-8 text.
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
  /// - Throws: ``CommandError`` if it cannot be read, or exceeds 64 MiB.
  public static func readAll(path: String?) throws -> [UInt8] {
    let limit = 64 << 20
    let file =
      path.map { path in
        path.withSystemPath { open($0, O_RDONLY | O_CLOEXEC) }
      } ?? STDIN_FILENO
    let name = path ?? "standard input"
    guard file >= 0 else {
      throw CommandError(
        [ENOENT, ENOTDIR, EACCES].contains(errno) ? .noInput : .failure,
        "\(name): \(String(cString: strerror(errno)))")
    }
    defer { if path != nil { close(file) } }
    var bytes: [UInt8] = []
    var block = [UInt8](repeating: 0, count: 1 << 16)
    while true {
      try wait(for: file, POLLIN)
      let count = read(file, &block, block.count)
      if count < 0, errno == EINTR || errno == EAGAIN { continue }
      guard count >= 0 else {
        throw CommandError(
          errno == EISDIR ? .badData : .failure, "\(name): \(String(cString: strerror(errno)))")
      }
      guard count > 0 else { return bytes }
      bytes.append(contentsOf: block[..<count])
      guard bytes.count <= limit else {
        throw CommandError(.badData, "\(name): longer than \(ByteCount(limit)), which no prompt is")
      }
    }
  }

  private static func write(_ text: String, to file: Int32) {
    var text = text
    text.withUTF8 { write(UnsafeRawBufferPointer($0), to: file) }
  }

  /// Sleeps until a file may be read or written; throws when the user interrupts.
  ///
  /// A signal between the look at the flag and the sleep is seen a moment later.
  private static func wait(for file: Int32, _ event: Int32) throws(CommandError) {
    var entry = pollfd(fd: file, events: Int16(event), revents: 0)
    repeat {
      if Interruption.flag.isRaised { throw CommandError(.interrupted, "interrupted") }
    } while poll(&entry, 1, 100) <= 0
  }

  /// Writes everything. A full disk or a vanished reader of standard output ends the process:
  /// there is no reader for the rest.
  private static func write(_ bytes: UnsafeRawBufferPointer, to file: Int32) {
    var rest = bytes[...]
    while !rest.isEmpty {
      let count = Glibc.write(file, UnsafeRawBufferPointer(rebasing: rest).baseAddress, rest.count)
      if count < 0, errno == EINTR { continue }
      if count < 0, errno == EAGAIN {
        var entry = pollfd(fd: file, events: Int16(POLLOUT), revents: 0)
        _ = poll(&entry, 1, 100)
        if Interruption.flag.isRaised { return }
        continue
      }
      guard count > 0 else {
        guard file == STDOUT_FILENO else { return }
        if errno != EPIPE { note("error: standard output: \(String(cString: strerror(errno)))") }
        _exit(ExitStatus.failure.rawValue)
      }
      rest = rest.dropFirst(count)
    }
  }
}

/// Ctrl-C and SIGTERM as a flag that long work polls; a second one ends the process at once.
public enum Interruption {
  public static let flag = CancellationFlag()
  private static let endsAtOnce = Atomic(false)
  private static let lastWords: StaticString = "[interrupted before the first token]\n"

  /// Whether a signal ends the process on the spot, with 130 and a line on standard error: for work
  /// that leaves nothing behind and does not poll the flag.
  public static func endProcessAtOnce(_ does: Bool) {
    endsAtOnce.store(does, ordering: .sequentiallyConsistent)
  }

  /// Begins to catch signals.
  public static func install() {
    _ = flag
    _ = endsAtOnce.load(ordering: .relaxed)
    var action = sigaction()
    action.__sigaction_handler.sa_handler = { _ in
      Interruption.flag.raise()
      guard Interruption.endsAtOnce.load(ordering: .relaxed) else { return }
      _ = Glibc.write(
        STDERR_FILENO, Interruption.lastWords.utf8Start, Interruption.lastWords.utf8CodeUnitCount)
      _exit(130)
    }
    // Without SA_RESTART, so that a wait for the drive ends; once only, so that a second one kills.
    action.sa_flags = Int32(bitPattern: UInt32(SA_RESETHAND))
    sigaction(SIGINT, &action, nil)
    sigaction(SIGTERM, &action, nil)
  }
}
