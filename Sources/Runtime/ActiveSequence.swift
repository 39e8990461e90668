import Grammar
import KVCache
import TensorBasics

/// A sequence that has a place, as the engine's thread works on it.
final class ActiveSequence {
  let record: SequenceRecord
  private(set) var cache: KeyValueStore
  /// Tokens of the context: what is to be read, and what was drawn.
  private(set) var path: [Int32] = []
  /// Tokens of it that the cache holds.
  var position = 0
  private var ending: AnswerEnding?
  /// What it takes from the engine's store and gives to it; nil = nothing.
  var persistence: KeyValuePersistence?
  /// Whose reading it waits for; nil = it reads by itself.
  var leader: Leader?
  /// Whether there is more in the context than the store was given.
  var isUnkept = false
  /// What its grammar says; nil = it has none.
  private var constraint: GrammarConstraint?
  /// Why the grammar lets it go no further.
  private var constraintError: RuntimeError?
  /// What the turn's hidden states come to; nil = nobody wants to know.
  private var pool: HiddenPool?
  /// Where the answer begins in the context, which a turn without tokens goes on with.
  private(set) var answerStart = 0
  /// Tokens of the context when the turn began, and those that the cache held then.
  private var promptCount = 0
  private var reusedCount = 0
  /// What the sweep that ended last brought.
  private(set) var news = News()
  /// What was drawn in it.
  private var drawn: (token: Int32, probabilities: [TokenProbability]?)?
  /// Text that a stop string was looked for in, which the puller makes again.
  private var text: [UInt8] = []

  /// Another sequence whose context begins alike.
  struct Leader {
    let sequence: ActiveSequence
    /// Tokens that both begin with.
    let tokenCount: Int
  }

  struct News {
    enum End {
      case finished(FinishReason, stop: String?)
      case failed(RuntimeError)
    }
    var reading: (done: Int, of: Int, reused: Int)?
    var token: Int32?
    var probabilities: [TokenProbability]?
    var end: End?
    /// With an end, what the turn's hidden states came to.
    var embedding: [Float]?
    /// Rows computed for it.
    var rowCount = 0
  }

  /// - Parameters:
  ///   - position: tokens of the context that `cache` holds.
  ///   - origin: whose context it begins with; nil = it has none.
  init(
    _ record: SequenceRecord, _ cache: KeyValueStore, position: Int, origin: ActiveSequence? = nil
  ) {
    self.record = record
    self.cache = cache
    self.position = position
    path = origin?.path ?? []
    answerStart = origin?.answerStart ?? 0
  }

  /// Who reads what it waits for; itself where it waits for nobody.
  var reader: ActiveSequence {
    var reader = self
    while let leader = reader.leader { reader = leader.sequence }
    return reader
  }
  /// Tokens that are to be read.
  var unreadCount: Int { path.count - position }
  /// Whether the turn's answer has not begun.
  var isReading: Bool { position < promptCount }
  /// Whether some of the turn's answer is there.
  var hasAnswered: Bool { path.count > promptCount }
  /// Whether reading all tokens gives another one.
  var draws: Bool { ending?.reason == nil }
  /// Whether its last turn came to an error.
  var hasFailed: Bool {
    if case .failed? = news.end { true } else { false }
  }
  /// Whether the hidden states of what it reads next are wanted.
  var isPooled: Bool { pool != nil && isReading }
  var isWanted: Bool { !record.cancellation.isRaised }

  /// Adds the tokens of a turn to the context.
  ///
  /// - Parameter constraint: what its grammar says, from the answer's beginning on.
  func begin(
    _ turn: SequenceRecord.Turn, constraint: GrammarConstraint?, hiddenSize: Int,
    makeEnding: (_ promptCount: Int) -> AnswerEnding
  ) {
    news = News()
    let isFirst = path.isEmpty
    pool = record.request.pooling.map {
      HiddenPool($0, from: path.count, hiddenSize: hiddenSize)
    }
    path += turn.tokens
    promptCount = path.count
    if isFirst {
      answerStart = promptCount - min(max(0, record.request.answeredCount), promptCount)
    } else if !turn.tokens.isEmpty {
      answerStart = promptCount
    }
    ending = makeEnding(promptCount)
    self.constraint = constraint
  }

  /// Finds which tokens its grammar lets it draw.
  func prepareConstraint(_ masks: () -> TokenMasks) {
    guard constraint != nil else { return }
    do throws(RuntimeError) {
      try constraint?.prepare(masks(), after: path[answerStart...])
    } catch { constraintError = error }
  }

  /// The turn's tokens are about to be read, after those in the cache.
  func noteStart() -> TokenSequence.Usage {
    reusedCount = position
    var usage = TokenSequence.Usage()
    (usage.promptTokenCount, usage.reusedTokenCount) = (promptCount, reusedCount)
    return usage
  }

  /// Begins to read the context again: none of it is in the cache any more.
  func restart() {
    news = News()
    position = 0
  }

  /// Goes on with keys and values that are computed already, in place of its own.
  func adopt(_ cache: KeyValueStore, position: Int) {
    self.cache = cache
    self.position = position
  }

  /// Forgets the context after its first `count` tokens.
  func cut(to count: Int) {
    path.removeSubrange(count...)
    answerStart = min(answerStart, count)
  }

  /// Draws the token after the context from `logits` [vocabularyCount]; any thread does, for one sequence at a time.
  func draw(_ logits: UnsafeBufferPointer<Float>, _ sampler: inout Sampler) {
    let request = record.request
    guard constraintError == nil else { return }
    let token =
      if let constraint {
        constraint.withMask {
          sampler.draw(logits, request.sampling, path: path, answerStart: answerStart, mask: $0)
        }
      } else {
        sampler.draw(logits, request.sampling, path: path, answerStart: answerStart, mask: nil)
      }
    drawn = (
      token,
      request.logProbabilityCount > 0
        ? Self.probabilities(logits, request.logProbabilityCount, token) : nil
    )
  }

  /// Takes hidden states of what it reads, of positions from `first` on.
  func pool(_ states: UnsafePointer<Float>, rowCount: Int, at first: Int) {
    pool?.take(states, rowCount: rowCount, at: first)
  }

  private static func probabilities(
    _ logits: UnsafeBufferPointer<Float>, _ count: Int, _ token: Int32
  ) -> [TokenProbability] {
    var list = LogProbabilities.top(count, of: logits).map {
      TokenProbability(token: $0.token, logProbability: $0.logProbability)
    }
    guard !list.contains(where: { $0.token == token }) else { return list }
    list.append(
      TokenProbability(
        token: token,
        logProbability: Double(logits[Int(token)]) - LogProbabilities.logSumExp(logits)))
    return list
  }

  /// Takes in what a sweep did for its rows.
  func advance(_ span: Batch.Span, _ masks: () -> TokenMasks) {
    news = News()
    news.rowCount = span.rows.count
    guard span.isAlive else {
      news.end = span.failure.map { .failed($0) }
      drawn = nil
      return
    }
    let wasReading = isReading
    position += span.rows.count
    if wasReading { news.reading = (min(position, promptCount), promptCount, reusedCount) }
    finish(masks)
  }

  /// Takes in what was drawn without a sweep.
  func takeDrawn(_ masks: () -> TokenMasks) {
    news = News()
    finish(masks)
  }

  private func finish(_ masks: () -> TokenMasks) {
    defer { drawn = nil }
    if let drawn, ending?.take(drawn.token, text: &text) == true {
      (news.token, news.probabilities) = (drawn.token, drawn.probabilities)
      path.append(drawn.token)
      if constraint?.isComplete(masks(), after: path[answerStart...]) == true {
        ending?.complete(text: &text)
      }
    }
    text.removeAll(keepingCapacity: true)
    if let reason = ending?.reason, position >= promptCount {
      news.end = .finished(reason, stop: ending?.stop)
      news.embedding = pool?.vector
    } else if let constraintError {
      news.end = .failed(constraintError)
    }
  }
}
