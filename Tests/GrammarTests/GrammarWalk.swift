import Grammar
import ModelFormat
import TensorBasics

/// A vocabulary of all single bytes: so masks say which bytes may come.
private let byteTrie: TokenTrie = {
  var texts = PackedStrings()
  for byte in 0...UInt8.max { texts.append([byte]) }
  return TokenTrie(texts)
}()

func parseJSON(_ text: String) throws -> JSONValue {
  try Array(text.utf8).withUnsafeBytes { try JSONParser.parse($0, path: "text") }
}

/// An answer that grows token by token under a grammar.
struct GrammarWalk {
  private let masks: TokenMasks
  var byteCount: Int { masks.byteCount }
  private var place: GrammarPlace
  private(set) var tokens: [Int32] = []
  private(set) var words: [UInt64]

  init(_ grammar: CompiledGrammar, _ masks: TokenMasks) {
    self.masks = masks
    place = GrammarPlace(grammar)
    words = Array(repeating: 0, count: masks.wordCount)
  }

  /// A walk over bytes.
  init(_ grammar: CompiledGrammar) { self.init(grammar, TokenMasks(byteTrie)) }

  mutating func next() -> TokenMasks.Next {
    masks.fill(&words, at: &place, after: tokens[...])
  }

  func allows(_ token: Int32) -> Bool { words[Int(token) >> 6] >> UInt64(token & 63) & 1 == 1 }

  var allowed: [Int32] { (0..<Int32(64 * words.count)).filter { allows($0) } }

  /// - Returns: whether nothing can follow.
  @discardableResult
  mutating func append(_ token: Int32) -> Bool {
    tokens.append(token)
    return masks.advance(&place, over: tokens[...])
  }
}

extension CompiledGrammar {
  /// Whether `text` is an answer, read byte by byte.
  func matches(_ text: String) -> Bool {
    var walk = GrammarWalk(self)
    for byte in text.utf8 {
      guard case .tokens = walk.next(), walk.allows(Int32(byte)) else { return false }
      walk.append(Int32(byte))
    }
    switch walk.next() {
    case .tokens(let canEnd): return canEnd
    case .end: return true
    case .nothing, .exhausted: return false
    }
  }

  /// A random answer, which the grammar's own ways of ending keep short; nil where it grew too long.
  func randomAnswer(
    _ generator: inout SeededGenerator, length: Int, favouring favourites: Set<UInt8>
  ) -> [UInt8]? {
    var walk = GrammarWalk(self)
    while walk.tokens.count < 4 * length {
      switch walk.next() {
      case .end: return walk.tokens.map { UInt8($0) }
      case .nothing, .exhausted: return nil
      case .tokens(let canEnd):
        if canEnd, walk.tokens.count > length || Int.random(in: 0..<4, using: &generator) == 0 {
          return walk.tokens.map { UInt8($0) }
        }
      }
      let allowed = walk.allowed
      let ending = allowed.filter { favourites.contains(UInt8($0)) }
      let isLong = walk.tokens.count > length
      let choices = !ending.isEmpty && (isLong || Bool.random(using: &generator)) ? ending : allowed
      guard let token = choices.randomElement(using: &generator) else { return nil }
      walk.append(token)
    }
    return nil
  }
}
