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

  private var frontier = DraftFrontier()
  /// The context, and the tokens up to a node.
  private var path: [Int32] = []
  /// Tokens of the context.
  private var knownCount = 0

  /// Matches from which on what follows them is proposed.
  private static let leastMatch = 6

  init(_ model: DraftModel, contextLength: Int, memory: DraftMemory?) {
    self.model = model
    lookup = LookupDrafter(
      contextLength: contextLength, leastMatch: Self.leastMatch, recycles: false, memory: memory)
    path.reserveCapacity(contextLength + Draft.capacity)
    held.reserveCapacity(contextLength + Draft.capacity)
  }

  /// Memory of a drafter, without its lookup.
  static func byteCount(contextLength: Int) -> Int {
    2 * MemoryLayout<Int32>.stride * (contextLength + Draft.capacity) + DraftFrontier.byteCount
  }

  deinit { if let cache { model.core.close(cache) } }

  func propose(after context: DraftContext, into draft: inout Draft) throws(RuntimeError) {
    path.removeSubrange(min(knownCount, context.path.count)...)
    path.append(contentsOf: context.path[path.count...])
    knownCount = path.count
    try follow()
    lookup.propose(after: context, into: &draft)
    guard draft.tokens.isEmpty, cache != nil else { return }
    frontier.removeAll()
    guard try expand(-1, context, draft) else { return }
    while draft.hasRoom, let next = frontier.takeLikeliest() {
      guard
        let node = draft.append(
          next.token, after: next.parent, grade: next.grade, rank: next.rank),
        draft.wantsMore(after: node)
      else { continue }
      guard try expand(node, context, draft) else { return }
    }
  }

  /// Reads the tokens up to a node, and notes what may follow it.
  ///
  /// - Returns: whether that could be done: the rest of a long prompt is read before the next sweeps.
  private func expand(
    _ node: Int, _ context: DraftContext, _ draft: Draft
  ) throws(RuntimeError) -> Bool {
    path.removeSubrange(knownCount...)
    draft.appendPath(to: node, &path)
    try follow()
    guard let cache, path.count < cache.limit else { return true }
    let tokenCount = draft.takesBranch(at: node) ? 1 + DraftAcceptance.rankCount : 1
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
        frontier.insert(
          DraftFrontier.Candidate(token: token, parent: node, grade: grade, rank: rank), of: draft)
        // Whoever draws next draws another.
        logits[Int(token)] = -.infinity
      }
    }
  }

  /// Makes what the cache holds a beginning of the path.
  private func follow() throws(RuntimeError) {
    if cache == nil {
      guard model.core.freeSequenceCount > 0 else { return }
      cache = try model.core.openSequence()
    }
    guard let cache else { return }
    var common = 0
    while common < min(held.count, path.count - 1), held[common] == path[common] { common += 1 }
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
