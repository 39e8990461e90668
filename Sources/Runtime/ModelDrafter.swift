import Glibc
import KVCache
import TensorBasics

/// Proposes the tokens that a smaller model draws, with the noise of the sequence that they are for; and where the context's end
/// has a long match in the context, what follows that.
///
/// With the same noise, two models whose logits are alike draw the same token also at high temperatures
/// (`docs/decisions/0042`). It proposes a tree, and reads on after a token where that is likely enough to be reached. While the
/// tree is verified, it grows on, so that what follows the part that turns out right may be known already.
package final class ModelDrafter: Drafter {
  private let model: DraftModel
  private let lookup: LookupDrafter
  private let contextLength: Int
  private let memory: DraftMemory?
  /// Its keys and values of ``held``; nil before the first proposal.
  private var cache: KeyValueStore?
  /// Tokens that the cache holds.
  private var held: [Int32] = []

  private var frontier = DraftFrontier()
  private var known = KnownContinuations()
  /// Nodes of the draft that were not gone on with.
  private var leaves: [Int] = []
  /// What found no room in the draft.
  private var refused: [DraftFrontier.Candidate] = []
  /// The context, and the tokens up to a node.
  private var path: [Int32] = []
  /// Tokens of the context, and its hash.
  private var knownCount = 0
  private var contextHash: UInt64 = 0
  private var answerStart = 0
  private var sampling = SamplingOptions()
  package private(set) var stepCount = 0

  /// Matches from which on what follows them is proposed.
  private static let leastMatch = 6
  /// What is less likely to be reached is not worth working ahead for.
  private static let leastLikelihood = 0.02

  package init(_ model: DraftModel, contextLength: Int, memory: DraftMemory?) {
    self.model = model
    (self.contextLength, self.memory) = (contextLength, memory)
    lookup = LookupDrafter(
      contextLength: contextLength, leastMatch: Self.leastMatch, recycles: false, memory: memory)
    path.reserveCapacity(contextLength + Draft.wideCapacity)
    held.reserveCapacity(contextLength + Draft.wideCapacity)
    leaves.reserveCapacity(Draft.wideCapacity + 1)
    refused.reserveCapacity(Self.mostRefused)
  }

  package var fallback: (any Drafter)? {
    LookupDrafter(contextLength: contextLength, memory: memory)
  }

  /// Memory of a drafter, without its lookup.
  static func byteCount(contextLength: Int) -> Int {
    2 * MemoryLayout<Int32>.stride * (contextLength + Draft.wideCapacity)
      + MemoryLayout<Int>.stride * (Draft.wideCapacity + 1)
      + MemoryLayout<DraftFrontier.Candidate>.stride * mostRefused
      + DraftFrontier.byteCount + KnownContinuations.byteCount
  }
  private static let mostRefused = KnownContinuations.Continuation.mostTokens * (Draft.capacity + 1)

  deinit { cache?.close() }

  package func propose(after context: DraftContext, into draft: inout Draft) throws(RuntimeError) {
    take(context)
    frontier.removeAll()
    leaves.removeAll(keepingCapacity: true)
    refused.removeAll(keepingCapacity: true)
    lookup.propose(after: context, into: &draft)
    guard draft.tokens.isEmpty, try openCache(), try expand(-1, draft) else { return }
    while draft.hasRoom, let next = frontier.takeLikeliest() {
      guard
        let node = draft.append(
          next.token, after: next.parent, grade: next.grade, rank: next.rank)
      else {
        refused.append(next)
        continue
      }
      if draft.wantsMore(after: node) || isKnown(node, of: draft) {
        guard try expand(node, draft) else { return }
      } else {
        leaves.append(node)
      }
    }
  }

  /// Goes on with the tree beyond what is verified: where that is right, the next proposal finds there what follows.
  package func workAhead(_ draft: inout Draft) throws(RuntimeError) -> Bool {
    draft.widen()
    for candidate in refused { frontier.insert(candidate, of: draft) }
    refused.removeAll(keepingCapacity: true)
    while true {
      let likeliest = leaves.indices.max {
        draft.likelihood(of: leaves[$0]) < draft.likelihood(of: leaves[$1])
      }
      let likelihood = likeliest.map { draft.likelihood(of: leaves[$0]) } ?? 0
      guard max(likelihood, frontier.highestLikelihood) >= Self.leastLikelihood else {
        return false
      }
      if frontier.highestLikelihood > likelihood, let next = frontier.takeLikeliest() {
        guard
          let node = draft.append(
            next.token, after: next.parent, grade: next.grade, rank: next.rank)
        else { return false }
        leaves.append(node)
      } else if let likeliest {
        let node = leaves.remove(at: likeliest)
        let count = stepCount
        guard try expand(node, draft) else { return false }
        if stepCount > count { return true }
      }
    }
  }

  /// Takes in what is new of the context.
  private func take(_ context: DraftContext) {
    (answerStart, sampling) = (context.answerStart, context.sampling)
    if context.path.count < knownCount { (knownCount, contextHash) = (0, 0) }
    path.removeSubrange(knownCount...)
    for token in context.path[knownCount...] {
      contextHash = KnownContinuations.hash(contextHash, token)
    }
    path.append(contentsOf: context.path[knownCount...])
    knownCount = path.count
  }

  /// Makes the path end with the tokens up to a node.
  ///
  /// - Returns: its hash.
  private func extendPath(to node: Int, of draft: Draft) -> UInt64 {
    path.removeSubrange(knownCount...)
    draft.appendPath(to: node, &path)
    return path[knownCount...].reduce(contextHash, KnownContinuations.hash)
  }

  private func isKnown(_ node: Int, of draft: Draft) -> Bool {
    known[extendPath(to: node, of: draft)] != nil
  }

  /// Notes what may follow a node, for which the tokens up to there are read unless that is known.
  ///
  /// - Returns: whether that could be done: the rest of a long prompt is read before the next sweeps.
  private func expand(_ node: Int, _ draft: Draft) throws(RuntimeError) -> Bool {
    let hash = extendPath(to: node, of: draft)
    let tokenCount =
      draft.takesBranch(at: node) ? KnownContinuations.Continuation.mostTokens : 1
    var continuation = known[hash]
    if continuation == nil {
      try follow()
      guard let cache, path.count < cache.limit else { return true }
      guard
        try read(
          path[held.count...], in: cache,
          { logits in continuation = draw(tokenCount, logits) })
      else { return false }
      if let continuation { known.insert(continuation, after: hash) }
    }
    guard let continuation else { return true }
    for rank in 0..<min(tokenCount, Int(continuation.count)) {
      frontier.insert(
        DraftFrontier.Candidate(
          token: continuation.tokens[rank], parent: node, grade: Int(continuation.grade),
          rank: rank), of: draft)
    }
    return true
  }

  /// Draws the token that follows the path, and those that would follow if that were not to be drawn.
  private func draw(
    _ count: Int, _ logits: UnsafeMutableBufferPointer<Float>
  ) -> KnownContinuations.Continuation {
    let total = DraftModel.sum(UnsafeBufferPointer(logits))
    var continuation = KnownContinuations.Continuation()
    for rank in 0..<count {
      let token = model.sampler.draw(
        UnsafeBufferPointer(logits), sampling, path: path, answerStart: answerStart, mask: nil)
      guard logits.indices.contains(Int(token)), logits[Int(token)] > -.infinity else { break }
      let probability = exp(Double(logits[Int(token)] - total.highest)) / total.sum
      if rank == 0 {
        continuation.grade = Int32(DraftAcceptance.grade(probability: probability))
      }
      continuation.tokens[rank] = token
      continuation.count += 1
      // Whoever draws next draws another.
      logits[Int(token)] = -.infinity
    }
    return continuation
  }

  /// - Returns: whether there are keys and values for it.
  private func openCache() throws(RuntimeError) -> Bool {
    guard cache == nil else { return true }
    let core = try model.core()
    if core.freeSequenceCount > 0 { cache = try core.openSequence() }
    return cache != nil
  }

  /// Makes what the cache holds a beginning of the path.
  private func follow() throws(RuntimeError) {
    guard let cache else { return }
    var common = 0
    while common < min(held.count, path.count - 1), held[common] == path[common] { common += 1 }
    if common < held.count {
      let point = try model.core().truncate(cache, to: common)
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
    stepCount += 1
    let core = try model.core()
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
}
