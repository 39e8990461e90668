package import KVCache
package import TensorBasics

/// The rows of one sweep over the weights: tokens of any number of sequences.
///
/// A row is a token at a position of its sequence. The rows of one sequence lie together, in a span of
/// consecutive positions; spans follow one another in the order in which they were added. Products see
/// rows only; attention, and what stores keys and values, sees spans.
///
/// ```
/// row        0    1    2    3    4    5    6
/// sequence   A    B    C    C    C    C    D       A, B and D answer, of C a prompt is read
/// position  17  310    0    1    2    3   64
/// logits     0    1                        2
/// ```
///
/// A span may end in drafts, and be followed by branches: rows at positions from one of the span's drafts on, or of another
/// branch's, which attend to what that has before them.
///
/// Allocated once and filled anew for each sweep, which allocates nothing. One thread fills a batch; while a
/// region runs, its workers may read it.
package final class Batch {
  /// The rows of one sequence.
  package struct Span {
    /// Keys and values of the sequence.
    package let cache: KeyValueStore
    /// Its rows of the batch.
    package let rows: Range<Int>
    /// Position of the first.
    package let position: Int
    /// What all of its rows are.
    package let kind: RowKind
    /// Of rows that are read, where their prompt ends; nil if that is not known.
    package let promptEnd: Int?
    /// Rows at its end that hold drafts, which may be rejected.
    package let draftCount: Int
    /// Rows of earlier spans that end in drafts.
    let firstVerified: Int
    /// Raised, from any thread, when nobody wants its rows any more; nil = always wanted.
    let cancellation: CancellationFlag?
    /// What the hidden states of all of its rows are wanted for.
    let states: StateUse
    /// Whether its rows mean something; dead rows are multiplied, and have no attention.
    package fileprivate(set) var isAlive = true
    /// Why it is dead; nil also where it was cancelled.
    package fileprivate(set) var failure: RuntimeError?

    /// Positions of its rows.
    package var positions: Range<Int> { position..<position + rows.count }
  }

  /// What hidden states are wanted for.
  package enum StateUse: Sendable {
    case nothing
    /// What comes of them is an answer: where they are not finite, the span fails.
    case pooling
    /// They guide drafts alone.
    case drafting
  }

  /// Rows of drafts beside those that a span ends in.
  struct Branch {
    /// Number of the span.
    let span: Int
    let rows: Range<Int>
    /// Position of the first.
    let position: Int
    /// The branch that it leaves; nil = the span.
    let parent: Int?
    /// Number among the batch's branches.
    let number: Int
  }

  /// Most rows.
  package let rowCapacity: Int
  /// Most spans.
  package let spanCapacity: Int
  package private(set) var spans: [Span] = []
  private(set) var branches: [Branch] = []
  package var branchCount: Int { branches.count }
  /// Keys and values of branches; nil = there are none.
  let keyValueBranches: KeyValueBranches?
  /// Takes rows that were verified into states; nil where no layer has one. Whoever makes the graph sets it.
  var scans: ScanStep?
  package private(set) var rowCount = 0
  /// Rows of spans that end in drafts.
  private var verifiedCount = 0
  /// Rows whose logits are wanted.
  package private(set) var logitCount = 0
  /// Rows whose hidden states are wanted.
  private(set) var pooledCount = 0
  /// Whether any span is dead.
  private var hasDead = false

  /// [rowCapacity] each: the token of a row, its position and the number of its span; rows whose logits are
  /// wanted, and those whose hidden states are, ascending.
  let tokens: UnsafeMutablePointer<Int32>
  let positions: UnsafeMutablePointer<Int32>
  let spanNumbers: UnsafeMutablePointer<Int32>
  let logitRows: UnsafeMutablePointer<Int32>
  let pooledRows: UnsafeMutablePointer<Int32>
  private let memory: AlignedBuffer

  /// - Throws: ``RuntimeError/allocation(_:)``.
  package init(
    rowCapacity: Int, spanCapacity: Int, branches: KeyValueBranches? = nil
  ) throws(RuntimeError) {
    keyValueBranches = branches
    self.branches.reserveCapacity(branches?.capacity ?? 0)
    self.rowCapacity = rowCapacity
    self.spanCapacity = spanCapacity
    do { memory = try AlignedBuffer(byteCount: Self.byteCount(rowCapacity: rowCapacity)) } catch {
      throw .allocation(error)
    }
    tokens = memory.address.bindMemory(to: Int32.self, capacity: 5 * rowCapacity)
    positions = tokens + rowCapacity
    spanNumbers = positions + rowCapacity
    logitRows = spanNumbers + rowCapacity
    pooledRows = logitRows + rowCapacity
    spans.reserveCapacity(spanCapacity)
  }

  static func byteCount(rowCapacity: Int) -> Int { 20 * rowCapacity }

  /// Makes the batch empty.
  package func removeAll() {
    spans.removeAll(keepingCapacity: true)
    branches.removeAll(keepingCapacity: true)
    (rowCount, logitCount, pooledCount, verifiedCount, hasDead) = (0, 0, 0, 0, false)
  }

  /// Adds rows of a sequence that has none in the batch yet.
  ///
  /// - Parameters:
  ///   - tokens: at positions `position...`, which follow those that `cache` holds.
  ///   - kind: what all of them are.
  ///   - promptEnd: as that of `KeyValueStore.begin`.
  ///   - logitCount: of how many of the last rows the logits are wanted.
  ///   - draftCount: how many of the last rows hold drafts, which ``keepDrafts(ofSpan:branch:to:)`` takes back or keeps; one
  ///     row is certain.
  ///   - states: what the hidden states of all rows are wanted for.
  ///   - cancellation: makes the rows dead at the next layer once it is raised.
  package func append(
    _ tokens: UnsafeBufferPointer<Int32>, at position: Int, _ kind: RowKind, promptEnd: Int? = nil,
    in cache: KeyValueStore, logitCount wanted: Int, draftCount: Int = 0,
    states: StateUse = .nothing, cancellation: CancellationFlag? = nil
  ) {
    precondition(
      rowCount + tokens.count <= rowCapacity && spans.count < spanCapacity && !tokens.isEmpty,
      "the batch has no room")
    let rows = append(tokens, at: position, ofSpan: spans.count, logitCount: wanted)
    for row in rows where states != .nothing {
      pooledRows[pooledCount] = Int32(row)
      pooledCount += 1
    }
    spans.append(
      Span(
        cache: cache, rows: rows, position: position, kind: kind, promptEnd: promptEnd,
        draftCount: draftCount, firstVerified: verifiedCount, cancellation: cancellation,
        states: states))
    if draftCount > 0 { verifiedCount += rows.count }
  }

  /// Adds rows of drafts to the span that was added last, all with logits, which leave its drafts or an earlier branch of it.
  ///
  /// - Parameters:
  ///   - position: of the first token, after one of the drafts that it leaves.
  ///   - parent: the branch that is left, by its number among the span's; nil = the span.
  package func appendBranch(
    _ tokens: UnsafeBufferPointer<Int32>, at position: Int, parent: Int?
  ) {
    precondition(
      rowCount + tokens.count <= rowCapacity
        && branches.count < keyValueBranches?.capacity ?? 0
        && !tokens.isEmpty && !spans.isEmpty, "the batch has no room")
    let span = spans.count - 1
    let first = branches.firstIndex { $0.span == span } ?? branches.count
    let number = branches.count
    let rows = append(tokens, at: position, ofSpan: span, logitCount: tokens.count)
    branches.append(
      Branch(
        span: span, rows: rows, position: position, parent: parent.map { first + $0 },
        number: number))
  }

  private func append(
    _ tokens: UnsafeBufferPointer<Int32>, at position: Int, ofSpan span: Int, logitCount wanted: Int
  ) -> Range<Int> {
    let rows = rowCount..<rowCount + tokens.count
    for (row, token) in zip(rows, tokens) {
      self.tokens[row] = token
      positions[row] = Int32(position + row - rows.lowerBound)
      spanNumbers[row] = Int32(span)
    }
    for row in rows.suffix(wanted) {
      logitRows[logitCount] = Int32(row)
      logitCount += 1
    }
    rowCount = rows.upperBound
    return rows
  }

  /// Has the keys and values of branches be those of this batch's.
  func beginBranches() {
    guard let keyValueBranches else { return }
    keyValueBranches.removeAll()
    for branch in branches {
      let span = spans[branch.span]
      keyValueBranches.append(
        span.cache, parent: branch.parent,
        positions: branch.position..<branch.position + branch.rows.count,
        certainEnd: span.positions.upperBound - span.draftCount)
    }
  }

  /// Takes back the drafts of a span from `position` on; those before it, of the span or of one of its branches, stay.
  ///
  /// - Parameter branch: number among the span's; nil = none of a branch stays.
  package func keepDrafts(ofSpan span: Int, branch: Int?, to position: Int) {
    scans?.advance(spans[span], rowCount: position - spans[span].position)
    guard let branch, let keyValueBranches,
      let first = branches.firstIndex(where: { $0.span == span })
    else { return spans[span].cache.reject(from: position) }
    spans[span].cache.accept(first + branch, of: keyValueBranches, to: position)
  }

  /// Notes that a span's rows mean nothing any more.
  func fail(_ span: Int, _ error: KeyValueError) { fail(span, RuntimeError(error)) }

  /// As ``fail(_:_:)``; the first failure counts.
  func fail(_ span: Int, _ error: RuntimeError) {
    guard spans[span].isAlive else { return }
    spans[span].failure = error
    drop(span)
  }

  private func drop(_ span: Int) {
    spans[span].isAlive = false
    hasDead = true
    spans[span].cache.abandonChunk()
  }

  /// Makes dead what was cancelled meanwhile.
  func dropCancelled() {
    for number in spans.indices
    where spans[number].isAlive && spans[number].cancellation?.isRaised == true {
      drop(number)
    }
  }

  /// Number of the span of a row.
  func spanNumber(ofRow row: Int) -> Int { Int(spanNumbers[row]) }

  /// Keys and values of the sequence of a row that means something; nil of others, and of branches.
  func liveCache(ofRow row: Int) -> KeyValueStore? {
    let number = spanNumber(ofRow: row)
    return spans[number].isAlive && spans[number].rows.contains(row) ? spans[number].cache : nil
  }

  /// Whether a row means something.
  package var isAlive: Bool { spans.contains { $0.isAlive } }

  /// Throws if no row means anything any more, or the caller asked to stop.
  func checkLife() throws(RuntimeError) {
    guard hasDead else { return }
    for span in spans { if case .interrupted? = span.failure { throw .interrupted } }
    guard !isAlive else { return }
    throw spans.lazy.compactMap(\.failure).first ?? .interrupted
  }
}
