import Hummingbird
import HummingbirdCore
import HummingbirdTLS
public import Logging
import NIOCore
import NIOPosix
public import Runtime
import ServiceLifecycle

/// An engine behind OpenAI's and Anthropic's HTTP interfaces.
///
/// ```swift
/// let server = HTTPServer(engine, model, ServerOptions(modelName: "tiny"), logger: Logger(label: "serve"))
/// try await server.run(handlesSignals: true) { port in print("listening on \(port)") }
/// engine.stop(.finishing)
/// ```
///
/// Requests become sequences of the engine, which alone decides what is computed when. An answer is what the engine
/// answers to the same tokens and seed, whatever else it answers at that time.
public struct HTTPServer: Sendable {
  private let engine: Engine
  private let model: ServedModel
  private let options: ServerOptions
  private let logger: Logger
  /// One thread, of all servers of the process, which lives as long as that: in 2.28 a task of Hummingbird's that nobody can
  /// wait for still uses the event loop when the server has ended.
  private static let eventLoops = MultiThreadedEventLoopGroup(numberOfThreads: 1)

  /// - Parameter model: what the engine was made of.
  public init(
    _ engine: Engine, _ model: LanguageModel, _ options: ServerOptions, logger: Logger
  ) {
    self.engine = engine
    self.model = ServedModel(
      model, name: options.modelName, contextLength: engine.plan.contextLength,
      template: options.chatTemplate)
    self.options = options
    self.logger = logger
  }

  /// Answers requests until it is stopped: by a signal, or because the task is cancelled.
  ///
  /// - Parameters:
  ///   - handlesSignals: whether SIGTERM and SIGINT stop it when the answers under way are finished, a second one ends
  ///     the process at once, and SIGHUP has keys and certificate read again, if there are any.
  ///   - onStart: is told the port when it listens, 0 where it listens on a socket in the file system.
  /// - Throws: what the address is refused for; what the engine failed with, some seconds after it has.
  public func run(
    handlesSignals: Bool, onStart: @escaping @Sendable (_ port: Int) -> Void
  ) async throws {
    let socket = try options.unixSocketPath.map { try UnixSocketFile($0) }
    defer { socket?.remove() }
    let application = Application(
      router: router(), server: try connections,
      configuration: ApplicationConfiguration(
        address: socket.map { .unixDomainSocket(path: $0.path) }
          ?? .hostname(options.host, port: options.port),
        availableConnectionsDelegate: .maximum(options.connectionCount, logger: logger)),
      onServerRunning: { channel in
        socket?.publish()
        onStart(channel.localAddress?.port ?? 0)
      },
      eventLoopGroupProvider: .shared(Self.eventLoops), logger: logger)
    let watch = EngineWatch(
      engine: engine, failureSeconds: options.failureSeconds, logger: logger)
    let services = ServiceGroup(services: [application, watch], logger: logger)
    do { try await run(services, handlesSignals: handlesSignals) } catch {
      throw ListenFailure(error, options) ?? error
    }
  }

  private func run(_ services: ServiceGroup, handlesSignals: Bool) async throws {
    try await withThrowingTaskGroup(of: Void.self) { tasks in
      tasks.addTask { try await services.run() }
      if handlesSignals {
        let signals = SignalHandling(
          services: services, engine: engine, keys: options.apiKeys,
          certificate: options.certificate, logger: logger)
        tasks.addTask { await signals.listen() }
      }
      // Only the services end by themselves.
      try await tasks.next()
      tasks.cancelAll()
    }
  }

  private var connections: HTTPServerBuilder {
    get throws {
      let plain = HTTPServerBuilder.http1(configuration: connectionConfiguration)
      guard let certificate = options.certificate else { return plain }
      return try .tls(plain, tlsConfiguration: certificate.configuration())
    }
  }

  private var connectionConfiguration: HTTP1Channel.Configuration {
    let limit = options.requestSeconds
    let idleLimit = TimeAmount.seconds(Int64(options.idleSeconds))
    let handshakes = HandshakeLog.Shared(logger)
    return HTTP1Channel.Configuration(
      additionalChannelHandlers: [
        SmallReads(), OldClients(), Expectations(), RequestDeadline(seconds: limit),
        ReaderDeadline(idleLimit), ClientWatch(), HandshakeLog(handshakes),
      ],
      idleTimeout: idleLimit,
      httpDecoderConfiguration: .init(
        maxHeaderFieldSize: 16 << 10, maxHeaderListSize: 32 << 10, maxHeaderFieldCount: 100))
  }

  /// The methods and paths that are answered: `GET /health`.
  package var routes: [String] {
    let router = Router(context: ConnectionContext.self)
    let registry = PrometheusRegistry()
    addRoutes(to: router, AnswerDesk(engine, options, AnswerMetrics(registry)), registry)
    return router.routes.map { "\($0.method) \($0.path)" }
  }

  private func router() -> Router<ConnectionContext> {
    let registry = PrometheusRegistry(
      helps: AnswerMetrics.helps.merging(EngineMetrics.helps) { $1 })
    let metrics = AnswerMetrics(registry)
    let desk = AnswerDesk(engine, options, metrics)
    // What surrounds all requests is there before the routes, and knows them all the same.
    let described = Router(context: ConnectionContext.self)
    addRoutes(to: described, desk, registry)
    let router = Router(context: ConnectionContext.self, options: .autoGenerateHeadEndpoints)
    router.add(
      middleware: RequestMiddleware(
        access: AccessRules(options), routes: RouteTable(described), metrics: metrics))
    addRoutes(to: router, desk, registry)
    return router
  }

  private func addRoutes(
    to router: Router<ConnectionContext>, _ desk: AnswerDesk, _ registry: PrometheusRegistry
  ) {
    let bodies = RequestBodies(
      limit: options.bodyByteCount, totalLimit: ServerOptions.bodyCount * options.bodyByteCount,
      compilationByteCount: options.compilationByteCount)
    GenerationRoutes(
      model: model, bodies: bodies, desk: desk,
      kept: KeptResponses(byteLimit: options.keptResponseByteCount)
    ).add(to: router)
    EmbeddingRoutes(
      model: model, bodies: bodies, desk: desk, pooling: options.pooling ?? model.pooling,
      memory: EmbeddingMemory(byteLimit: options.embeddingByteCount)
    ).add(to: router)
    TextRoutes(model: model, bodies: bodies).add(to: router)
    StateRoutes(
      model: model, desk: desk, registry: registry, engineMetrics: EngineMetrics(registry)
    ).add(to: router)
    PageRoutes().add(to: router)
  }
}
