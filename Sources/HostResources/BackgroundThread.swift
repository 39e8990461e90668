import Glibc
import TensorBasics

/// What a thread does until it is told to stop.
package protocol BackgroundWork: AnyObject {
  func run()
}

/// A thread of ours, with a small stack, that handles none of the host program's signals.
///
/// Every thread of the package is started here.
package struct BackgroundThread: Sendable {
  private let thread: pthread_t

  /// Enough for reads, writes and kernels and what surrounds them; pages never touched cost nothing.
  package static let usualStackByteCount = 256 << 10

  private final class Start {
    let work: any BackgroundWork
    init(_ work: any BackgroundWork) { self.work = work }
  }

  /// Starts a thread that keeps `work` alive while it runs.
  ///
  /// - Throws: ``ThreadError`` if the system refuses one.
  package init(
    _ work: any BackgroundWork, stackByteCount: Int = usualStackByteCount
  ) throws(ThreadError) {
    let refusal = FaultPlan.refusal(of: .startThread)
    guard refusal == 0 else { throw ThreadError(errno: refusal) }
    var attributes = pthread_attr_t()
    pthread_attr_init(&attributes)
    defer { pthread_attr_destroy(&attributes) }
    pthread_attr_setstacksize(&attributes, stackByteCount)
    var (blocked, previous) = (Self.blockedSignals(), sigset_t())
    pthread_sigmask(SIG_SETMASK, &blocked, &previous)
    defer { pthread_sigmask(SIG_SETMASK, &previous, nil) }
    var thread = pthread_t()
    let context = Unmanaged.passRetained(Start(work))
    let status = pthread_create(
      &thread, &attributes,
      { context in
        guard let context else { return nil }
        Unmanaged<Start>.fromOpaque(context).takeRetainedValue().work.run()
        return nil
      }, context.toOpaque())
    guard status == 0 else {
      context.release()
      throw ThreadError(errno: status)
    }
    self.thread = thread
  }

  /// Waits for the end of the thread's work; called once.
  package func join() { pthread_join(thread, nil) }

  /// Detaches the thread: it ends with its work, and is not waited for.
  package func detach() { pthread_detach(thread) }

  /// All signals but those that a thread's own instructions raise: blocked, they would end the process
  /// before the host program's handler is asked.
  private static func blockedSignals() -> sigset_t {
    var signals = sigset_t()
    sigfillset(&signals)
    for signal in [SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS, SIGABRT] {
      sigdelset(&signals, signal)
    }
    return signals
  }
}
