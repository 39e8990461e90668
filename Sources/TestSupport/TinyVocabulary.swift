/// Vocabularies that spell any text, for tiny models.
enum TinyVocabulary {
  /// `<|endoftext|>`, 256 bytes in GPT-2's alphabet, a few merges, then unused tokens.
  static func byteLevel(count: Int) -> [(key: String, value: TinyGGUF.Value)] {
    let alphabet = byteAlphabet()
    var tokens = [Array("<|endoftext|>".utf8)] + alphabet.map { Array(String($0).utf8) }
    var merges: [[UInt8]] = []
    for pair in ["t h", "th e", "Ġ t", "i n", "e r", "a n", "Ġ a", "o n"] {
      merges.append(Array(pair.utf8))
      tokens.append(Array(pair.filter { $0 != " " }.utf8))
    }
    var kinds = [Int32](repeating: 1, count: tokens.count)
    kinds[0] = 3
    fill(&tokens, &kinds, to: count)
    return [
      ("tokenizer.ggml.model", .string("gpt2")), ("tokenizer.ggml.pre", .string("gpt-2")),
      ("tokenizer.ggml.tokens", .strings(tokens)), ("tokenizer.ggml.token_type", .int32s(kinds)),
      ("tokenizer.ggml.merges", .strings(merges)),
      ("tokenizer.ggml.bos_token_id", .uint32(0)), ("tokenizer.ggml.eos_token_id", .uint32(0)),
      ("tokenizer.ggml.add_bos_token", .bool(false)),
    ]
  }

  /// `<unk>`, `<s>`, `</s>`, 256 byte tokens, a few pieces with scores, then unused tokens.
  static func sentencePiece(count: Int) -> [(key: String, value: TinyGGUF.Value)] {
    let digits = Array("0123456789ABCDEF")
    var tokens = ["<unk>", "<s>", "</s>"].map { Array($0.utf8) }
    var kinds: [Int32] = [2, 3, 3]
    for byte in 0..<256 {
      tokens.append(Array("<0x\(digits[byte / 16])\(digits[byte % 16])>".utf8))
      kinds.append(6)
    }
    for piece in ["▁", "t", "h", "e", "a", "n", "th", "the", "▁the", "an", "▁a"] {
      tokens.append(Array(piece.utf8))
      kinds.append(1)
    }
    let scores = (0..<count).map { $0 < 259 ? 0 : Float(259 - $0) }
    fill(&tokens, &kinds, to: count)
    return [
      ("tokenizer.ggml.model", .string("llama")), ("tokenizer.ggml.pre", .string("default")),
      ("tokenizer.ggml.tokens", .strings(tokens)), ("tokenizer.ggml.scores", .float32s(scores)),
      ("tokenizer.ggml.token_type", .int32s(kinds)),
      ("tokenizer.ggml.bos_token_id", .uint32(1)), ("tokenizer.ggml.eos_token_id", .uint32(2)),
      ("tokenizer.ggml.unknown_token_id", .uint32(0)),
      ("tokenizer.ggml.add_bos_token", .bool(true)),
      ("tokenizer.ggml.add_space_prefix", .bool(false)),
    ]
  }

  private static func fill(_ tokens: inout [[UInt8]], _ kinds: inout [Int32], to count: Int) {
    precondition(tokens.count <= count, "a vocabulary of \(count) is too small")
    while tokens.count < count {
      tokens.append(Array("<unused\(tokens.count)>".utf8))
      kinds.append(5)
    }
  }

  /// GPT-2's spelling of each byte: itself where it prints, otherwise a letter from U+0100 on.
  private static func byteAlphabet() -> [Character] {
    var next: UInt32 = 0x100
    return (UInt32(0)..<256).map { byte in
      let prints = (0x21...0x7E).contains(byte) || (0xA1...0xAC).contains(byte) || byte >= 0xAE
      if !prints { next += 1 }
      return Character(Unicode.Scalar(prints ? byte : next - 1) ?? " ")
    }
  }
}
