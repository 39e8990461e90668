import Logging
import Runtime
import ServiceLifecycle

/// Tells people what the engine warns of, and ends the server with an engine that failed.
///
/// An engine that has failed answers nothing more, and a server of it is of no use: whoever started it starts another. Before
/// that it says for some seconds what happened, to those whose answers ended and to whoever looks at `/health`.
struct EngineWatch: Service {
  let engine: Engine
  /// How long the server outlives the engine.
  let failureSeconds: Int
  let logger: Logger
  private static let interval = Duration.milliseconds(500)

  func run() async throws {
    try await cancelWhenGracefulShutdown {
      while !Task.isCancelled {
        for warning in engine.takeWarnings() { logger.warning("\(warning)") }
        if let failure = engine.failure {
          logger.critical("\(EngineFailure(failure)); the server ends in \(failureSeconds) s")
          try? await Task.sleep(for: .seconds(failureSeconds))
          throw EngineFailure(failure)
        }
        try? await Task.sleep(for: Self.interval)
      }
    }
  }
}

/// The model or its drive has failed, which ended the engine.
struct EngineFailure: Error, CustomStringConvertible {
  let description: String

  init(_ error: RuntimeError) { description = "the engine has failed: \(error)" }
}
