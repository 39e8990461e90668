/// Texts that end an answer, which are not part of it.
public struct StopStrings: Sendable, ExpressibleByArrayLiteral {
  private let texts: [[UInt8]]
  private let longest: Int

  /// Empty texts, which would end every answer before it began, are left out.
  public init(_ texts: [String]) {
    self.texts = texts.map { Array($0.utf8) }.filter { !$0.isEmpty }
    longest = self.texts.lazy.map(\.count).max() ?? 0
  }

  public init(arrayLiteral texts: String...) { self.init(texts) }

  var isEmpty: Bool { texts.isEmpty }

  /// The earliest of them in `text`, of those that reach beyond its first `written` bytes: where it begins, and
  /// which it is.
  func first(in text: [UInt8], from written: Int) -> (start: Int, stop: String)? {
    guard longest > 0 else { return nil }
    for start in max(0, written - longest + 1)..<max(0, text.count) {
      let rest = text[start...]
      let found = texts.first { rest.starts(with: $0) && start + $0.count > written }
      if let found { return (start, String(decoding: found, as: UTF8.self)) }
    }
    return nil
  }

  /// Bytes at the end of `text` that may be the beginning of one of them.
  func heldByteCount(of text: [UInt8]) -> Int {
    for count in stride(from: min(longest - 1, text.count), to: 0, by: -1) {
      let end = text.suffix(count)
      if texts.contains(where: { $0.count > count && $0.starts(with: end) }) { return count }
    }
    return 0
  }
}
