import Glibc
import Logging
import Runtime
import ServiceLifecycle
import UnixSignals

/// SIGTERM and SIGINT: the first lets what is under way be finished, the second ends the process. SIGHUP: keys and
/// certificate are read again.
struct SignalHandling: Sendable {
  let services: ServiceGroup
  let engine: Engine
  /// Where there is neither, SIGHUP does what it does to any process.
  let keys: APIKeys?
  let certificate: ServerCertificate?
  let logger: Logger
  /// The exit code of a process that was interrupted.
  private static let interruptedStatus: Int32 = 130

  func listen() async {
    var isStopping = false
    let isReloadable = keys != nil || certificate != nil
    let trapped: [UnixSignal] = [.sigterm, .sigint] + (isReloadable ? [.sighup] : [])
    for await signal in await UnixSignalsSequence(trapping: trapped) {
      if signal == .sighup {
        reload()
        continue
      }
      if isStopping { _exit(Self.interruptedStatus) }
      isStopping = true
      noteStop()
      await services.triggerGracefulShutdown()
    }
  }

  /// Says what is waited for.
  private func noteStop() {
    let statistics = engine.statistics()
    logger.notice(
      "stopping: \(statistics.openCount) answers are under way and \(statistics.queuedCount) wait, which are finished first; a second signal ends them"
    )
  }

  private func reload() {
    do { try keys?.reload() } catch { logger.warning("the keys stay what they were: \(error)") }
    do {
      try certificate?.reload()
      if let warning = certificate?.warning { logger.warning("\(warning)") }
    } catch { logger.warning("the certificate stays what it was: \(error)") }
  }
}
