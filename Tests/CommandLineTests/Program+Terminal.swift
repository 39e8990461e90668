import Glibc
import TestSupport

extension Program {
  /// What a program wrote on a terminal of its own.
  struct Screen {
    /// The exit code, or 128 + the signal's number.
    var status: Int32
    /// All bytes, with escape sequences and lines that were drawn over.
    var transcript: String

    /// What is left on the screen: carriage returns go back, `ESC [ K` wipes the line.
    var lines: [String] {
      var (lines, line, column) = ([String](), [Character](), 0)
      var rest = transcript[...]
      while let character = rest.first {
        if rest.hasPrefix("\u{1B}[K") {
          rest = rest.dropFirst(3)
          line.removeSubrange(min(column, line.count)...)
          continue
        }
        rest = rest.dropFirst()
        switch character {
        case "\r": column = 0
        case "\n", "\r\n":
          lines.append(String(line))
          (line, column) = ([], 0)
        default:
          if column < line.count { line[column] = character } else { line.append(character) }
          column += 1
        }
      }
      return line.isEmpty ? lines : lines + [String(line)]
    }
  }

  /// Runs a program on a terminal of `columns`, which is its standard input, output and error.
  ///
  /// - Parameter type: what to type, once the screen has shown `cue`; `\u{3}` is Ctrl-C.
  static func onTerminal(
    _ program: String, _ arguments: [String], environment: [String] = [], columns: UInt16 = 80,
    type: (cue: String, keys: String)? = nil
  ) throws -> Screen {
    var (master, terminal): (Int32, Int32) = (-1, -1)
    var size = winsize(ws_row: 24, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0)
    guard openpty(&master, &terminal, nil, nil, &size) == 0, let name = ttyname(terminal) else {
      throw NotStarted()
    }
    let path = String(cString: name)
    defer { close(master) }
    _ = fcntl(master, F_SETFD, FD_CLOEXEC)
    _ = fcntl(terminal, F_SETFD, FD_CLOEXEC)
    var actions = posix_spawn_file_actions_t()
    posix_spawn_file_actions_init(&actions)
    defer { posix_spawn_file_actions_destroy(&actions) }
    // Opened by the leader of a new session, it becomes the one that Ctrl-C comes from.
    posix_spawn_file_actions_addopen(&actions, 0, path, O_RDWR, 0)
    posix_spawn_file_actions_adddup2(&actions, 0, 1)
    posix_spawn_file_actions_adddup2(&actions, 0, 2)
    let process = try start(
      ["\(directory)/\(program)"] + arguments, environment, &actions, inSession: true)
    close(terminal)
    var (bytes, block) = ([UInt8](), [UInt8](repeating: 0, count: 1 << 16))
    var keys = type
    while true {
      // Reading ends with EIO when the program has closed the terminal.
      let count = read(master, &block, block.count)
      if count < 0, errno == EINTR { continue }
      guard count > 0 else { break }
      bytes += block[..<count]
      if let typed = keys, String(decoding: bytes, as: UTF8.self).contains(typed.cue) {
        keys = nil
        _ = typed.keys.withCString { write(master, $0, strlen($0)) }
      }
    }
    let status = waitForEnd(of: process)
    let ending = status & 0x7F
    return Screen(
      status: ending == 0 ? (status >> 8) & 0xFF : 128 + ending,
      transcript: String(decoding: bytes, as: UTF8.self))
  }
}
