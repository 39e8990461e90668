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

  /// Does a part of what the next proposal may need, while the last one's drafts are verified.
  ///
  /// - Parameter draft: the last proposal, which may get further nodes: none of them is verified.
  /// - Returns: whether there was anything to do.
  /// - Throws: what ends its service.
  func workAhead(_ draft: inout Draft) throws(RuntimeError) -> Bool

  /// Steps that took their time, up to now.
  var stepCount: Int { get }

  /// Whether it proposes what the model took for likely before, which is looked at in each row of logits then.
  var recycles: Bool { get }

  /// What drafts in its place once it failed; nil = nothing does.
  var fallback: (any Drafter)? { get }

  /// Whether it is given the model's hidden states.
  var wantsStates: Bool { get }

  /// Takes the model's hidden states, after the last norm, of all tokens of a sweep.
  ///
  /// Among them are those of drafts, of which only what was right is part of the next context.
  ///
  /// - Parameters:
  ///   - states: [rowCount, hiddenSize], valid during the call only.
  ///   - position: of the first.
  func take(states: UnsafePointer<Float>, rowCount: Int, at position: Int)
}

extension Drafter {
  package func workAhead(_ draft: inout Draft) throws(RuntimeError) -> Bool { false }
  package var stepCount: Int { 0 }
  package var recycles: Bool { false }
  package var fallback: (any Drafter)? { nil }
  package var wantsStates: Bool { false }
  package func take(states: UnsafePointer<Float>, rowCount: Int, at position: Int) {}
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

/// How many drafts a sweep may verify after a sequence's next token.
package struct DraftRoom {
  /// Most drafts.
  package fileprivate(set) var count: Int
  /// Most drafts one after the other, in the longest line and in the branches beside it.
  package fileprivate(set) var depth: Int
  package fileprivate(set) var branchDepth: Int
  /// Most branches.
  package fileprivate(set) var branchCount: Int

  /// The room in an answer of which so many tokens are left after the next.
  func limited(to leftCount: Int) -> DraftRoom {
    let depth = max(0, min(depth, leftCount))
    return DraftRoom(
      count: depth > 0 ? count : 0, depth: depth, branchDepth: min(branchDepth, depth),
      branchCount: branchCount)
  }
}

/// A tree of tokens that are proposed to follow a path.
///
/// Its root is the path's end. A node's likelihood is that of its being reached and right, at most its parent's; the best of
/// them are verified.
package struct Draft {
  /// Most nodes that are verified.
  package static let capacity = 31
  /// Most nodes, those included that are not.
  static let wideCapacity = 127
  /// What is less likely to be reached is not gone on with.
  private static let leastUsefulLikelihood = 0.02

  package fileprivate(set) var tokens: [Int32] = []
  /// Of each node, the one that it follows; −1 = the path's end.
  private(set) var parents: [Int] = []
  /// Nodes up to each, itself included.
  private var depths: [Int] = []
  private(set) var likelihoods: [Double] = []
  /// What `acceptance` knows each by.
  private var cells: [Int] = []
  /// All nodes, the likeliest first, and of equal ones the earlier.
  private var order: [Int] = []
  /// Their likelihoods.
  private(set) var orderedLikelihoods: [Double] = []
  /// Nodes whose parent had another before.
  private var branchCount = 0
  /// Nodes below each, at most, one after the other; while rows are laid out.
  private var heights: [Int] = []
  /// Whether all are verified whatever that costs, as far as there is room.
  package var isForced = false

  private var acceptance = DraftAcceptance()
  private var room = DraftRoom(
    count: capacity, depth: capacity, branchDepth: capacity, branchCount: capacity)
  private var leastLikelihood = 0.0

  package init() {
    for path in [\Draft.parents, \.depths, \.cells, \.order, \.heights] {
      self[keyPath: path].reserveCapacity(Self.wideCapacity)
    }
    tokens.reserveCapacity(Self.wideCapacity)
    likelihoods.reserveCapacity(Self.wideCapacity)
    orderedLikelihoods.reserveCapacity(Self.wideCapacity)
  }

  /// Whether another token is wanted after the last that was proposed.
  package var wantsMore: Bool { wantsMore(after: tokens.count - 1) }

  /// Whether it takes another node.
  var hasRoom: Bool { tokens.count < room.count }

  /// Whether another token is wanted after a node; −1 = after the path's end.
  func wantsMore(after node: Int) -> Bool {
    tokens.count < room.count && depth(of: node) < room.depth
      && likelihood(of: node) >= leastLikelihood
  }

  private func depth(of node: Int) -> Int { node < 0 ? 0 : depths[node] }
  /// How likely it is that a node is reached and right.
  func likelihood(of node: Int) -> Double { node < 0 ? 1 : likelihoods[node] }

  /// Whether a node has others after it.
  private func hasChild(_ node: Int) -> Bool { parents.contains(node) }

  /// Whether there may be another line of tokens after a node, beside what follows it already.
  func takesBranch(at node: Int) -> Bool {
    branchCount < room.branchCount && depth(of: node) < room.branchDepth
  }

  /// Proposes another token after the last, unless there are as many as may be.
  ///
  /// - Parameter grade: how sure the drafter is of it.
  package mutating func append(_ token: Int32, grade: Int) {
    _ = append(token, after: tokens.count - 1, grade: grade)
  }

  /// Proposes a token after a node; −1 = after the path's end.
  ///
  /// - Parameters:
  ///   - grade: how sure the drafter is of what follows there.
  ///   - rank: how many tokens it takes for likelier there.
  /// - Returns: its node, also where it was proposed before; nil where there is no room.
  package mutating func append(
    _ token: Int32, after node: Int, grade: Int, rank: Int = 0
  ) -> Int? {
    if let known = tokens.indices.first(where: { parents[$0] == node && tokens[$0] == token }) {
      return known
    }
    guard tokens.count < room.count, depth(of: node) < room.depth else { return nil }
    if hasChild(node) {
      guard takesBranch(at: node) else { return nil }
      branchCount += 1
    }
    let cell = DraftAcceptance.cell(grade: grade, depth: depth(of: node), rank: rank)
    let likelihood = likelihood(of: node) * acceptance.share(cell)
    let added = tokens.count
    depths.append(depth(of: node) + 1)
    tokens.append(token)
    parents.append(node)
    likelihoods.append(likelihood)
    cells.append(cell)
    let place = orderedLikelihoods.firstIndex { $0 < likelihood } ?? order.count
    order.insert(added, at: place)
    orderedLikelihoods.insert(likelihood, at: place)
    return added
  }

  /// How likely a token after a node is right, where the node is.
  func share(after node: Int, grade: Int, rank: Int) -> Double {
    acceptance.share(DraftAcceptance.cell(grade: grade, depth: depth(of: node), rank: rank))
  }

  /// The token at a depth, from 0 on, on the way to a node.
  func token(at depth: Int, onPathTo node: Int) -> Int32 {
    var node = node
    while depths[node] > depth + 1 { node = parents[node] }
    return tokens[node]
  }

  /// The last two tokens of a path that goes on to a node.
  ///
  /// - Parameter path: of two tokens or more.
  func lastTwo(
    of path: UnsafeBufferPointer<Int32>, upTo node: Int
  ) -> (before: Int32, last: Int32) {
    let end = path.count - 1
    guard node >= 0 else { return (path[end - 1], path[end]) }
    return (parents[node] < 0 ? path[end] : tokens[parents[node]], tokens[node])
  }

  /// Appends the tokens up to a node, itself included.
  func appendPath(to node: Int, _ path: inout [Int32]) {
    guard node >= 0 else { return }
    for depth in 0..<depths[node] { path.append(token(at: depth, onPathTo: node)) }
  }

  /// The likeliest nodes.
  package func best(_ count: Int) -> ArraySlice<Int> { order.prefix(count) }

  /// Begins anew.
  ///
  /// - Parameter leastLikelihood: how likely a token must be reached that another is worth being made after it.
  mutating func begin(_ room: DraftRoom, leastLikelihood: Double) {
    removeAll()
    (isForced, self.room) = (false, room)
    self.leastLikelihood = max(leastLikelihood, Self.leastUsefulLikelihood)
    self.room.count = min(room.count, Self.capacity)
  }

  /// Takes nodes from here on that are not to be verified.
  mutating func widen() {
    room = DraftRoom(
      count: Self.wideCapacity, depth: .max, branchDepth: .max, branchCount: .max)
  }

  mutating func removeAll() {
    for path in [\Draft.parents, \.depths, \.cells, \.order] {
      self[keyPath: path].removeAll(keepingCapacity: true)
    }
    tokens.removeAll(keepingCapacity: true)
    likelihoods.removeAll(keepingCapacity: true)
    orderedLikelihoods.removeAll(keepingCapacity: true)
    branchCount = 0
  }

  /// Lays the likeliest nodes out as rows: the line that reaches deepest, then the others.
  ///
  /// - Parameters:
  ///   - count: of how many nodes.
  ///   - branchCount: most branches; of the others there is none.
  package mutating func layOut(count: Int, branchCount: Int, into rows: inout DraftRows) {
    rows.removeAll()
    heights.removeAll(keepingCapacity: true)
    for _ in tokens { heights.append(-1) }
    // Of those that are left out the height stays −1. Nodes follow their parents.
    for node in best(count) { heights[node] = 0 }
    for node in tokens.indices.reversed() where heights[node] >= 0 && parents[node] >= 0 {
      heights[parents[node]] = max(heights[parents[node]], heights[node] + 1)
    }
    layOut(after: -1, row: 0, depth: room.depth, into: &rows)
    var row = 0
    // Rows are added meanwhile.
    while row <= rows.tokens.count, rows.branches.count < branchCount {
      let node = row == 0 ? -1 : rows.nodes[row - 1]
      if !layOut(after: node, row: row, depth: room.branchDepth, into: &rows) { row += 1 }
    }
  }

  /// Lays out the longest line of nodes that follows a node and has no rows yet, up to a depth.
  ///
  /// - Returns: whether there is one.
  @discardableResult
  private mutating func layOut(
    after node: Int, row: Int, depth: Int, into rows: inout DraftRows
  ) -> Bool {
    var (node, row) = (node, row)
    var isFound = false
    while true {
      var next: Int?
      for child in tokens.indices
      where parents[child] == node && heights[child] >= 0 && depths[child] <= depth
        && heights[child] > next.map({ heights[$0] }) ?? -1
      {
        next = child
      }
      guard let next else { return isFound }
      isFound = true
      rows.append(tokens[next], after: row, node: next)
      heights[next] = -1
      (node, row) = (next, rows.tokens.count)
    }
  }

  /// Notes which rows were right: one, and those that it follows.
  mutating func note(_ rows: DraftRows, lastRight: Int) {
    var right = lastRight
    note(childrenOf: right, in: rows, right: nil)
    while right > 0 {
      let parent = rows.parent(ofRow: right)
      note(childrenOf: parent, in: rows, right: right)
      right = parent
    }
  }

  private mutating func note(childrenOf row: Int, in rows: DraftRows, right: Int?) {
    for child in 1..<rows.tokens.count + 1 where rows.parent(ofRow: child) == row {
      acceptance.note(cells[rows.nodes[child - 1]], isRight: child == right)
    }
  }
}

/// What a sequence's draft is worth to a sweep.
struct DraftProposal {
  /// How likely each token is to be reached and right, descending.
  var likelihoods: [Double] = []
  /// How many are verified whatever that costs.
  var forcedCount = 0
}

/// Which drafter an answer has.
public struct DraftChoice: Sendable {
  /// Makes the drafter of an answer, in a context of that length and with what is known of earlier answers; nil = it has none.
  package let makeDrafter: (@Sendable (_ contextLength: Int, DraftMemory?) -> any Drafter)?

  /// A drafter of the caller's own.
  package init(
    makeDrafter: (@Sendable (_ contextLength: Int, DraftMemory?) -> any Drafter)?
  ) {
    self.makeDrafter = makeDrafter
  }

  /// None: a token a sweep.
  public static let off = DraftChoice(makeDrafter: nil)
  /// What followed where the context's end occurred before, in it and in earlier answers, and what the model took for likely
  /// there.
  public static let lookup = DraftChoice { LookupDrafter(contextLength: $0, memory: $1) }
  /// Long matches of the context's end and what a smaller model draws, or what the model's own layer for further tokens draws.
  public static func model(_ model: DraftModel) -> DraftChoice {
    DraftChoice { contextLength, memory in
      guard model.isPredictor else {
        return ModelDrafter(model, contextLength: contextLength, memory: memory)
      }
      return PredictionDrafter(model, contextLength: contextLength, memory: memory)
    }
  }

  /// Most drafts of a sweep that are of use: more rows take the processors longer than they save the drive.
  public static let usualRowCount = Draft.capacity
}
