import Grammar
import TensorBasics
import Tokenization

/// What a grammar says of the next token of one answer.
///
/// It follows from the answer's tokens alone, so it is the same whatever else the engine does (`docs/decisions/0052`).
struct GrammarConstraint {
  private var place: GrammarPlace
  /// Bit i of the words is token i's [wordCount].
  private var words: [UInt64]
  private let endTokens: [Int32]

  /// - Parameter endTokens: those that may be drawn where the answer may end.
  init(_ grammar: CompiledGrammar, vocabularyCount: Int, endTokens: [Int32]) {
    place = GrammarPlace(grammar)
    words = Array(repeating: 0, count: (vocabularyCount + 63) / 64)
    self.endTokens = endTokens.filter { (0..<vocabularyCount).contains(Int($0)) }
  }

  /// Memory of a constraint, and of the masks of an engine.
  static func byteCount(vocabularyCount: Int) -> Int { (vocabularyCount + 63) / 64 * 8 }

  /// Finds which tokens may follow `answer`.
  ///
  /// - Throws: ``SequenceError/noTokenFits`` or ``SequenceError/grammarTooAmbiguous``.
  mutating func prepare(_ masks: TokenMasks, after answer: ArraySlice<Int32>) throws(RuntimeError) {
    let next = masks.fill(&words, at: &place, after: answer)
    switch next {
    case .tokens(canEnd: false): return
    case .tokens(canEnd: true): break
    case .end where !endTokens.isEmpty: for index in words.indices { words[index] = 0 }
    case .end, .nothing: throw .sequence(.noTokenFits)
    case .exhausted: throw .sequence(.grammarTooAmbiguous)
    }
    for token in endTokens { words[Int(token) >> 6] |= 1 << UInt64(token & 63) }
  }

  /// Whether nothing can follow `answer`.
  mutating func isComplete(_ masks: TokenMasks, after answer: ArraySlice<Int32>) -> Bool {
    masks.advance(&place, over: answer)
  }

  /// Lends the mask that was prepared last.
  func withMask<Result>(_ body: (UnsafePointer<UInt64>?) -> Result) -> Result {
    words.withUnsafeBufferPointer { body($0.baseAddress) }
  }
}

extension TokenMasks {
  /// The masks of a model's vocabulary, within so much memory.
  convenience init(
    _ tokenizer: Tokenizer, vocabularyCount: Int,
    within byteCount: Int = MemoryPlan.usualMaskByteCount
  ) {
    self.init(TokenTrie(tokenizer.texts(count: vocabularyCount)), within: byteCount)
  }

  /// Memory of a vocabulary beside them: at most, but for those whose tokens are much longer than others'.
  static func byteCount(vocabularyCount: Int) -> Int { 96 * vocabularyCount }
}
