import TensorBasics
import WeightLoader

/// The drafts of one sequence: what its drafter proposed for the next sweep, and how often that was right.
///
/// While a sweep waits for the drive, the drafter works ahead.
final class SequenceDrafts: IdleWork {
  /// nil once it failed, where nothing takes its place.
  private var drafter: (any Drafter)?
  private var draft = Draft()
  /// What is verified after the path's last token.
  private(set) var rows = DraftRows()
  private(set) var counts = DraftCounts()
  /// Why there are no drafts any more; taken by whoever tells people.
  private(set) var failure: RuntimeError?
  /// Time that a step of the drafter takes, a moving average.
  private var stepNanoseconds = 0.0
  /// Where what may follow is kept; nil where nobody asks for it.
  private var successorMemory: TokenSuccessors?
  private let memory: DraftMemory?
  /// What may follow the rows of the last sweep.
  private var successors: [TokenSuccessors.Row] = []
  /// Time that the last proposal took.
  private(set) var lastNanoseconds = 0
  /// Whether the drafter has nothing to do until its next proposal.
  private var isIdle = true

  /// nil where there are to be no drafts.
  ///
  /// - Parameter memory: what is known of all answers.
  init?(_ choice: DraftChoice, contextLength: Int, memory: DraftMemory?) {
    guard let makeDrafter = choice.makeDrafter else { return nil }
    let drafter = makeDrafter(contextLength, memory)
    self.drafter = drafter
    self.memory = memory
    successorMemory = drafter.recycles ? memory?.successors : nil
    successors.reserveCapacity(Draft.capacity + 1)
  }

  /// Memory of a sequence's drafts.
  static func byteCount(contextLength: Int) -> Int {
    LookupDrafter.byteCount(contextLength: contextLength)
      + ModelDrafter.byteCount(contextLength: contextLength)
      + 16 * 8 * (Draft.wideCapacity + 1)
      + MemoryLayout<TokenSuccessors.Row>.stride * (Draft.capacity + 1)
  }

  var proposal: DraftProposal {
    DraftProposal(
      likelihoods: draft.orderedLikelihoods, forcedCount: draft.isForced ? draft.tokens.count : 0)
  }

  /// Proposes tokens, as many as there is room for.
  func propose(after context: DraftContext, _ room: DraftRoom, _ gate: DraftGate) {
    rows.removeAll()
    draft.begin(
      room, leastLikelihood: gate.leastLikelihood(stepNanoseconds: stepNanoseconds))
    (lastNanoseconds, isIdle) = (0, true)
    guard room.count > 0, let drafter else { return }
    let start = monotonicNanoseconds()
    do throws(RuntimeError) {
      try timeSteps { () throws(RuntimeError) in
        try drafter.propose(after: context, into: &draft)
      }
      isIdle = false
    } catch {
      replaceDrafter(because: error)
      draft.removeAll()
    }
    lastNanoseconds = monotonicNanoseconds() - start
  }

  /// Whether its drafter is given the model's hidden states.
  var wantsStates: Bool { drafter?.wantsStates == true }

  /// As ``Drafter/take(states:rowCount:at:)``.
  func take(states: UnsafePointer<Float>, rowCount: Int, at position: Int) {
    drafter?.take(states: states, rowCount: rowCount, at: position)
  }

  /// Has the drafter work ahead, as long as that keeps nothing waiting.
  func work(within nanoseconds: Int) -> Bool {
    guard !isIdle, let drafter, Double(nanoseconds) >= stepNanoseconds else { return false }
    do throws(RuntimeError) {
      isIdle = try timeSteps { () throws(RuntimeError) in try !drafter.workAhead(&draft) }
    } catch {
      // What was proposed is verified meanwhile.
      replaceDrafter(because: error)
    }
    return !isIdle
  }

  private func replaceDrafter(because error: RuntimeError) {
    (failure, drafter, isIdle) = (error, drafter?.fallback, true)
    successorMemory = drafter?.recycles == true ? memory?.successors : nil
  }

  private func timeSteps<Result>(
    _ body: () throws(RuntimeError) -> Result
  ) throws(RuntimeError) -> Result {
    let (start, count) = (monotonicNanoseconds(), drafter?.stepCount ?? 0)
    let result = try body()
    if let steps = drafter?.stepCount, steps > count {
      let each = Double(monotonicNanoseconds() - start) / Double(steps - count)
      stepNanoseconds += (stepNanoseconds == 0 ? 1 : 0.125) * (each - stepNanoseconds)
    }
    return result
  }

  /// Takes why there are no drafts any more.
  func takeFailure() -> RuntimeError? {
    defer { failure = nil }
    return failure
  }

  /// Has the likeliest verified.
  ///
  /// - Parameters:
  ///   - count: how many.
  ///   - branchCount: most branches.
  func choose(count: Int, branchCount: Int) {
    draft.layOut(count: count, branchCount: branchCount, into: &rows)
  }

  /// Has as many verified as pay in a sweep of this sequence alone.
  func choose(by gate: inout DraftGate, _ room: DraftRoom) {
    gate.offer(proposal)
    gate.choose(beside: 1, room: room.count)
    choose(count: gate.chosenCounts[0], branchCount: room.branchCount)
  }

  /// Has none verified.
  func drop() {
    rows.removeAll()
    isIdle = true
  }

  /// Looks at what the model takes for likely after the last token of `path` and after each draft; any thread does.
  ///
  /// - Parameter logits: [1 + rows.tokens.count, vocabularyCount]
  func look(
    at logits: UnsafeBufferPointer<Float>, vocabularyCount: Int, after path: [Int32]
  ) {
    guard let last = path.last, successorMemory != nil else { return }
    let before = path.count > 1 ? path[path.count - 2] : -1
    for row in 0...rows.tokens.count {
      let parent = row == 0 ? -1 : rows.parent(ofRow: row)
      successors.append(
        TokenSuccessors.Row(
          UnsafeBufferPointer(
            rebasing: logits[row * vocabularyCount..<(row + 1) * vocabularyCount]),
          after: parent < 0 ? before : parent == 0 ? last : rows.tokens[parent - 1],
          row == 0 ? last : rows.tokens[row - 1]))
    }
  }

  /// Has what was seen remembered.
  func remember() {
    for row in successors { successorMemory?.note(row) }
    successors.removeAll(keepingCapacity: true)
  }

  /// Notes which of the rows that were verified the model drew itself: one, and those that it follows; 0 = none.
  func note(lastRight row: Int) {
    counts.draftedCount += rows.tokens.count
    counts.acceptedCount += rows.depth(ofRow: row)
    draft.note(rows, lastRight: row)
    drop()
  }
}

/// Drafts that were verified.
public struct DraftCounts: Sendable, Equatable {
  public internal(set) var draftedCount = 0
  /// Those that the model drew itself.
  public internal(set) var acceptedCount = 0

  public init() {}

  package static func += (left: inout DraftCounts, right: DraftCounts) {
    left.draftedCount += right.draftedCount
    left.acceptedCount += right.acceptedCount
  }
}
