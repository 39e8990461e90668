import Glibc
import KVCache
import TensorBasics

/// Proposes the tokens that a smaller model draws, with the noise of the sequence that they are for; and where the context's end
/// has a long match in the context, what follows that.
///
/// With the same noise, two models whose logits are alike draw the same token also at high temperatures
/// (`docs/decisions/0042`). It proposes a tree, and reads on after a token where that is likely enough to be reached.
final class ModelDrafter: Drafter {
  private let model: DraftModel
  private let lookup: LookupDrafter
  /// Its keys and values of ``held``; nil before the first proposal.
  private var cache: KeyValueStore?
  /// Tokens that the cache holds.
  private var held: [Int32] = []

  /// Tokens that may follow a node.
  private struct Candidate {
    var token: Int32
    var parent: Int
    var grade: Int
    var rank: Int
    /// How likely it is reached and right.
    var likelihood: Double
  }
  private var candidates: [Candidate] = []

  /// What is less likely is no draft.
  private static let leastLikelihood = 0.01

  /// Matches from which on what follows them is proposed.
  private static let leastMatch = 6

  init(_ model: DraftModel, contextLength: Int, history: OutputHistory?) {
    self.model = model
    lookup = LookupDrafter(
      contextLength: contextLength, leastMatch: Self.leastMatch, history: history)
  }

  deinit { if let cache { model.core.close(cache) } }

  func propose(after context: DraftContext, into draft: inout Draft) throws(RuntimeError) {
    try follow(context.path)
    lookup.propose(after: context, into: &draft)
    guard draft.tokens.isEmpty, cache != nil else { return }
    candidates.removeAll(keepingCapacity: true)
    // The likeliest first, as in SpecExec (arXiv:2406.02532 §4.1): what a token is worth falls with those before it.
    guard try expand(-1, context, &draft) else { return }
    while let next = takeLikeliest(), next.likelihood >= Self.leastLikelihood {
      guard
        let node = draft.append(
          next.token, after: next.parent, grade: next.grade, rank: next.rank),
        draft.wantsMore(after: node)
      else { continue }
      guard try expand(node, context, &draft) else { return }
    }
  }

  /// Reads the tokens up to a node, and notes what may follow it.
  ///
  /// - Returns: whether that could be done: the rest of a long prompt is read before the next sweeps.
  private func expand(
    _ node: Int, _ context: DraftContext, _ draft: inout Draft
  ) throws(RuntimeError) -> Bool {
    let path = context.path + draft.path(to: node)
    try follow(path)
    guard let cache, path.count < cache.limit else { return true }
    let (tokenCount, likelihood) = (
      draft.takesBranch(at: node) ? 1 + DraftAcceptance.rankCount : 1, draft.likelihood(of: node)
    )
    return try read(path[held.count...], in: cache) { logits in
      let total = Self.sum(UnsafeBufferPointer(logits))
      var grade = 0
      for rank in 0..<tokenCount {
        let token = model.sampler.draw(
          UnsafeBufferPointer(logits), context.sampling, path: path,
          answerStart: context.answerStart, mask: nil)
        guard logits.indices.contains(Int(token)), logits[Int(token)] > -.infinity else { return }
        let probability = exp(Double(logits[Int(token)] - total.highest)) / total.sum
        if rank == 0 { grade = DraftAcceptance.grade(probability: probability) }
        let share = draft.share(after: node, grade: grade, rank: rank)
        candidates.append(
          Candidate(
            token: token, parent: node, grade: grade, rank: rank, likelihood: likelihood * share))
        // Whoever draws next draws another.
        logits[Int(token)] = -.infinity
      }
    }
  }

  private func takeLikeliest() -> Candidate? {
    guard
      let best = candidates.indices.max(by: {
        candidates[$0].likelihood < candidates[$1].likelihood
      })
    else { return nil }
    return candidates.remove(at: best)
  }

  /// Makes what the cache holds a beginning of `path`.
  private func follow(_ path: [Int32]) throws(RuntimeError) {
    if cache == nil {
      guard model.core.freeSequenceCount > 0 else { return }
      cache = try model.core.openSequence()
    }
    guard let cache else { return }
    let common = zip(held, path.dropLast()).prefix { $0 == $1 }.count
    if common < held.count {
      let point = try model.core.truncate(cache, to: common)
      held.removeSubrange(point...)
    }
  }

  /// Reads tokens, at most a chunk of them.
  ///
  /// - Parameter sink: given the logits after the last.
  /// - Returns: whether all were read.
  private func read(
    _ unread: ArraySlice<Int32>, in cache: KeyValueStore,
    _ sink: (UnsafeMutableBufferPointer<Float>) -> Void
  ) throws(RuntimeError) -> Bool {
    let core = model.core
    let chunk = unread.prefix(core.plan.chunkLength)
    let isWhole = chunk.count == unread.count
    core.batch.removeAll()
    chunk.withUnsafeBufferPointer {
      core.batch.append($0, at: held.count, .read, in: cache, logitCount: isWhole ? 1 : 0)
    }
    do throws(RuntimeError) {
      try core.step(continues: true) { _, logits in sink(logits) }
    } catch {
      core.abandon()
      throw error
    }
    held.append(contentsOf: chunk)
    return isWhole
  }

  /// The highest logit, and the sum of the others' exponentials in its proportion.
  private static func sum(
    _ logits: UnsafeBufferPointer<Float>
  ) -> (highest: Float, sum: Double) {
    guard let highest = logits.max() else { return (0, 1) }
    var sum = 0.0
    // What is left out adds a thousandth to a vocabulary of 100,000 tokens.
    for logit in logits where logit > highest - 18 { sum += exp(Double(logit - highest)) }
    return (highest, sum)
  }
}
