import ArgumentParser
import BlockIO
import CommandLineSupport
import Logging
import ModelFormat
import Runtime
import Server
import TensorBasics
import WeightLoader

/// `flashinfer-serve MODEL`: a model answers requests over HTTP.
@main
struct Serve: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "flashinfer-serve",
    abstract:
      "Answers requests over HTTP, as OpenAI's and Anthropic's interfaces have them, with a model that need not fit in memory.",
    discussion: """
      MODEL is a flash image (see flashinfer-convert), a GGUF file or a Hugging Face folder with \
      safetensors. Several requests are answered at the same time, from the same sweeps over the weights. \
      SIGTERM and Ctrl-C stop the server when the answers under way are finished; a second one stops it at once.

      Examples:
        flashinfer-serve model.bin --ram 2GiB
        flashinfer-serve model.bin --sequences 16 --context 4096 --kv-store /mnt/nvme/kv
      """,
    version: FlashInferVersion.current)

  static func main() { runAsProgram() }

  @Argument(help: "Flash image, GGUF file or Hugging Face folder.")
  var model: String

  @OptionGroup(title: "Server") var server: ServerArguments
  @OptionGroup(title: "Server") var drafts: DraftArguments
  @OptionGroup(title: "Memory, processors and drive") var resources: ResourceOptions
  @OptionGroup(title: "Memory, processors and drive") var verification: VerifyArguments
  @OptionGroup(title: "Keys and values") var keyValues: KeyValueArguments
  @OptionGroup(title: "Keys and values") var store: StoreArguments
  @OptionGroup(title: "Neurons") var neurons: NeuronArguments

  func validate() throws {
    guard store.kvStore == nil || !server.noKvStore else {
      throw ValidationError("--kv-store and --no-kv-store contradict each other")
    }
  }

  func run() throws {
    Interruption.install()
    Interruption.endProcessAtOnce(true)
    try reportingErrors {
      let model = try resources.open(model)
      Terminal.warn(notesOf: model.source)
      let length =
        resources.context ?? min(model.configuration.contextLength, Self.usualContextLength)
      let usual = try server.options(modelPath: self.model, contextLength: length)
      let (engine, options, draftByteCount) = try Progress.showing("planning memory") { _ in
        try makeEngine(model, usual, contextLength: length)
      }
      try drafts.expectRoom(in: engine.plan)
      guard !server.plan else {
        printPlan(engine.plan, options, draftByteCount: draftByteCount)
        return engine.stop()
      }
      for note in engine.notes { Terminal.warn(note) }
      if let warning = options.certificate?.warning { Terminal.warn(warning) }
      if let pooling = model.source.description.pooling, options.pooling == nil,
        Pooling(rawValue: pooling) == nil
      {
        Terminal.warn(
          "the model's vectors are pooled by '\(pooling)', which is not supported: those of /v1/embeddings are means"
        )
      }
      LoggingSystem.bootstrap(StreamLogHandler.standardError)
      try serve(HTTPServer(engine, model, options, logger: Self.logger), options)
      // What was asked for is answered by now; the store may have something to write.
      engine.stop(.finishing)
      Self.noteEnd(of: engine)
    }
  }

  /// Says what the server did before it ends.
  private static func noteEnd(of engine: Engine) {
    let statistics = engine.statistics()
    logger.notice(
      "stopped: all answers are finished and what is kept is written; \(statistics.drawnCount) tokens were answered since the start"
    )
  }

  /// Positions of a context where nothing is said: what a conversation takes, and models were trained for.
  private static let usualContextLength = 8192

  /// An engine, and a server's bounds beside it: those of the largest share of their usual memory that leaves the engine
  /// most of the budget, and that it can be planned with; and what a draft model takes.
  private func makeEngine(
    _ model: LanguageModel, _ usual: ServerOptions, contextLength length: Int
  ) throws -> (Engine, ServerOptions, draftByteCount: Int) {
    let store = server.plan ? nil : engineStore
    let all = ServerOptions.shares.map { server.scaled(usual, to: $0) }
    let fitting = all.firstIndex { options in
      let own = options.parts(sequenceCount: server.sequences).reduce(options.maskByteCount) {
        $0 + $1.byteCount
      }
      return own <= resources.budget / Self.mostServerShare
    }
    var base = resources.memoryRequest(
      model, keyValues, neurons, verification, contextLength: length, promptLength: length,
      callerByteCount: 0)
    base.sequenceCount = server.sequences
    base.usesGrammars = true
    let draft = try drafts.plan(&base, for: model, resources)
    let draftByteCount = base.callerByteCount
    func engine(_ options: ServerOptions) throws(RuntimeError) -> Engine {
      var request = base
      request.callerByteCount += options.parts(sequenceCount: server.sequences).reduce(0) {
        $0 + $1.byteCount
      }
      request.maskByteCount = options.maskByteCount
      return try Engine(model, request, store: store, draft: draft)
    }
    for options in all[(fitting ?? all.count)...].dropLast() {
      do throws(RuntimeError) { return (try engine(options), options, draftByteCount) } catch {
        guard case .budgetTooSmall = error else { throw error }
      }
    }
    let least = all[all.count - 1]
    return (try engine(least), least, draftByteCount)
  }

  /// What of the budget the server has at most where it can do with less.
  private static let mostServerShare = 3

  private func printPlan(
    _ plan: Runtime.MemoryPlan, _ options: ServerOptions, draftByteCount: Int
  ) {
    var parts = options.parts(sequenceCount: plan.sequenceCount).map { part in
      ("server: " + part.name, part.byteCount)
    }
    parts.append(("server: masks of grammars", options.maskByteCount))
    if draftByteCount > 0 { parts.append(("draft model", draftByteCount)) }
    let rest = plan.processByteCount - parts.reduce(0) { $0 + $1.1 }
    let lines =
      [("budget", plan.budgetByteCount), ("process and margin", rest)] + parts + [
        ("keys and values of \(plan.sequenceCount) sequences", plan.keyValueByteCount),
        ("activations", plan.workspaceByteCount + plan.vectorByteCount),
        ("pinned weights", plan.residency.pinnedByteCount),
        ("staging", plan.residency.stagingByteCount),
        ("streamed per sweep", plan.residency.streamedByteCount),
      ]
    for (name, byteCount) in lines { Terminal.print("\(name): \(ByteCount(byteCount))\n") }
    Terminal.print(
      "context: \(plan.contextLength) tokens, in chunks of \(plan.chunkLength); bodies of up to "
        + "\(ByteCount(options.bodyByteCount))\n")
  }

  /// By default contexts are kept where caches belong.
  private var engineStore: Engine.Store? {
    guard !server.noKvStore else { return nil }
    var store = store
    store.kvStore = store.kvStore ?? CacheFolder.standard("kv")
    if let path = store.kvStore {
      Terminal.remark(
        "keys and values are kept in \(path), \(store.kvStoreLimit) at most; after \(store.writeBudget) in a day no more is "
          + "begun, which is \(ByteCount(365 * min(store.writeBudget.bytes, Int.max / 365))) a year"
      )
    }
    return store.engineStore
  }

  private static var logger: Logger {
    var logger = Logger(label: "flashinfer-serve")
    logger.logLevel = .notice
    return logger
  }

  private func serve(_ server: HTTPServer, _ options: ServerOptions) throws {
    try waiting {
      try await server.run(handlesSignals: true) { port in
        let host = options.host.contains(":") ? "[\(options.host)]" : options.host
        let scheme = options.certificate == nil ? "http" : "https"
        let place = options.unixSocketPath.map { "unix:\($0)" } ?? "\(scheme)://\(host):\(port)"
        Terminal.print("listening on \(place)\n")
      }
    }
  }
}
