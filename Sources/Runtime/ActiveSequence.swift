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
  /// Whether the next sweep verifies no drafts.
  private var skipsDrafts = false
  /// What the turn's hidden states come to; nil = nobody wants to know.
  private var pool: HiddenPool?
  /// Where the answer begins in the context, which a turn without tokens goes on with.
  private(set) var answerStart = 0
  /// Tokens of the context when the turn began, and those that the cache held then.
  private(set) var promptCount = 0
  private var reusedCount = 0
  /// What the sweep that ended last brought.
  private(set) var news = News()
  /// What was drawn in it, which ends the path by then, and the row that the last was drawn from.
  private var drawn: [Drawn] = []
  private var drawnRow = 0
  /// What is proposed to follow the path; nil = nothing ever is.
  private(set) var drafts: SequenceDrafts?
  /// Text that a stop string was looked for in, which the puller makes again.
  private var text: [UInt8] = []

  /// Another sequence whose context begins alike.
  struct Leader {
    let sequence: ActiveSequence
    /// Tokens that both begin with.
    let tokenCount: Int
  }

  /// A token, and where they are wanted the most probable ones in its place.
  struct Drawn {
    var token: Int32
    var probabilities: [TokenProbability]?
  }

  struct News {
    enum End {
      case finished(FinishReason, stop: String?)
      case failed(RuntimeError)
    }
    var reading: (done: Int, of: Int, reused: Int)?
    /// What was drawn, in its order.
    var tokens: [Drawn] = []
    /// How much was drawn, a token that ended the answer included.
    var drawnCount = 0
    var drafts = DraftCounts()
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
  /// What the hidden states of what it reads next are wanted for.
  var stateUse: Batch.StateUse {
    pool != nil && isReading ? .pooling : drafts?.wantsStates == true ? .drafting : .nothing
  }
  var isWanted: Bool { !record.cancellation.isRaised }

  /// Adds the tokens of a turn to the context.
  ///
  /// - Parameter constraint: what its grammar says, from the answer's beginning on.
  func begin(
    _ turn: SequenceRecord.Turn, constraint: GrammarConstraint?, drafts: SequenceDrafts?,
    hiddenSize: Int,
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
    constraintError = nil
    self.drafts = drafts
  }

  /// Finds which tokens its grammar lets it draw, also after its drafts.
  func prepareConstraint(_ masks: () -> TokenMasks) {
    guard constraint != nil else { return }
    do throws(RuntimeError) {
      try constraint?.prepare(masks(), after: path[answerStart...])
      guard let constraint, let drafts else { return }
      // Masks are kept by the grammar's states: they are there when they are needed.
      for chain in drafts.rows.chains {
        var ahead = constraint
        for row in chain.drafts.lowerBound + 1..<chain.drafts.upperBound + 1 {
          let answer = path[answerStart...] + drafts.rows.path(toRow: row)
          do throws(RuntimeError) { try ahead.prepare(masks(), after: answer) } catch { break }
        }
      }
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
    drafts?.drop()
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

  /// Whether a grammar says what it may draw.
  var isConstrained: Bool { constraint != nil }

  /// Proposes drafts to follow what it reads next, as far as there is room; none where a sweep brings no token.
  func propose(_ room: DraftRoom, _ gate: DraftGate) -> DraftProposal {
    let canDraft = unreadCount == 1 && draws && !skipsDrafts
    skipsDrafts = false
    drafts?.propose(
      after: DraftContext(
        path: path, answerStart: answerStart, sampling: record.request.sampling),
      room.limited(to: canDraft ? (ending?.leftCount ?? 0) - 1 : 0), gate)
    return drafts?.proposal ?? DraftProposal()
  }

  /// Has its drafter work ahead, while the sweep of its drafts waits for the drive.
  func work(within nanoseconds: Int) -> Bool { drafts?.work(within: nanoseconds) ?? false }

  /// Why it has no drafts any more, told once.
  func takeDraftFailure() -> RuntimeError? { drafts?.takeFailure() }

  /// Has the likeliest drafts verified, which may have so many branches.
  func chooseDrafts(count: Int, branchCount: Int) {
    drafts?.choose(count: count, branchCount: branchCount)
  }

  /// Draws the token after the context from the first of `logits` [1 + drafts, vocabularyCount], and one from each row
  /// after a draft that was right, as far as a grammar's masks are there; any thread does, for one sequence at a time.
  func draw(
    _ logits: UnsafeBufferPointer<Float>, vocabularyCount: Int, _ sampler: inout Sampler
  ) {
    drawnRow = 0
    drafts?.look(at: logits, vocabularyCount: vocabularyCount, after: path)
    guard constraintError == nil else { return }
    repeat {
      drawNext(logits, vocabularyCount: vocabularyCount, &sampler, constraint)
    } while constraint == nil && moveToDrawn()
  }

  private func drawNext(
    _ logits: UnsafeBufferPointer<Float>, vocabularyCount: Int, _ sampler: inout Sampler,
    _ constraint: GrammarConstraint?
  ) {
    let first = drawnRow * vocabularyCount
    let row = UnsafeBufferPointer(rebasing: logits[first..<first + vocabularyCount])
    let options = record.request.sampling
    let token =
      if let constraint {
        constraint.withMask {
          sampler.draw(row, options, path: path, answerStart: answerStart, mask: $0)
        }
      } else {
        sampler.draw(row, options, path: path, answerStart: answerStart, mask: nil)
      }
    let count = record.request.logProbabilityCount
    drawn.append(
      Drawn(token: token, probabilities: count > 0 ? Self.probabilities(row, count, token) : nil))
    path.append(token)
  }

  /// Goes on to the row of what was drawn last, where it is a draft.
  ///
  /// - Returns: whether it is.
  private func moveToDrawn() -> Bool {
    guard let token = drawn.last?.token, let row = drafts?.rows.child(ofRow: drawnRow, token)
    else { return false }
    drawnRow = row
    return true
  }

  /// As ``draw(_:vocabularyCount:_:)`` for what follows the first token under a grammar, whose masks one thread finds.
  func drawOn(
    _ logits: UnsafeBufferPointer<Float>, vocabularyCount: Int, _ sampler: inout Sampler,
    _ masks: () -> TokenMasks
  ) {
    // Its own place in the grammar follows what is taken into the answer.
    guard var ahead = constraint, !drawn.isEmpty else { return }
    while moveToDrawn() {
      do throws(RuntimeError) {
        try ahead.prepare(masks(), after: path[answerStart...])
      } catch {
        constraintError = error
        return
      }
      drawNext(logits, vocabularyCount: vocabularyCount, &sampler, ahead)
    }
  }

  /// Takes hidden states of what it reads, of positions from `first` on.
  func pool(_ states: UnsafePointer<Float>, rowCount: Int, at first: Int) {
    if isReading { pool?.take(states, rowCount: rowCount, at: first) }
    drafts?.take(states: states, rowCount: rowCount, at: first)
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
  ///
  /// - Parameter number: that of its span.
  func advance(_ number: Int, in batch: Batch, _ masks: () -> TokenMasks) {
    let span = batch.spans[number]
    let draftedCount = span.draftCount > 0 ? drafts?.rows.tokens.count ?? 0 : 0
    news = News()
    news.rowCount = span.rows.count - span.draftCount + draftedCount
    guard span.isAlive else {
      breakOff()
      news.end = span.failure.map { .failed($0) }
      return
    }
    drafts?.remember()
    let wasReading = isReading
    position += span.rows.count - span.draftCount
    // What was drawn last is not read yet; what was drawn before that is a draft.
    let acceptedCount = takeDrawn(masks)
    if draftedCount > 0, let row = drafts?.rows.ancestor(ofRow: drawnRow, depth: acceptedCount) {
      position += acceptedCount
      batch.keepDrafts(ofSpan: number, branch: drafts?.rows.branch(ofRow: row), to: position)
      drafts?.note(lastRight: row)
      (news.drafts.draftedCount, news.drafts.acceptedCount) = (draftedCount, acceptedCount)
    }
    if wasReading { news.reading = (min(position, promptCount), promptCount, reusedCount) }
    noteEnd()
  }

  /// Has of a sweep that was broken off what passed all layers, and nothing that was drawn or drafted.
  func breakOff() {
    path.removeLast(drawn.count)
    drawn.removeAll(keepingCapacity: true)
    drafts?.drop()
    cache.rejectUndecided()
    position = cache.positionCount
  }

  /// Takes in what was drawn without a sweep.
  func advanceWithoutSweep(_ masks: () -> TokenMasks) {
    news = News()
    _ = takeDrawn(masks)
    noteEnd()
  }

  /// Has nothing of a sweep that failed, which it repeats without drafts.
  func repeatWithoutDrafts(from position: Int) {
    news = News()
    self.position = position
    drafts?.drop()
    skipsDrafts = true
  }

  /// Takes what was drawn into the answer, up to its end.
  ///
  /// - Returns: how many drafts of it are read, and part of the answer or its end.
  private func takeDrawn(_ masks: () -> TokenMasks) -> Int {
    defer {
      text.removeAll(keepingCapacity: true)
      drawn.removeAll(keepingCapacity: true)
    }
    var count = path.count - drawn.count
    var takenCount = 0
    for next in drawn where ending?.reason == nil {
      takenCount += 1
      guard ending?.take(next.token, text: &text) == true else { continue }
      news.tokens.append(next)
      count += 1
      if constraint?.isComplete(masks(), after: path[answerStart..<count]) == true {
        ending?.complete(text: &text)
      }
    }
    path.removeSubrange(count...)
    news.drawnCount = takenCount
    return max(0, takenCount - 1)
  }

  private func noteEnd() {
    if let reason = ending?.reason, position >= promptCount {
      news.end = .finished(reason, stop: ending?.stop)
      news.embedding = pool?.vector
    } else if let constraintError {
      news.end = .failed(constraintError)
    }
  }
}
