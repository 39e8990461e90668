import Glibc
import Synchronization
public import TensorBasics

/// Ctrl-C and SIGTERM as a flag that long work polls; a second one ends the process at once.
public enum Interruption {
  public static let flag = CancellationFlag()
  private static let endsAtOnce = Atomic(false)
  private static let isTerminated = Atomic(false)
  private static let lastWords: StaticString = "[interrupted]\n"

  /// Whether a signal ends the process on the spot, with 130 and a line on standard error: for work
  /// that leaves nothing behind and does not poll the flag.
  public static func endProcessAtOnce(_ does: Bool) {
    endsAtOnce.store(does, ordering: .sequentiallyConsistent)
  }

  /// Whether it was SIGTERM: it ends the program where Ctrl-C ends what the program is doing.
  public static var endsProgram: Bool { isTerminated.load(ordering: .relaxed) }

  /// Begins to catch signals.
  public static func install() {
    _ = flag
    _ = endsAtOnce.load(ordering: .relaxed)
    _ = isTerminated.load(ordering: .relaxed)
    var action = sigaction()
    action.__sigaction_handler.sa_handler = { signal in
      ProgressLine.clear()
      if signal == SIGTERM { Interruption.isTerminated.store(true, ordering: .relaxed) }
      guard !Interruption.flag.isRaised else {
        // As if it had never been caught, when this handler returns.
        Glibc.signal(signal, SIG_DFL)
        Glibc.raise(signal)
        return
      }
      Interruption.flag.raise()
      guard Interruption.endsAtOnce.load(ordering: .relaxed) else { return }
      _ = Glibc.write(
        STDERR_FILENO, Interruption.lastWords.utf8Start, Interruption.lastWords.utf8CodeUnitCount)
      _exit(130)
    }
    // Without SA_RESTART, so that a wait for the drive ends.
    sigaction(SIGINT, &action, nil)
    sigaction(SIGTERM, &action, nil)
  }
}
