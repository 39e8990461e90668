import Logging
import Runtime
import ServiceLifecycle

/// Tells people what the engine warns of, and ends the server with an engine that failed.
struct EngineWatch: Service {
  let engine: Engine
  let logger: Logger
  private static let interval = Duration.milliseconds(500)

  func run() async throws {
    try await cancelWhenGracefulShutdown {
      while !Task.isCancelled {
        for warning in engine.takeWarnings() { logger.warning("\(warning)") }
        if let failure = engine.failure { throw failure }
        try? await Task.sleep(for: Self.interval)
      }
    }
  }
}
