import TensorBasics

/// Decides which blocks the tokens after a prompt attend over.
///
/// A policy sees summaries and queries and plans blocks for each (layer, KV head); it moves no data.
/// What it leaves out stays where it is, in memory or on the drive, and may be planned by the next token.
/// Prompts are read with full attention. The page group that is being filled is always attended over.
///
/// A policy whose bounds exceed the context plans everything, and then gives the bits of full attention.
package protocol KeyValuePolicy: AnyObject {
  /// Whether a plan depends on the token's queries; where it does not, pages are read ahead.
  var usesQueries: Bool { get }
  /// Tokens at the end of a prompt whose attention it wants to see; 0 = none.
  var observedTokenCount: Int { get }

  /// Called with each complete block while it lies in memory as f16.
  func complete(layer: Int, head: Int, pageGroup: Int, block: UnsafeRawPointer)

  /// Called with each block's weight in the attention of the tokens at a prompt's end, which may be in several
  /// chunks.
  func observe(_ weights: BlockWeights, layer: Int)

  /// Plans the blocks of one layer.
  ///
  /// - Parameters:
  ///   - queries: [queryHeadCount, headDim], scaled and rotated; nil unless ``usesQueries``.
  ///   - plan: to be filled; empty at first.
  func plan(layer: Int, queries: UnsafePointer<Float>?, into plan: BlockPlan)

  /// Forgets the blocks from a page group on, which may come to be others.
  func forget(fromPageGroup pageGroup: Int)

  /// Takes over what `other`, a policy of the same kind for another sequence, knows.
  func adopt(_ other: any KeyValuePolicy)

  /// Forgets all blocks and observations.
  func reset()
}

extension KeyValuePolicy {
  package var usesQueries: Bool { false }
  package var observedTokenCount: Int { 0 }
  package func complete(layer: Int, head: Int, pageGroup: Int, block: UnsafeRawPointer) {}
  package func observe(_ weights: BlockWeights, layer: Int) {}
  package func forget(fromPageGroup pageGroup: Int) {}
  package func adopt(_ other: any KeyValuePolicy) {}
  package func reset() {}
}

/// The blocks of one layer that a token attends over, as a policy plans them.
public struct BlockPlan {
  /// Complete page groups that the token sees; only these can be planned.
  public let pageGroups: Range<Int>
  public let keyValueHeadCount: Int
  /// Of each page group [pageGroupCount, keyValueHeadCount].
  private let isPlanned: UnsafeMutablePointer<Bool>
  /// Blocks from one page group to the next.
  private let stride: Int

  /// - Parameters:
  ///   - isPlanned: of the first page group's blocks [keyValueHeadCount].
  ///   - stride: blocks from one page group to the next.
  package init(
    pageGroups: Range<Int>, keyValueHeadCount: Int, isPlanned: UnsafeMutablePointer<Bool>,
    stride: Int
  ) {
    self.pageGroups = pageGroups
    self.keyValueHeadCount = keyValueHeadCount
    self.isPlanned = isPlanned
    self.stride = stride
  }

  /// Plans a block of one KV head.
  public func include(pageGroup: Int, head: Int) {
    precondition(
      pageGroups.contains(pageGroup), "page group \(pageGroup) is not among \(pageGroups)")
    isPlanned[pageGroup * stride + head] = true
  }

  /// Plans a page group's blocks of all heads.
  public func include(pageGroup: Int) {
    for head in 0..<keyValueHeadCount { include(pageGroup: pageGroup, head: head) }
  }

  func clear() {
    for pageGroup in pageGroups {
      (isPlanned + pageGroup * stride).update(repeating: false, count: keyValueHeadCount)
    }
  }
}

/// What blocks weigh in the attention of some queries: partial softmax results of each block alone.
public struct BlockWeights {
  /// Page groups before the observed tokens.
  public let pageGroups: Range<Int>
  public let keyValueHeadCount: Int
  /// Queries of each KV head.
  public let queryCount: Int
  /// Whether the first of the observed tokens is among these.
  public let isFirst: Bool
  /// Maximum and sum [pageGroups.count, keyValueHeadCount, queryCount] of each block's scores.
  let maxima: UnsafePointer<Float>
  let sums: UnsafePointer<Float>

  /// - Parameters:
  ///   - maxima: largest score [pageGroups.count, keyValueHeadCount, queryCount]; −∞ where a query sees none.
  ///   - sums: of e^(score − maximum), of the same shape.
  package init(
    pageGroups: Range<Int>, keyValueHeadCount: Int, queryCount: Int, isFirst: Bool,
    maxima: UnsafePointer<Float>,
    sums: UnsafePointer<Float>
  ) {
    self.pageGroups = pageGroups
    self.keyValueHeadCount = keyValueHeadCount
    self.queryCount = queryCount
    self.isFirst = isFirst
    self.maxima = maxima
    self.sums = sums
  }
}

extension BlockWeights {
  /// Adds the shares of attention that go to each block of a KV head [pageGroups.count], query by query.
  func addShares(ofHead head: Int, to shares: inout [Double], at place: (_ pageGroup: Int) -> Int) {
    func index(_ pageGroup: Int, _ query: Int) -> Int {
      ((pageGroup - pageGroups.lowerBound) * keyValueHeadCount + head) * queryCount + query
    }
    for query in 0..<queryCount {
      let top = pageGroups.reduce(-.infinity) { max($0, maxima[index($1, query)]) }
      guard top > -.infinity else { continue }
      let weights = pageGroups.map {
        Double(sums[index($0, query)]) * CanonicalMath.exp(Double(maxima[index($0, query)] - top))
      }
      let sum = weights.reduce(0, +)
      for (pageGroup, weight) in zip(pageGroups, weights) {
        shares[place(pageGroup)] += weight / sum
      }
    }
  }
}
