import Grammar
import Runtime

/// The answers to one request that are under way: a sequence for each choice.
///
/// Dropping it cancels them and gives up their places.
struct Answers: Sendable {
  /// What to answer, and how.
  struct Job: Sendable {
    /// Tokens of each prompt.
    var prompts: [[Int32]]
    var options: AnswerOptions
    /// How the answers are written.
    var syntax = AnswerSyntax()
    /// Who asks.
    var client = RequestClient()

    /// Choice `i` answers prompt `i / n` and draws from stream `i % n`.
    var choiceCount: Int { prompts.count * options.choiceCount }
  }

  let job: Job
  private let sequences: [TokenSequence]
  private let share: Admission.Share
  private let earlyEnd = EarlyEnd()
  private let desk: AnswerDesk
  /// Of the request, that has the prompts.
  private let field: String
  /// When their time is over; nil = never.
  private let deadline: ContinuousClock.Instant?
  /// How often a client that waits hears that it does.
  private static let pingInterval = Duration.seconds(5)

  /// Opens a sequence for each choice; those without a place wait for one.
  ///
  /// - Parameter field: of the request, that has the prompts.
  /// - Throws: ``APIError``; nothing is open then.
  init(_ job: Job, at desk: AnswerDesk, field: String) throws {
    self.job = job
    self.desk = desk
    self.field = field
    deadline = try desk.timeLimit(job.options.timeLimit).map { .now + $0 }
    let priority = try job.priority
    share = try desk.admission.enter(
      job.choiceCount, for: job.client.name,
      grammarByteCount: job.options.grammar?.byteCount ?? 0, earlyEnd)
    do throws(RuntimeError) {
      var sequences: [TokenSequence] = []
      for choice in 0..<job.choiceCount {
        let request = job.request(choice, priority: priority)
        sequences.append(try desk.engine.open(request, whenFull: .queue))
      }
      self.sequences = sequences
    } catch { throw desk.refusal(error, field: field) }
    earlyEnd.watch(sequences)
  }

  /// Ends all of them; whoever takes their parts is told.
  func cancel() { earlyEnd.end(.left) }

  /// Hands over what comes until all answers are there; where this ends early, they are cancelled.
  ///
  /// - Throws: `CancellationError` where they were cancelled, ``APIError`` where they gave way to others; what `body` throws.
  func forEachPart(_ body: (AnswerPart) async throws -> Void) async throws {
    defer { cancel() }
    // A client that reads slowly holds no place, but memory, which is bounded.
    let mailbox = AnswerMailbox(desk.memory, earlyEnd, collects: !job.options.streams)
    try await withThrowingTaskGroup(of: Void.self) { group in
      for choice in sequences.indices {
        group.addTask { await follow(choice, mailbox) }
      }
      group.addTask {
        while true {
          try await Task.sleep(for: Self.pingInterval)
          mailbox.put(.waiting)
        }
      }
      if let deadline {
        group.addTask {
          try await Task.sleep(until: deadline, clock: .continuous)
          earlyEnd.end(.timeLimit)
        }
      }
      var openCount = sequences.count
      signals: for await _ in mailbox.signals {
        while let part = try mailbox.take() {
          if case .finished(_, let end) = part, end.finish.reason == .cancelled {
            try earlyEnd.check()
          }
          try await body(part)
          mailbox.note(part)
          switch part {
          case .finished, .failed: openCount -= 1
          default: break
          }
          if openCount == 0 { break signals }
        }
      }
      group.cancelAll()
    }
    try Task.checkCancellation()
  }

  private func follow(_ choice: Int, _ mailbox: AnswerMailbox) async {
    let sequence = sequences[choice]
    var reader = AnswerReader(
      sequence.engine.tokenizer, stops: StopStrings(job.options.stops), job.syntax,
      alternativeCount: job.options.alternativeCount)
    desk.board.begin(
      sequence.id, promptCount: job.tokens(choice).count, for: job.client,
      priority: job.options.priority)
    defer { desk.board.end(sequence.id) }
    for await event in sequence.events {
      let (pieces, reports) = reader.take(event)
      if !pieces.isEmpty || !reports.isEmpty {
        mailbox.put(.pieces(choice: choice, pieces, reports))
      }
      desk.board.note(event, of: sequence.id)
      switch event {
      case .queued(let ahead): mailbox.put(.queued(ahead: ahead))
      case .reading(let done, let count, let reused):
        mailbox.put(.reading(done: done, of: count, reused: reused))
      case .token: break
      case .finished(let finish):
        if finish.reason != .cancelled || earlyEnd.isTimeLimit { desk.note(finish.usage) }
        // Its place is free before the client has read it all.
        sequence.cancel()
        mailbox.put(.finished(choice: choice, reader.end(finish)))
      case .failed(let error):
        mailbox.put(.failed(choice: choice, desk.refusal(error, field: field)))
      }
    }
  }
}

extension Answers.Job {
  /// Those of the prompt that a choice answers.
  fileprivate func tokens(_ choice: Int) -> [Int32] { prompts[choice / options.choiceCount] }

  /// How far the answers stand back.
  ///
  /// - Throws: ``APIError`` where the client may not ask for that.
  fileprivate var priority: Int {
    get throws {
      let least = client.leastPriority
      guard let asked = options.priority else { return least }
      guard asked >= least else {
        throw APIError.bad(
          "priority", "'priority' must be \(least) or more with this key, not \(asked)")
      }
      return asked
    }
  }

  fileprivate func request(_ choice: Int, priority: Int) -> SequenceRequest {
    let tokens = tokens(choice)
    var sampling = options.sampling
    sampling.stream = UInt32(choice % options.choiceCount)
    var request = SequenceRequest(
      tokens: tokens, limit: options.limit ?? .max, sampling: sampling,
      stops: StopStrings(options.stops), ignoresEnd: options.ignoresEnd,
      // The drawn token's own comes with the most probable one.
      logProbabilityCount: options.alternativeCount.map { max(1, $0) } ?? 0)
    request.grammar = options.grammar
    (request.client, request.priority) = (client.name, priority)
    request.contextLimit = options.limit.map {
      let (sum, overflows) = tokens.count.addingReportingOverflow($0)
      return overflows ? .max : sum
    }
    return request
  }
}
