import BlockIO
import CommandLineSupport
import Glibc
import KVCache
import ModelFormat
import Runtime
import TensorBasics
import Tokenization
import WeightLoader

/// The messages of a conversation, and the session that answers them.
///
/// The conversation is rendered anew for every answer, as `--messages` would render it; of its tokens the session reads
/// those that its context does not hold yet.
final class Dialogue {
  /// Tokens that messages, answers and the template's own text share.
  let contextLength: Int
  private let run: Run
  private let model: LanguageModel
  /// Frames the conversation in place of the model's own; nil = the model's own.
  private let template: ChatTemplate?
  /// What options add to the conversation, the system message apart.
  private let options: TemplateOptions
  private let seed: UInt64
  /// What its session is planned from.
  private let request: MemoryPlan.Request
  private let draft: DraftChoice
  /// What was said, as it is saved.
  private var conversation: Conversation
  /// Names the answer among those to the same message.
  private var stream: UInt32 = 0
  /// What answers, from the first message on.
  private var engine: (session: Session, persistence: KeyValuePersistence?)?
  private var context = ContextTokens()
  private var lastReport: RunReport?

  /// - Throws: ``CommandError`` where the model has no chat template.
  init(_ run: Run, _ model: LanguageModel) throws {
    self.run = run
    self.model = model
    let given = run.prompt.template
    let own = model.source.description.chatTemplate(hasTools: false)
    do {
      guard let framing = try given.chatTemplate(or: own) else {
        throw CommandError(
          .badData,
          "the model has no chat template, and so no conversations: give --chat-template, or a text to be "
            + "continued after --raw")
      }
      template = given.chatTemplate == nil ? nil : framing
      var options = given
      options.system = nil
      self.options = options
      conversation = Conversation([])
      given.warn(of: try given.completed(conversation, name: "the conversation"), for: framing)
      if let system = given.system {
        conversation.append(
          ChatMessage(
            role: .system, content: try TemplateOptions.text(system, "the system message")))
      }
    } catch let error as TokenizerError { throw RuntimeError(error, in: model.source.path) }
    seed = run.sampling.chosenSeed()
    contextLength = try run.conversationLength(model)
    // What does not fit is said before anything is typed.
    var request = run.conversationRequest(model, contextLength: contextLength)
    draft = try run.drafts.plan(&request, for: model, run.resources)
    try run.drafts.expectRoom(
      in: MemoryPlan.make(
        request, source: model.source, configuration: model.configuration))
    self.request = request
  }

  /// Memory that messages and their rendering take.
  static func byteCount(contextLength: Int) -> Int {
    (2 << 20) + 128 * contextLength
      + RunReport.byteCount(
        tokenCount: contextLength, distributionCount: 0, pairCount: 0, vocabularyCount: 0)
  }

  /// Does what somebody typed; what goes wrong is said, and ends nothing.
  func obey(_ input: ConversationInput) {
    do {
      switch input {
      case .message(let text): try answer(text)
      case .system(let text): beginAnew(system: text)
      case .save(let path): try save(Self.expanded(path))
      case .load(let path): try load(Self.expanded(path))
      case .regenerate: try regenerate()
      case .statistics: printStatistics()
      case .help: for line in ConversationInput.listing { Terminal.note(line) }
      case .mistake(let reason): Terminal.note(reason)
      case .nothing, .quit: break
      }
    } catch { Terminal.note("error: " + "\(error)".escapingControlCharacters) }
  }

  /// Keeps what later runs can use.
  func finish() {
    guard let engine else { return }
    run.hotness.remember(engine.session)
    // Of what failed nothing is kept.
    guard (try? engine.session.truncate(to: context.tokens.count)) != nil else { return }
    engine.persistence?.store(context.tokens, of: engine.session)
    engine.persistence?.learnModel(cancellation: Interruption.flag)
  }

  // MARK: Answers

  private func answer(_ text: String) throws {
    let before = conversation
    conversation.append(ChatMessage(role: .user, text))
    stream = 0
    try answer(orReturnTo: before)
  }

  private func regenerate() throws {
    let before = conversation
    if conversation.lastRole == "assistant" { conversation.removeLast() }
    guard let role = conversation.lastRole, role != "system" else {
      conversation = before
      return Terminal.note("there is no message to answer yet")
    }
    if before.messageCount > conversation.messageCount {
      stream += 1
      if run.sampling.temperature == 0 {
        Terminal.remark("--temperature 0 always gives the same answer")
      }
    }
    try answer(orReturnTo: before)
  }

  /// Answers the last message.
  ///
  /// - Parameter before: the conversation if there is no answer.
  private func answer(orReturnTo before: Conversation) throws {
    var isAnswered = false
    defer { if !isAnswered { conversation = before } }
    let prompt = try tokens(of: conversation)
    guard prompt.count < contextLength else {
      throw CommandError(
        .badData,
        "the conversation would have \(prompt.count) tokens, and its context has room for "
          + "\(contextLength - 1) and an answer: /save it and begin anew with /system, or /quit and give a "
          + "longer --context")
    }
    let session = try session(for: prompt)
    var options = GenerationOptions(
      prompt: prompt, maximumTokenCount: run.sampling.maxTokens,
      sampling: run.sampling.options(seed: seed), ignoresEnd: run.sampling.ignoreEos)
    options.sampling.stream = stream
    options.draft = draft
    let driveBefore = session.stream.source.device.statistics
    let result = try generate(options, session)
    if result.wasInterrupted, result.text.isEmpty {
      return Terminal.note("[interrupted before the answer began; the message is not kept]")
    }
    conversation.append(ChatMessage(role: .assistant, content: result.text))
    isAnswered = true
    Terminal.print("\n")
    let report = RunReport(
      result: result, promptTokens: prompt, session: session, policy: run.keyValues.kvPolicy,
      trainedContextLength: model.configuration.contextLength, loadSeconds: 0,
      processStart: -Double(result.startNanoseconds) / 1e9, since: driveBefore,
      reportsDistributions: false)
    lastReport = report
    if let ending = report.ending(run.sampling.maxTokens) { Terminal.remark("[\(ending)]") }
  }

  private func tokens(of conversation: Conversation) throws -> [Int32] {
    try model.prompt(
      options.completed(conversation, name: "the conversation"), template: template)
  }

  private func generate(
    _ options: GenerationOptions, _ session: Session
  ) throws -> GenerationResult {
    try context.prepare(session, for: options.prompt)
    var generator = TextGenerator(session: session, tokenizer: model.tokenizer)
    generator.onLostDrafts = Run.warnOfLostDrafts
    generator.onLostPrefix = { [engine] in engine?.persistence?.removePrefix(because: $0) }
    do {
      let result = try run.generate(generator, options)
      context.note(session, options.prompt + result.tokens)
      return result
    } catch {
      context.note(session, options.prompt)
      throw error
    }
  }

  /// The session, which is made for the first prompt: only then is it known what a store has of it.
  private func session(for prompt: [Int32]) throws -> Session {
    if let engine { return engine.session }
    if let oddity = model.oddity(of: prompt) { Terminal.warn(oddity) }
    let (session, persistence) = try Progress.showing("planning memory") { _ in
      var request = request
      let persistence = try run.store.open(model, prompt: prompt, for: &request, reuses: true)
      let session = try Session(
        model.source, model.configuration, request, cancellation: Interruption.flag)
      persistence?.resume(session)
      return (session, persistence)
    }
    try run.hotness.recall(session)
    run.reportTroubles(of: session)
    engine = (session, persistence)
    context.note(session, prompt)
    return session
  }

  // MARK: Commands

  private func beginAnew(system: String) {
    conversation = Conversation(
      system.isEmpty ? [] : [ChatMessage(role: .system, system)])
    (stream, lastReport) = (0, nil)
    Terminal.remark(
      system.isEmpty ? "a new conversation" : "a new conversation with this system message")
  }

  private func save(_ path: String) throws {
    guard conversation.messageCount > 0 else {
      return Terminal.note("there are no messages to save yet")
    }
    let bytes = try conversation.json()
    let file = try OutputFile(
      path: path, reserving: bytes.count, inputs: [model.source.path] + run.resources.mirror)
    try file.write(bytes, at: 0)
    try file.commit()
    Terminal.remark("\(path): \(conversation.messageCount) messages")
  }

  private func load(_ path: String) throws {
    let limit = Terminal.textByteLimit(contextLength: contextLength)
    let loaded = try Conversation(
      json: Terminal.readAll(path: path, mostBytes: limit), name: path)
    if loaded.messageCount > 0 {
      let count = try tokens(of: loaded).count
      guard count < contextLength else {
        throw CommandError(
          .badData,
          "\(path): the conversation has \(count) tokens, and the context has room for "
            + "\(contextLength - 1) and an answer: begin with a longer --context")
      }
    }
    conversation = loaded
    (stream, lastReport) = (0, nil)
    Terminal.remark(
      "\(path): \(conversation.messageCount) messages"
        + (conversation.lastRole == "assistant" ? "" : "; /regenerate answers the last"))
  }

  private func printStatistics() {
    let used = "context: \(engine?.session.position ?? 0) of \(contextLength) tokens"
    Terminal.note("\(used), \(conversation.messageCount) messages")
    let lines = lastReport?.summary(
      seed: run.sampling.temperature > 0 ? seed : nil, maximumTokenCount: run.sampling.maxTokens)
    for line in lines ?? [] { Terminal.note(line) }
  }

  /// As a shell would read it.
  private static func expanded(_ path: String) -> String {
    guard path.hasPrefix("~/"), let home = getenv("HOME") else { return path }
    return String(cString: home) + path.dropFirst()
  }
}
