import CEditLine
import CommandLineSupport
import Glibc
import TensorBasics

/// Lines that somebody types on a terminal, with editing and the lines before them (libedit).
///
/// The lines are kept in memory alone. One thread uses it.
final class LineEditor {
  /// What was typed.
  enum Input {
    case text(String)
    /// Ctrl-C, which gave up what was typed.
    case interrupted
    /// Ctrl-D on an empty line, or the terminal is gone.
    case end
  }

  private let history: OpaquePointer
  private var editor: OpaquePointer?
  private let prompts: [UnsafeMutablePointer<CChar>?]
  private var isContinued = false
  private var isInterrupted = false
  /// Whether the terminal has been told that a line is read.
  private var isReading = false

  private static let historyLength: Int32 = 1000

  /// - Throws: ``CommandError`` where there is no memory or no terminal for it.
  init(prompt: String, continuation: String) throws {
    // libedit reads characters as the locale says; the programs' texts are UTF-8 whatever it is.
    if setlocale(LC_CTYPE, "C.UTF-8") == nil { setlocale(LC_CTYPE, "") }
    guard let history = cel_make_history(Self.historyLength) else {
      throw CommandError(.notPossibleHere, "no memory for the lines of a conversation")
    }
    self.history = history
    prompts = [strdup(prompt), strdup(continuation)]
    editor = cel_open(
      Unmanaged.passUnretained(self).toOpaque(), history,
      { LineEditor.of($0).flatMap { $0.prompts[$0.isContinued ? 1 : 0] } },
      { LineEditor.of($0)?.read($1) ?? -1 },
      { editor, _ in LineEditor.of(editor)?.paste() ?? UInt8(CC_ERROR) })
    guard editor != nil else {
      throw CommandError(.notPossibleHere, "this terminal cannot be used for a conversation")
    }
  }

  deinit {
    if let editor { el_end(editor) }
    history_end(history)
    for prompt in prompts { free(prompt) }
  }

  private static func of(_ editor: OpaquePointer?) -> LineEditor? {
    editor.flatMap { cel_owner($0) }.map {
      Unmanaged<LineEditor>.fromOpaque($0).takeUnretainedValue()
    }
  }

  /// Reads a line, or several of which all but the last end with a backslash.
  func readMessage() -> Input {
    var text = ""
    isContinued = false
    while true {
      switch readLine() {
      case .interrupted: return .interrupted
      case .end: return text.isEmpty ? .end : .text(text)
      case .text(let line):
        guard line.hasSuffix("\\") else {
          text += line
          if !text.isEmpty { cel_add(history, text) }
          return .text(text)
        }
        text += line.dropLast() + "\n"
        isContinued = true
      }
    }
  }

  private func readLine() -> Input {
    isInterrupted = false
    el_resize(editor)
    isReading = false
    var count: Int32 = 0
    let line = el_gets(editor, &count)
    cel_flush()
    Self.send(Self.endsPastes)
    if isInterrupted {
      Terminal.print("\n")
      return .interrupted
    }
    guard let line, count > 0 else {
      Terminal.print("\n")
      return .end
    }
    var text = String(cString: line)
    if text.hasSuffix("\n") { text.removeLast() }
    return .text(text)
  }

  // MARK: Characters

  /// Makes the terminal put marks around a pasted block, and stop doing so.
  private static let (beginsPastes, endsPastes): (String, String) = {
    let name = getenv("TERM").map { String(cString: $0) } ?? "dumb"
    return name == "dumb" ? ("", "") : ("\u{1B}[?2004h", "\u{1B}[?2004l")
  }()

  /// Sends what shows nothing, and so is not counted as part of a line.
  private static func send(_ sequence: String) {
    sequence.withCString { _ = Glibc.write(STDOUT_FILENO, $0, strlen($0)) }
  }

  /// Gives libedit the next character: 1 = it is there, 0 = there are no more, -1 = Ctrl-C or an error.
  private func read(_ character: UnsafeMutablePointer<wchar_t>?) -> Int32 {
    guard let first = readByte() else { return isInterrupted ? -1 : 0 }
    // The bytes that follow the first one of a character of several.
    let count = first < 0xC0 ? 0 : first < 0xE0 ? 1 : first < 0xF0 ? 2 : 3
    var bytes = [first]
    for _ in 0..<count {
      guard let byte = readByte() else { return isInterrupted ? -1 : 0 }
      bytes.append(byte)
    }
    let scalar = String(decoding: bytes, as: UTF8.self).unicodeScalars.first ?? "\u{FFFD}"
    character?.pointee = wchar_t(bitPattern: scalar.value)
    return 1
  }

  /// The next byte; nil on Ctrl-C and where there are no more.
  private func readByte() -> UInt8? {
    if !isReading {
      // What is typed from here on comes to an editor that is ready for it.
      isReading = true
      Self.send(Self.beginsPastes)
    }
    while true {
      do throws(CommandError) { try Terminal.wait(for: STDIN_FILENO) } catch {
        isInterrupted = true
        errno = EINTR
        return nil
      }
      var byte: UInt8 = 0
      let count = Glibc.read(STDIN_FILENO, &byte, 1)
      if count < 0, errno == EINTR || errno == EAGAIN { continue }
      return count == 1 ? byte : nil
    }
  }

  /// Inserts a pasted block, line ends and all.
  private func paste() -> UInt8 {
    let end = Array("\u{1B}[201~".utf8)
    var block: [UInt8] = []
    while !block.suffix(end.count).elementsEqual(end) {
      guard let byte = readByte() else { return UInt8(isInterrupted ? CC_ERROR : CC_EOF) }
      block.append(byte)
    }
    let text = String(decoding: block.dropLast(end.count), as: UTF8.self)
    let lines = text.split(omittingEmptySubsequences: false) { ["\r", "\n", "\r\n"].contains($0) }
    let whole = lines.map { line in
      String(String.UnicodeScalarView(line.unicodeScalars.filter { $0.value >= 32 || $0 == "\t" }))
    }.joined(separator: "\n")
    return UInt8(el_insertstr(editor, whole) == 0 ? CC_REFRESH : CC_ERROR)
  }
}
