import Glibc
import KVCache
import TensorBasics

/// Proposes the tokens that a smaller model draws, with the noise of the sequence that they are for; and where the context's end
/// has a long match in the context, what follows that.
///
/// With the same noise, two models whose logits are alike draw the same token also at high temperatures
/// (`docs/decisions/0042`). It stops where it is no longer likely enough that what it proposes is reached.
final class ModelDrafter: Drafter {
  private let model: DraftModel
  private let lookup: LookupDrafter
  /// Its keys and values of ``held``; nil before the first proposal.
  private var cache: KeyValueStore?
  /// Tokens that the cache holds.
  private var held: [Int32] = []

  /// Matches from which on what follows them is proposed.
  private static let leastMatch = 6

  init(_ model: DraftModel, contextLength: Int) {
    self.model = model
    lookup = LookupDrafter(contextLength: contextLength, leastMatch: Self.leastMatch)
  }

  deinit { if let cache { model.core.close(cache) } }

  func propose(after context: DraftContext, into draft: inout Draft) throws(RuntimeError) {
    try follow(context.path)
    lookup.propose(after: context, into: &draft)
    guard draft.tokens.isEmpty, let cache else { return }
    var path = context.path
    while draft.wantsMore, held.count < path.count, path.count < cache.limit {
      let unread = path[held.count...]
      // The rest of a long prompt is read before the next sweeps.
      guard
        let (token, probability) = try read(
          unread, in: cache, context, path: path)
      else { return }
      draft.append(token, grade: DraftAcceptance.grade(probability: probability))
      path.append(token)
    }
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
  /// - Returns: what is drawn after the last, and its probability; nil where that was not read.
  private func read(
    _ unread: ArraySlice<Int32>, in cache: KeyValueStore, _ context: DraftContext, path: [Int32]
  ) throws(RuntimeError) -> (token: Int32, probability: Double)? {
    let core = model.core
    let chunk = unread.prefix(core.plan.chunkLength)
    let isWhole = chunk.count == unread.count
    core.batch.removeAll()
    chunk.withUnsafeBufferPointer {
      core.batch.append($0, at: held.count, .read, in: cache, logitCount: isWhole ? 1 : 0)
    }
    var drawn: (Int32, Double)?
    do throws(RuntimeError) {
      try core.step(continues: true) { _, logits in
        let logits = UnsafeBufferPointer(logits)
        let token = model.sampler.draw(
          logits, context.sampling, path: path, answerStart: context.answerStart, mask: nil)
        drawn = (token, Self.probability(of: token, in: logits))
      }
    } catch {
      core.abandon()
      throw error
    }
    held.append(contentsOf: chunk)
    return drawn
  }

  private static func probability(
    of token: Int32, in logits: UnsafeBufferPointer<Float>
  ) -> Double {
    guard let highest = logits.max() else { return 0 }
    var sum = 0.0
    // What is left out adds a thousandth to a vocabulary of 100,000 tokens.
    for logit in logits where logit > highest - 18 { sum += exp(Double(logit - highest)) }
    return exp(Double(logits[Int(token)] - highest)) / sum
  }
}
