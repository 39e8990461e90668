import Glibc
import HostResources
import Synchronization
import TensorBasics

/// The line on standard error that shows ``Progress``, and what else is on that line.
enum ProgressLine {
  private struct State {
    var shown: Progress?
    var isThreadRunning = false
    var lastDrawing = 0
    /// When a line was last written where there is no terminal.
    var lastReport = 0
    /// When work began that nobody has seen a line of, and when some last ended.
    var silenceStart = 0
    var lastEnd = 0
  }

  private static let state = Mutex(State())
  /// Whether the line is on the screen; read by the signal handler.
  private static let isDrawn = Atomic(false)
  /// Whether it is below the unfinished line of an answer, at whose end the cursor stays.
  private static let isBelow = Atomic(false)
  private static let isSilenced = Atomic(false)

  private static let firstNanoseconds = 300_000_000
  private static let intervalMicroseconds: UInt32 = 100_000
  private static let reportNanoseconds = 10_000_000_000

  /// Shows no progress from now on.
  static func silence() { isSilenced.store(true, ordering: .relaxed) }

  static func show(_ progress: Progress) {
    guard !isSilenced.load(ordering: .relaxed) else { return }
    state.withLock { state in
      let now = monotonicNanoseconds()
      // What follows other work at once goes on with its silence.
      if now - state.lastEnd > firstNanoseconds { state.silenceStart = now }
      state.shown = progress
      state.lastReport = now
      guard !state.isThreadRunning, hasRoomForThread,
        let thread = try? BackgroundThread(Drawing())
      else { return }
      thread.detach()
      state.isThreadRunning = true
      isDrawnByThread.store(true, ordering: .relaxed)
    }
  }

  /// Whether a thread draws; where there is none the work does, as it comes forward.
  private static let isDrawnByThread = Atomic(false)

  /// Threads that work needs come first where there may be few.
  private static let hasRoomForThread = HostLimits().threadRoom ?? .max >= 64

  /// Draws what is new where no thread does, and not more often than one would.
  static func advance() {
    guard !isDrawnByThread.load(ordering: .relaxed), !isSilenced.load(ordering: .relaxed)
    else { return }
    let isDue = state.withLock { state in
      let now = monotonicNanoseconds()
      let isDue = now - state.lastDrawing > Int(intervalMicroseconds) * 1000
      if isDue { state.lastDrawing = now }
      return isDue
    }
    if isDue { _ = draw() }
  }

  static func hide(_ progress: Progress) {
    state.withLock { state in
      guard state.shown === progress else { return }
      state.shown = nil
      state.lastEnd = monotonicNanoseconds()
      clear()
    }
  }

  /// Takes the line off the screen while `write` writes something else.
  static func interrupt<Result>(_ write: () -> Result) -> Result {
    guard isDrawn.load(ordering: .relaxed) else { return write() }
    return state.withLock { _ in
      clear()
      return write()
    }
  }

  /// Takes the line off the screen; for a signal handler, which may wait for nothing.
  static func clear() {
    guard isDrawn.exchange(false, ordering: .relaxed) else { return }
    // From the cursor to the end of the screen, or of the line.
    let text: StaticString =
      isBelow.load(ordering: .relaxed) ? "\u{1B}[J" : "\r\u{1B}[K"
    _ = Glibc.write(STDERR_FILENO, text.utf8Start, text.utf8CodeUnitCount)
  }

  /// Redraws as long as there is something to show.
  private final class Drawing: BackgroundWork {
    func run() {
      while ProgressLine.draw() { usleep(ProgressLine.intervalMicroseconds) }
    }
  }

  /// - Returns: false where nothing is shown any more and the thread ends.
  private static func draw() -> Bool {
    state.withLock { state in
      guard let shown = state.shown else {
        state.isThreadRunning = false
        isDrawnByThread.store(false, ordering: .relaxed)
        return false
      }
      if shown.isShortStep {
        clear()
        return true
      }
      if Terminal.errorIsInteractive {
        guard
          isDrawn.load(ordering: .relaxed)
            || monotonicNanoseconds() - state.silenceStart > firstNanoseconds
        else { return true }
        draw(shown)
      } else if monotonicNanoseconds() - max(state.lastReport, shown.startNanoseconds)
        >= reportNanoseconds
      {
        state.lastReport = monotonicNanoseconds()
        Terminal.endLine()
        Terminal.writeBytes(of: shown.description + "\n")
      }
      return true
    }
  }

  /// Draws the line: in its own place, or below an answer that has not ended its line.
  private static func draw(_ shown: Progress) {
    let columnCount = columnCount
    let line = shown.drawing(columnCount: columnCount)
    let cellCount = Terminal.unfinishedCellCount
    isBelow.store(cellCount > 0, ordering: .relaxed)
    isDrawn.store(true, ordering: .relaxed)
    guard cellCount > 0 else { return Terminal.writeBytes(of: "\r\u{1B}[K" + line) }
    // Where the row is full, the next character begins the next row in any case, and the cursor can be moved.
    let wrap = cellCount % columnCount == 0 ? "\r\n" : ""
    // Makes room below, keeps the place, draws there and returns.
    let (room, keep, below, back) = ("\u{1B}D\u{1B}[A", "\u{1B}7", "\u{1B}[B\r\u{1B}[K", "\u{1B}8")
    Terminal.writeBytes(of: wrap + room + keep + below + line + back)
    if !wrap.isEmpty { Terminal.beginRow() }
  }

  /// Characters of a line of the terminal.
  private static var columnCount: Int {
    var size = winsize()
    let isKnown = ioctl(STDERR_FILENO, UInt(TIOCGWINSZ), &size) == 0 && size.ws_col > 0
    return isKnown ? Int(size.ws_col) : 80
  }
}
