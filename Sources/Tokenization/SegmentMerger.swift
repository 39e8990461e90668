/// Merges neighbouring symbols of a piece of text until none join, in O(n log n) steps.
///
/// One merger serves all pieces of a text; it keeps its memory between them.
struct SegmentMerger<Rule: MergeRule> {
  private struct Symbol {
    /// Bytes; 0 for one that its left neighbour has taken in, or that begins inside another.
    var byteCount: UInt32
    /// Offset of the left neighbour, `none` for the first.
    var previous: UInt32
    /// Number in the string index, or `StringIndex.none`.
    var number: UInt32
  }

  private struct Candidate {
    /// Priority, then offset of the left symbol: what is popped first.
    var order: UInt64
    /// Bytes of both symbols when the candidate was made; stale once they differ.
    var byteCount: UInt32

    var left: Int { Int(order & 0xFFFF_FFFF) }
  }

  private static var none: UInt32 { UInt32.max }

  private let rule: Rule
  /// By byte offset: the next symbol begins where this one ends.
  private var symbols: [Symbol] = []
  private var heap: [Candidate] = []

  init(rule: Rule) { self.rule = rule }

  /// Merges `text` and hands every symbol left, in order, to `body`.
  ///
  /// - Parameters:
  ///   - isByteLevel: whether text begins as bytes rather than characters.
  ///   - body: called with the symbol's number (or `StringIndex.none`) and bytes.
  mutating func merge(
    _ text: UnsafeBufferPointer<UInt8>, isByteLevel: Bool,
    _ body: (UInt32, UnsafeBufferPointer<UInt8>) -> Void
  ) {
    if symbols.count < text.count {
      symbols = [Symbol](
        repeating: Symbol(byteCount: 0, previous: 0, number: 0), count: text.count)
    }
    begin(text, isByteLevel: isByteLevel)
    while let candidate = popCandidate() {
      let left = candidate.left
      let middle = left + Int(symbols[left].byteCount)
      guard symbols[left].byteCount > 0, middle < text.count,
        symbols[left].byteCount + symbols[middle].byteCount == candidate.byteCount
      else { continue }
      let end = left + Int(candidate.byteCount)
      symbols[middle].byteCount = 0
      symbols[left].byteCount = candidate.byteCount
      symbols[left].number = rule.symbol(of: UnsafeBufferPointer(rebasing: text[left..<end]))
      if end < text.count {
        symbols[end].previous = UInt32(left)
        consider(left, end, in: text)
      }
      if symbols[left].previous != Self.none {
        consider(Int(symbols[left].previous), left, in: text)
      }
    }
    var offset = 0
    while offset < text.count {
      let end = offset + Int(symbols[offset].byteCount)
      body(symbols[offset].number, UnsafeBufferPointer(rebasing: text[offset..<end]))
      offset = end
    }
  }

  /// Cuts `text` into its first symbols and enters all neighbours that join.
  private mutating func begin(_ text: UnsafeBufferPointer<UInt8>, isByteLevel: Bool) {
    heap.removeAll(keepingCapacity: true)
    var offset = 0
    var previous = Self.none
    while offset < text.count {
      let count = isByteLevel ? 1 : UTF8Scanner.symbolLength(in: text, at: offset)
      let bytes = UnsafeBufferPointer(rebasing: text[offset..<offset + count])
      symbols[offset] = Symbol(
        byteCount: UInt32(count), previous: previous, number: rule.symbol(of: bytes))
      if previous != Self.none { consider(Int(previous), offset, in: text) }
      previous = UInt32(offset)
      offset += count
    }
  }

  private mutating func consider(_ left: Int, _ right: Int, in text: UnsafeBufferPointer<UInt8>) {
    let byteCount = symbols[left].byteCount + symbols[right].byteCount
    let span = UnsafeBufferPointer(rebasing: text[left..<left + Int(byteCount)])
    guard
      let priority = rule.priority(
        joining: symbols[left].number, symbols[right].number, span: span)
    else { return }
    push(Candidate(order: UInt64(priority) << 32 | UInt64(left), byteCount: byteCount))
  }

  private mutating func push(_ candidate: Candidate) {
    heap.append(candidate)
    var child = heap.count - 1
    while child > 0 {
      let parent = (child - 1) / 2
      if heap[parent].order <= candidate.order { break }
      heap[child] = heap[parent]
      child = parent
    }
    heap[child] = candidate
  }

  private mutating func popCandidate() -> Candidate? {
    guard let last = heap.popLast() else { return nil }
    guard let first = heap.first else { return last }
    var hole = 0
    while true {
      var child = 2 * hole + 1
      if child >= heap.count { break }
      if child + 1 < heap.count, heap[child + 1].order < heap[child].order { child += 1 }
      if heap[child].order >= last.order { break }
      heap[hole] = heap[child]
      hole = child
    }
    heap[hole] = last
    return first
  }
}
