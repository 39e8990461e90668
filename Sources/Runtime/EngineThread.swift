import HostResources

/// The thread of an engine: it alone touches the ring, the plan, keys and values.
final class EngineThread: BackgroundWork {
  private let exchange: EngineExchange
  private let model: LanguageModel
  private let request: MemoryPlan.Request
  private let store: Engine.Store?
  private let draft: DraftChoice

  /// Compilers' checks make frames large.
  static let stackByteCount = 2 << 20

  init(
    _ model: LanguageModel, _ request: MemoryPlan.Request, _ store: Engine.Store?,
    _ draft: DraftChoice, _ exchange: EngineExchange
  ) {
    self.exchange = exchange
    self.model = model
    self.request = request
    self.store = store
    self.draft = draft
  }

  func run() {
    // When this has returned, so has all memory.
    serve()
    exchange.noteEnd()
  }

  private func serve() {
    do throws(RuntimeError) {
      let server = try EngineServer(model, request, store, draft, exchange)
      try server.run()
    } catch { exchange.fail(error) }
  }
}
