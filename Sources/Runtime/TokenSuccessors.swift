import Glibc

/// The tokens that the model took for likeliest the last time that it computed logits after each token, and after each two of
/// them, rows of drafts that turned out wrong included: token recycling (arXiv:2408.08696 §3).
///
/// The paper knows tokens alone, keeps eight of each, and takes them in their order. Here they have a grade, by their share
/// of the likeliest ones' probability. One thread uses it.
package final class TokenSuccessors {
  /// Tokens that are kept of each row of logits.
  package static let width = 6
  private static let contextBitCount = 14

  /// Those after some tokens, the likeliest first, in 32 bytes.
  package struct Row {
    /// Of each of ``width`` tokens, the token and above it its grade; then the token before the last, and the last.
    private var lanes = SIMD8<UInt32>(repeating: .max)
    private static let tokenBitCount: UInt32 = 28
    private static let tokenMask: UInt32 = 1 << tokenBitCount - 1

    fileprivate init() {}

    /// The likeliest tokens of `logits` [vocabularyCount] after two tokens; −1 before = there was none.
    package init(_ logits: UnsafeBufferPointer<Float>, after before: Int32, _ last: Int32) {
      var (values, tokens) = (SIMD8<Float>(repeating: -.infinity), SIMD8<Int32>(repeating: -1))
      let bytes = UnsafeRawBufferPointer(logits)
      var first = 0
      while first + 16 <= logits.count {
        let block = bytes.loadUnaligned(fromByteOffset: 4 * first, as: SIMD16<Float>.self)
        if block.max() > values[width - 1] {
          for lane in 0..<16 { insert(block[lane], Int32(first + lane), &values, &tokens) }
        }
        first += 16
      }
      for index in first..<logits.count { insert(logits[index], Int32(index), &values, &tokens) }
      var shares = SIMD8<Float>(repeating: 0)
      for place in 0..<width where tokens[place] >= 0 {
        shares[place] = expf(values[place] - values[0])
      }
      let sum = shares.sum()
      for place in 0..<width where tokens[place] >= 0 {
        lanes[place] =
          UInt32(tokens[place]) | UInt32(grade(share: shares[place] / sum)) << Self.tokenBitCount
      }
      lanes[width] = UInt32(bitPattern: before)
      lanes[width + 1] = UInt32(bitPattern: last)
    }

    var before: Int32 { Int32(bitPattern: lanes[width]) }
    var last: Int32 { Int32(bitPattern: lanes[width + 1]) }

    /// The token at a place, and its grade; nil where there are not so many.
    package subscript(place: Int) -> (token: Int32, grade: Int)? {
      let lane = lanes[place]
      return lane == .max
        ? nil : (Int32(lane & Self.tokenMask), Int(lane >> Self.tokenBitCount))
    }
  }

  /// [vocabularyCount], by the last token, and by a hash of the last two.
  private let rows: UnsafeMutableBufferPointer<Row>
  private let contextRows: UnsafeMutableBufferPointer<Row>

  package init(vocabularyCount: Int) {
    rows = .allocate(capacity: vocabularyCount)
    rows.initialize(repeating: Row())
    contextRows = .allocate(capacity: 1 << Self.contextBitCount)
    contextRows.initialize(repeating: Row())
  }

  deinit {
    rows.deallocate()
    contextRows.deallocate()
  }

  /// Memory of one.
  static func byteCount(vocabularyCount: Int) -> Int {
    MemoryLayout<Row>.stride * (vocabularyCount + (1 << contextBitCount))
  }

  /// Takes in what follows some tokens.
  package func note(_ row: Row) {
    guard rows.indices.contains(Int(row.last)) else { return }
    rows[Int(row.last)] = row
    if row.before >= 0 { contextRows[Self.place(row.before, row.last)] = row }
  }

  /// Those after two tokens.
  func row(after before: Int32, _ last: Int32) -> Row? {
    let row = contextRows[Self.place(before, last)]
    return row.before == before && row.last == last ? row : nil
  }

  /// Those after a token.
  func row(after last: Int32) -> Row? {
    guard rows.indices.contains(Int(last)), rows[Int(last)].last == last else { return nil }
    return rows[Int(last)]
  }

  private static func place(_ before: Int32, _ last: Int32) -> Int {
    LookupDrafter.hash(before, last, bitCount: contextBitCount)
  }

  // MARK: Logits

  private static func insert(
    _ value: Float, _ token: Int32, _ values: inout SIMD8<Float>, _ tokens: inout SIMD8<Int32>
  ) {
    guard value > values[width - 1] else { return }
    var place = width - 1
    while place > 0, value > values[place - 1] {
      (values[place], tokens[place]) = (values[place - 1], tokens[place - 1])
      place -= 1
    }
    (values[place], tokens[place]) = (value, token)
  }

  /// Grades of a share of the likeliest ones' probability.
  static let gradeCount = 6

  private static func grade(share: Float) -> Int {
    switch share {
    case ..<0.04: 0
    case ..<0.12: 1
    case ..<0.3: 2
    case ..<0.6: 3
    case ..<0.9: 4
    default: 5
    }
  }
}
