package import Glibc

/// What a thread of a device does until it is told to stop.
package protocol BackgroundWork: AnyObject {
  func run()
}

/// Threads with small stacks that no signal reaches.
package enum BackgroundThread {
  /// Enough for `pread` or `pwrite` and what surrounds them; pages never touched cost nothing.
  private static let stackByteCount = 256 << 10

  private final class Start {
    let work: any BackgroundWork
    init(_ work: any BackgroundWork) { self.work = work }
  }

  /// Starts a thread that keeps `work` alive while it runs.
  package static func start(_ work: any BackgroundWork) throws(BlockIOError) -> pthread_t {
    var attributes = pthread_attr_t()
    pthread_attr_init(&attributes)
    defer { pthread_attr_destroy(&attributes) }
    pthread_attr_setstacksize(&attributes, stackByteCount)
    // Signals are for the program's own threads.
    var (all, previous) = (sigset_t(), sigset_t())
    sigfillset(&all)
    pthread_sigmask(SIG_BLOCK, &all, &previous)
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
      throw BlockIOError(.startThreads, reason: .system(errno: status))
    }
    return thread
  }
}
