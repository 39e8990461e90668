import ModelFormat
import TensorBasics
import Testing
import Tokenization

/// Tokens that are looked for in a text before anything else.
@Suite struct SpecialTokenTests {
  /// Ids 3, 4 and 5 are looked for everywhere.
  private func tokenizer() throws -> Tokenizer {
    var tokens = PackedStrings()
    for token in ["<unk>", "<s>", "</s>", "ab", "b<long>", "ab<long>c", "a", "c"] {
      tokens.append(token.utf8)
    }
    return try Tokenizer(
      TokenizerDefinition(
        model: .sentencePieceBPE, tokens: tokens, scores: [Float](repeating: 0, count: 8),
        kinds: [2, 3, 3, 4, 4, 4, 1, 1], bosToken: 1, eosToken: 2, unknownToken: 0,
        addsSpacePrefix: false))
  }

  @Test func `Longer tokens go before shorter ones, also before one that begins earlier`() throws {
    let tokenizer = try tokenizer()
    #expect(try tokenizer.encode("ab<long>c".utf8) == [5])
    #expect(try tokenizer.encode("ab<long>a".utf8) == [6, 4, 6])
    #expect(try tokenizer.encode("abab<long>".utf8) == [3, 6, 4])
    #expect(try tokenizer.encode("cab".utf8) == [7, 3])
  }
}
