import Glibc
import ServiceLifecycle
import UnixSignals

/// SIGTERM and SIGINT: the first lets what is under way be finished, the second ends the process.
enum SignalStop {
  /// The exit code of a process that was interrupted.
  private static let interruptedStatus: Int32 = 130

  static func listen(_ services: ServiceGroup) async {
    var isStopping = false
    for await _ in await UnixSignalsSequence(trapping: .sigterm, .sigint) {
      if isStopping { _exit(interruptedStatus) }
      isStopping = true
      await services.triggerGracefulShutdown()
    }
  }
}
