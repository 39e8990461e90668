import Glibc
import TestSupport

extension Program {
  /// What a program wrote on a terminal of its own.
  struct Screen {
    /// The exit code, or 128 + the signal's number.
    var status: Int32
    /// All bytes, with escape sequences and lines that were drawn over.
    var transcript: String

    /// What is left on the screen, whatever its width.
    var lines: [String] { rows(columns: .max) }

    /// What is left on a screen of that width, row by row: carriage returns go back, the escape sequences of progress
    /// are obeyed, and a full row goes on in the next one.
    func rows(columns: Int) -> [String] {
      var (rows, row, column) = ([[Character]()], 0, 0)
      var saved = (row: 0, column: 0)
      func goDown() {
        row += 1
        if row == rows.count { rows.append([]) }
      }
      var rest = transcript[...]
      while let character = rest.first {
        let sequences = ["[K", "[J", "[A", "[B", "D", "7", "8"]
        if let sequence = sequences.first(where: { rest.hasPrefix("\u{1B}" + $0) }) {
          rest = rest.dropFirst(1 + sequence.count)
          switch sequence {
          case "[K": rows[row].removeSubrange(min(column, rows[row].count)...)
          case "[J":
            rows[row].removeSubrange(min(column, rows[row].count)...)
            rows.removeSubrange((row + 1)...)
          case "[A": row = max(0, row - 1)
          case "[B": row = min(rows.count - 1, row + 1)
          case "D": goDown()
          case "7": saved = (row, column)
          default: (row, column) = saved
          }
          continue
        }
        rest = rest.dropFirst()
        switch character {
        case "\r": column = 0
        case "\n", "\r\n":
          goDown()
          column = 0
        default:
          if column == columns {
            goDown()
            column = 0
          }
          rows[row] += [Character](repeating: " ", count: max(0, column - rows[row].count))
          if column < rows[row].count {
            rows[row][column] = character
          } else {
            rows[row].append(character)
          }
          column += 1
        }
      }
      if rows.last?.isEmpty == true { rows.removeLast() }
      return rows.map { String($0) }
    }
  }

  /// Runs a program on a terminal of `columns`, which is its standard input, output and error.
  ///
  /// - Parameter typing: what to type, each once the screen has shown `cue` since the keys before; `\u{3}` is Ctrl-C.
  static func onTerminal(
    _ program: String, _ arguments: [String], environment: [String] = [], columns: UInt16 = 80,
    typing: [(cue: String, keys: String)] = []
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
    var (keys, shown) = (typing[...], 0)
    while true {
      var entry = pollfd(fd: master, events: Int16(POLLIN), revents: 0)
      // What waits for keys that nobody types would wait for ever.
      if poll(&entry, 1, 60_000) == 0 { kill(process, SIGKILL) }
      // Reading ends with EIO when the program has closed the terminal.
      let count = read(master, &block, block.count)
      if count < 0, errno == EINTR { continue }
      guard count > 0 else { break }
      bytes += block[..<count]
      while let typed = keys.first, let cue = bytes[shown...].firstRange(of: typed.cue.utf8) {
        shown = cue.upperBound
        keys.removeFirst()
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
