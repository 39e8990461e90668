/// Proposes tokens that may follow a sequence.
///
/// What it proposes changes no answer: a draft counts only where it is the token that the model draws itself
/// (`docs/decisions/0059`). One thread uses a drafter, for the answer of one turn.
package protocol Drafter: AnyObject {
  /// Writes the tokens that it takes to follow `path`, in their order, at most ``Draft/capacity``; none where it knows nothing.
  ///
  /// - Parameters:
  ///   - path: the whole context, which begins with what it was given before.
  ///   - draft: empty.
  func propose(after path: UnsafeBufferPointer<Int32>, into draft: inout Draft)
}

/// Tokens proposed one after the other.
package struct Draft {
  /// Most of them.
  package static let capacity = 31

  package private(set) var tokens: [Int32] = []
  /// How sure the drafter is of them, among ``DraftAcceptance/gradeCount`` grades.
  package var grade = 0
  /// Whether they are verified whatever that costs, as far as there is room.
  package var isForced = false

  package init() { tokens.reserveCapacity(Self.capacity) }

  package mutating func append(_ token: Int32) {
    if tokens.count < Self.capacity { tokens.append(token) }
  }

  mutating func removeAll() {
    tokens.removeAll(keepingCapacity: true)
    (grade, isForced) = (0, false)
  }

  /// Forgets all but the first `count`.
  mutating func shorten(to count: Int) { tokens.removeSubrange(min(count, tokens.count)...) }
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

  /// Most drafts of a sweep that are of use: more rows take the processors longer than they save the drive.
  public static let usualRowCount = Draft.capacity
}
