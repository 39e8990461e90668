/// Drafts as rows of a sweep: the line that follows the path's last token, and branches that leave it or one another.
///
/// Row 0 is the path's last token, draft i is row i + 1. The longest line comes first, so that there are as few branches as
/// the tree has ends but one.
package struct DraftRows {
  /// [count] each: the token, the row that it follows, and the number of its node in the draft.
  package private(set) var tokens: [Int32] = []
  private var parents: [Int] = []
  private(set) var nodes: [Int] = []
  /// The line, then branches in an order in which each leaves an earlier one.
  package private(set) var chains: [Chain] = []

  package struct Chain {
    /// The chain that it leaves.
    let parent: Int
    /// Drafts of the tree before its first.
    let depth: Int
    /// Its drafts.
    var drafts: Range<Int>
  }

  package init() {
    tokens.reserveCapacity(Draft.capacity)
    parents.reserveCapacity(Draft.capacity)
    nodes.reserveCapacity(Draft.capacity)
    chains.reserveCapacity(Draft.capacity)
  }

  package var isEmpty: Bool { tokens.isEmpty }
  /// Drafts that the span of the path's last token ends in.
  package var lineCount: Int { chains.first?.drafts.count ?? 0 }
  package var line: ArraySlice<Int32> { tokens[..<lineCount] }
  package var branches: ArraySlice<Chain> { chains.dropFirst() }

  mutating func removeAll() {
    tokens.removeAll(keepingCapacity: true)
    parents.removeAll(keepingCapacity: true)
    nodes.removeAll(keepingCapacity: true)
    chains.removeAll(keepingCapacity: true)
  }

  /// Adds a draft after a row.
  ///
  /// - Parameter node: its own in the draft.
  package mutating func append(_ token: Int32, after row: Int, node: Int = 0) {
    tokens.append(token)
    parents.append(row)
    nodes.append(node)
    let last = tokens.count - 1
    if row == last, let chain = chains.indices.last, row > 0 {
      chains[chain].drafts = chains[chain].drafts.lowerBound..<last + 1
    } else {
      chains.append(
        Chain(
          parent: chain(ofRow: row) ?? 0, depth: depth(ofRow: row), drafts: last..<last + 1))
    }
  }

  /// The row after `row` that holds a token; nil where there is none.
  package func child(ofRow row: Int, _ token: Int32) -> Int? {
    for draft in tokens.indices where parents[draft] == row && tokens[draft] == token {
      return draft + 1
    }
    return nil
  }

  /// The row that a row follows.
  package func parent(ofRow row: Int) -> Int { parents[row - 1] }

  /// Drafts up to a row, itself included.
  package func depth(ofRow row: Int) -> Int {
    guard let chain = chain(ofRow: row) else { return 0 }
    return chains[chain].depth + row - chains[chain].drafts.lowerBound
  }

  /// The row at a depth that a row follows, or the row itself where it is there.
  func ancestor(ofRow row: Int, depth: Int) -> Int {
    var row = row
    while row > 0, self.depth(ofRow: row) > depth { row = parent(ofRow: row) }
    return row
  }

  /// The drafts up to a row, itself included.
  package func path(toRow row: Int) -> [Int32] {
    var (row, path) = (row, [Int32]())
    while row > 0 {
      path.append(tokens[row - 1])
      row = parent(ofRow: row)
    }
    return path.reversed()
  }

  /// The branch that a row is of; nil = the line.
  package func branch(ofRow row: Int) -> Int? {
    guard let chain = chain(ofRow: row), chain > 0 else { return nil }
    return chain - 1
  }

  private func chain(ofRow row: Int) -> Int? {
    guard row > 0 else { return nil }
    return chains.firstIndex { $0.drafts.contains(row - 1) }
  }
}

extension Batch {
  /// Adds the branches of drafts whose line the span that was added last ends in.
  ///
  /// - Parameter position: of the line's first draft.
  package func appendBranches(of drafts: DraftRows, at position: Int) {
    guard drafts.chains.count > 1 else { return }
    drafts.tokens.withUnsafeBufferPointer { tokens in
      for branch in drafts.branches {
        appendBranch(
          UnsafeBufferPointer(rebasing: tokens[branch.drafts]), at: position + branch.depth,
          parent: branch.parent > 0 ? branch.parent - 1 : nil)
      }
    }
  }
}
