import Glibc
import Logging
import ServiceLifecycle
import UnixSignals

/// SIGTERM and SIGINT: the first lets what is under way be finished, the second ends the process. SIGHUP: keys are read again.
struct SignalHandling: Sendable {
  let services: ServiceGroup
  /// nil: SIGHUP does what it does to any process.
  let keys: APIKeys?
  let logger: Logger
  /// The exit code of a process that was interrupted.
  private static let interruptedStatus: Int32 = 130

  func listen() async {
    var isStopping = false
    let trapped: [UnixSignal] = [.sigterm, .sigint] + (keys == nil ? [] : [.sighup])
    for await signal in await UnixSignalsSequence(trapping: trapped) {
      if signal == .sighup {
        do { try keys?.reload() } catch { logger.warning("the keys stay what they were: \(error)") }
        continue
      }
      if isStopping { _exit(Self.interruptedStatus) }
      isStopping = true
      await services.triggerGracefulShutdown()
    }
  }
}
