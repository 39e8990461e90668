/// Proposes tokens that may follow a sequence.
///
/// What it proposes changes no answer: a draft counts only where it is the token that the model draws itself
/// (`docs/decisions/0059`). One thread uses a drafter, for the answer of one turn.
package protocol Drafter: AnyObject {
  /// Appends the tokens that it takes to follow `context`, in their order, as long as they are wanted.
  ///
  /// - Parameter draft: empty.
  /// - Throws: what ends its service.
  func propose(after context: DraftContext, into draft: inout Draft) throws(RuntimeError)
}

/// What a drafter sees of a sequence.
package struct DraftContext {
  /// The whole context, which begins with what the drafter was given before.
  package var path: [Int32]
  /// Where the answer begins in it.
  package var answerStart: Int
  /// How the model draws: with the same noise, a drafter proposes what it would draw itself.
  package var sampling: SamplingOptions

  package init(path: [Int32], answerStart: Int, sampling: SamplingOptions) {
    (self.path, self.answerStart, self.sampling) = (path, answerStart, sampling)
  }
}

/// Tokens proposed one after the other.
package struct Draft {
  /// Most of them.
  package static let capacity = 31

  package private(set) var tokens: [Int32] = []
  /// Of each, how likely it is that it and all before it are right; descending.
  package private(set) var likelihoods: [Double] = []
  /// How sure the drafter was of each, among `DraftAcceptance.gradeCount` grades.
  private(set) var grades: [Int] = []
  /// Whether they are verified whatever that costs, as far as there is room.
  package var isForced = false

  private var acceptance = DraftAcceptance()
  private var most = capacity
  private var leastLikelihood = 0.0

  package init() {
    tokens.reserveCapacity(Self.capacity)
    likelihoods.reserveCapacity(Self.capacity)
    grades.reserveCapacity(Self.capacity)
  }

  /// Whether another token is wanted.
  package var wantsMore: Bool {
    tokens.count < most && likelihoods.last ?? 1 >= leastLikelihood
  }

  /// Proposes another token, unless there are as many as may be.
  ///
  /// - Parameter grade: how sure the drafter is of it.
  package mutating func append(_ token: Int32, grade: Int) {
    guard tokens.count < most else { return }
    let share = acceptance.share(grade: grade, depth: tokens.count)
    likelihoods.append((likelihoods.last ?? 1) * share)
    tokens.append(token)
    grades.append(grade)
  }

  /// Begins anew.
  ///
  /// - Parameters:
  ///   - most: tokens that may be verified.
  ///   - leastLikelihood: how likely a token must be reached that another is worth being made after it.
  mutating func begin(most: Int, leastLikelihood: Double) {
    shorten(to: 0)
    (isForced, self.most, self.leastLikelihood) = (false, min(most, Self.capacity), leastLikelihood)
  }

  /// Forgets all but the first `count`.
  mutating func shorten(to count: Int) {
    tokens.removeSubrange(min(count, tokens.count)...)
    likelihoods.removeSubrange(min(count, likelihoods.count)...)
    grades.removeSubrange(min(count, grades.count)...)
  }

  /// Notes that the first `acceptedCount` were right, and forgets them all.
  mutating func note(acceptedCount: Int) {
    for (depth, grade) in grades.enumerated() where depth <= acceptedCount {
      acceptance.note(grade: grade, depth: depth, isRight: depth < acceptedCount)
    }
    shorten(to: 0)
  }
}

/// Which drafter an answer has.
public struct DraftChoice: Sendable {
  /// Makes the drafter of an answer, in a context of that length; nil = it has none.
  let makeDrafter: (@Sendable (_ contextLength: Int) -> any Drafter)?

  /// A drafter of the caller's own.
  package init(makeDrafter: (@Sendable (_ contextLength: Int) -> any Drafter)?) {
    self.makeDrafter = makeDrafter
  }

  /// None: a token a sweep.
  public static let off = DraftChoice(makeDrafter: nil)
  /// The continuation of what the context's end resembles most, in the context itself.
  public static let lookup = DraftChoice { LookupDrafter(contextLength: $0) }
  /// Long matches of the context's end, and where there are none the tokens that a smaller model draws.
  public static func model(_ model: DraftModel) -> DraftChoice {
    DraftChoice { ModelDrafter(model, contextLength: $0) }
  }

  /// Most drafts of a sweep that are of use: more rows take the processors longer than they save the drive.
  public static let usualRowCount = Draft.capacity
}
