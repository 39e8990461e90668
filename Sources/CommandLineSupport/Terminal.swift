import Glibc
import Synchronization
import TensorBasics

/// Standard output and error without buffering surprises.
public enum Terminal {
  /// A number with its noun, which takes an s unless it is one.
  public static func counted(_ count: Int, _ noun: String) -> String {
    "\(count) \(noun)\(count == 1 ? "" : "s")"
  }

  /// One line on standard error, never behind half a line of an answer.
  public static func note(_ line: String) {
    ProgressLine.interrupt {
      endLine()
      // The terminal itself writes ^C where the cursor is.
      let isBehindEcho = Interruption.flag.isRaised && errorIsInteractive
      writeBytes(of: (isBehindEcho ? "\r\u{1B}[K" : "") + line.displayingPaths + "\n")
    }
  }

  /// Ends the line that standard output has left unfinished where standard error would go on with it.
  static func endLine() {
    guard isMidLine.load(ordering: .relaxed), outputsShareFile else { return }
    isMidLine.store(false, ordering: .relaxed)
    cellCount.store(0, ordering: .relaxed)
    writeBytes(of: "\n")
  }

  /// Whether the last byte on standard output was none that ends a line.
  private static let isMidLine = Atomic(false)

  /// Whether standard output and standard error are one terminal, pipe or file.
  private static let outputsShareFile: Bool = {
    var (output, error) = (stat(), stat())
    return fstat(STDOUT_FILENO, &output) == 0 && fstat(STDERR_FILENO, &error) == 0
      && output.st_dev == error.st_dev && output.st_ino == error.st_ino
  }()

  /// Cells of a terminal that the unfinished line of standard output fills where standard error is the same terminal;
  /// otherwise 0.
  static var unfinishedCellCount: Int { cellCount.load(ordering: .relaxed) }

  private static let cellCount = Atomic(0)

  /// Says that the unfinished line goes on at the beginning of a row.
  static func beginRow() { cellCount.store(0, ordering: .relaxed) }

  /// Adds text to the unfinished line.
  private static func count(_ text: UnsafeBufferPointer<UInt8>) {
    let previous = uselocale(characters)
    defer { uselocale(previous) }
    var count = unfinishedCellCount
    for scalar in String(decoding: text, as: UTF8.self).unicodeScalars {
      switch scalar {
      case "\n", "\r": count = 0
      case "\t": count = (count / 8 + 1) * 8
      default: count += max(0, Int(cellWidth?(wchar_t(bitPattern: scalar.value)) ?? 1))
      }
    }
    cellCount.store(count, ordering: .relaxed)
  }

  /// The C library's `wcwidth`, which its headers hide from Swift.
  private static let cellWidth: (@convention(c) (wchar_t) -> Int32)? = dlsym(nil, "wcwidth").map {
    unsafeBitCast($0, to: (@convention(c) (wchar_t) -> Int32).self)
  }

  /// Knows how wide Unicode's characters are; nil where the system has no such locale.
  // Safety: never changed or freed.
  private nonisolated(unsafe) static let characters = newlocale(
    1 << LC_CTYPE, "C.UTF-8", nil)

  /// Text on standard error as it is.
  static func writeBytes(of text: String) { write(text, to: STDERR_FILENO) }

  /// Shows neither progress nor summaries from now on; warnings and errors stay.
  public static func beQuiet() {
    isQuiet.store(true, ordering: .relaxed)
    ProgressLine.silence()
  }

  private static let isQuiet = Atomic(false)

  /// A line on standard error for who wants to know, which `--quiet` leaves out.
  public static func remark(_ line: String) {
    if !isQuiet.load(ordering: .relaxed) { note(line) }
  }

  /// A warning, once per call, on standard error.
  public static func warn(_ line: String) { note("warning: \(line)") }

  /// Text on standard output, at once.
  public static func print(_ text: String) {
    var text = text
    text.withUTF8 { print($0) }
  }

  /// Bytes on standard output, at once.
  public static func print(_ bytes: [UInt8]) { bytes.withUnsafeBufferPointer { print($0) } }

  /// Bytes on standard output, at once.
  package static func print(_ bytes: UnsafeBufferPointer<UInt8>) {
    ProgressLine.interrupt { write(UnsafeRawBufferPointer(bytes), to: STDOUT_FILENO) }
    if errorIsInteractive, outputsShareFile { count(bytes) }
    if let last = bytes.last { isMidLine.store(last != UInt8(ascii: "\n"), ordering: .relaxed) }
  }

  /// Ends the process without running destructors.
  public static func exit(_ status: ExitStatus) -> Never { _exit(status.rawValue) }

  public static var errorIsInteractive: Bool { isatty(STDERR_FILENO) == 1 }
  public static var inputIsInteractive: Bool { isatty(STDIN_FILENO) == 1 }
  public static var outputIsInteractive: Bool { isatty(STDOUT_FILENO) == 1 }

  private static func write(_ text: String, to file: Int32) {
    var text = text
    text.withUTF8 { write(UnsafeRawBufferPointer($0), to: file) }
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
        let reason = String(cString: strerror(errno))
        ProgressLine.clear()
        if errno != EPIPE { writeBytes(of: "error: standard output: \(reason)\n") }
        _exit(ExitStatus.failure.rawValue)
      }
      rest = rest.dropFirst(count)
    }
  }
}
