package import TensorBasics

/// The tokens of a vocabulary by the bytes that they stand for: where texts begin alike, one path.
///
/// Nodes lie in the order of a walk that goes deep first, so that walking it reads memory from its beginning to its end.
package struct TokenTrie: Sendable {
  struct Node {
    /// Where what follows its text ends.
    var end: UInt32
    /// The token of its text; -1 = none.
    var token: Int32
    /// Bytes of its text, its own being the last.
    var depth: UInt16
    var byte: UInt8
  }

  /// Those after the root, which has no byte.
  private(set) var nodes: [Node] = []
  /// Tokens of the vocabulary, those without a text too.
  package let tokenCount: Int
  /// The bytes of each token; none for those that a grammar never allows.
  let texts: PackedStrings
  /// The longest text that a token is looked up by: what is longer is never allowed.
  static let longestText = 512
  let longest: Int

  /// - Parameter texts: of each token, its bytes; tokens without are never allowed.
  package init(_ texts: PackedStrings) {
    self.texts = texts
    tokenCount = texts.count
    let bytes = texts.bytes
    var order: [Int32] = (0..<Int32(texts.count)).filter { token in
      (1...Self.longestText).contains(texts[Int(token)].count)
    }
    bytes.withUnsafeBufferPointer { bytes in
      func text(_ token: Int32) -> UnsafeBufferPointer<UInt8> {
        let range = Int(texts.offsets[Int(token)])..<Int(texts.offsets[Int(token) + 1])
        return UnsafeBufferPointer(rebasing: bytes[range])
      }
      order.sort { left, right in
        let (left, right) = ((left, text(left)), (right, text(right)))
        for (first, second) in zip(left.1, right.1) where first != second { return first < second }
        return (left.1.count, left.0) < (right.1.count, right.0)
      }
    }
    longest = order.lazy.map { texts[Int($0)].count }.max() ?? 0
    nodes.reserveCapacity(2 * order.count)
    var path: [Int] = []
    var last: ArraySlice<UInt8> = []
    for token in order {
      let text = texts[Int(token)]
      // A second token of the same text is a node beside the first, which nothing follows.
      var common = zip(last, text).prefix { $0 == $1 }.count
      if common == text.count { common -= 1 }
      close(&path, to: common)
      for (index, byte) in text.enumerated().dropFirst(common) {
        path.append(nodes.count)
        nodes.append(
          Node(
            end: 0, token: index + 1 == text.count ? token : -1, depth: UInt16(index + 1),
            byte: byte))
      }
      last = text
    }
    close(&path, to: 0)
  }

  private mutating func close(_ path: inout [Int], to depth: Int) {
    while path.count > depth { nodes[path.removeLast()].end = UInt32(nodes.count) }
  }

  /// Memory that it takes.
  package var byteCount: Int {
    MemoryLayout<Node>.stride * nodes.capacity + texts.bytes.count + 4 * texts.offsets.count
  }
}
