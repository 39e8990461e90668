import Grammar
import TensorBasics
import TestSupport
import Testing
import Tokenization
import WeightLoader

/// Masks against reading bytes one by one, and that against grammars that try everything.
@Suite struct TokenMaskTests {
  @Test(arguments: UInt64(1)...200)
  func `Bytes may come exactly where trying everything says so`(seed: UInt64) throws {
    var generator = SeededGenerator(seed: seed)
    let naive = NaiveGrammar(&generator)
    guard let grammar = try? CompiledGrammar(gbnf: naive.text) else {
      // Rules that never end match nothing.
      #expect(naive.read([]).ends.isEmpty, "seed \(seed): \(naive.text)")
      return
    }
    for _ in 0..<6 {
      var walk = GrammarWalk(grammar)
      for _ in 0..<8 {
        let next = walk.next()
        let prefix = walk.tokens.map { UInt8($0) }
        let (ends, _) = naive.read(prefix)
        #expect((next == .end || next == .tokens(canEnd: true)) == ends.contains(prefix.count))
        guard case .tokens = next else { break }
        for byte in Array("abcd".utf8) where walk.allows(Int32(byte)) {
          let (ends, goesOn) = naive.read(prefix + [byte])
          #expect(
            goesOn || ends.contains(prefix.count + 1), "seed \(seed): \(prefix) \(naive.text)")
        }
        for byte in Array("abcd".utf8) where !walk.allows(Int32(byte)) {
          #expect(!naive.read(prefix + [byte]).ends.contains(prefix.count + 1), "seed \(seed)")
        }
        guard let token = walk.allowed.randomElement(using: &generator) else { break }
        walk.append(token)
      }
    }
  }

  @Test(arguments: UInt64(1)...60)
  func `A token may come where its bytes can be read one by one`(seed: UInt64) throws {
    var generator = SeededGenerator(seed: seed)
    let naive = NaiveGrammar(&generator)
    guard let grammar = try? CompiledGrammar(gbnf: naive.text) else { return }
    var texts = PackedStrings()
    // Some tokens have the same text, and some none.
    for _ in 0..<200 {
      texts.append(
        (0..<Int.random(in: 0...5, using: &generator)).map { _ in
          Array("abcd".utf8).randomElement(using: &generator)!
        })
    }
    let trie = TokenTrie(texts)
    // Little room, so that what is known is forgotten again and again.
    let masks = [TokenMasks(trie), TokenMasks(trie, byteLimit: 2000)]
    var walks = masks.map { GrammarWalk(grammar, $0) }
    for _ in 0..<12 {
      let next = (walks[0].next(), walks[1].next())
      #expect(next.0 == next.1, "seed \(seed)")
      guard case .tokens = next.0 else { break }
      #expect(walks[0].words == walks[1].words, "seed \(seed)")
      let before = walks[0].tokens.flatMap { Array(texts[Int($0)]) }
      for token in 0..<Int32(texts.count) {
        let isRight = Self.canRead(texts[Int(token)], after: before, grammar)
        #expect(walks[0].allows(token) == isRight, "seed \(seed), token \(token)")
      }
      guard let token = walks[0].allowed.randomElement(using: &generator) else { break }
      for index in walks.indices { walks[index].append(token) }
    }
  }

  private static func canRead(
    _ text: ArraySlice<UInt8>, after before: [UInt8], _ grammar: CompiledGrammar
  ) -> Bool {
    var walk = GrammarWalk(grammar)
    for byte in before { walk.append(Int32(byte)) }
    for byte in text {
      guard case .tokens = walk.next(), walk.allows(Int32(byte)) else { return false }
      walk.append(Int32(byte))
    }
    return !text.isEmpty
  }

  private static let hasModel = RealModels.smolLM2 != nil

  @Test(.enabled(if: hasModel, "SmolLM2 is not there"))
  func `SmolLM2's masks are those of its tokens' bytes`() throws {
    let source = try ModelSource.open(try #require(RealModels.smolLM2), backend: .mmap)
    let tokenizer = try #require(try Tokenizer(of: source.description))
    let texts = tokenizer.texts(count: tokenizer.vocabularyCount)
    let masks = TokenMasks(TokenTrie(texts))
    let schema =
      #"{"type": "object", "properties": {"name": {"type": "string", "maxLength": 9}, "n": {"enum": [1, "two"]}}, "required": ["name"]}"#
    for grammar in [
      try CompiledGrammar(jsonSchema: schema), try .anyObject(),
      try CompiledGrammar(pattern: "[a-zäé]+( [0-9]{2,3})*"),
    ] {
      var generator = SeededGenerator(seed: 18)
      var walk = GrammarWalk(grammar, masks)
      for _ in 0..<12 {
        guard case .tokens = walk.next() else { break }
        let before = walk.tokens.flatMap { Array(texts[Int($0)]) }
        // All of what is allowed, and as much of the rest.
        let allowed = walk.allowed
        let others = (0..<400).map { _ in
          Int32.random(in: 0..<Int32(texts.count), using: &generator)
        }
        for token in allowed.shuffled(using: &generator).prefix(400) + others {
          let isRight = Self.canRead(texts[Int(token)], after: before, grammar)
          #expect(walk.allows(token) == isRight, "token \(token) after \(before)")
        }
        for token in tokenizer.endTokens { #expect(!walk.allows(token)) }
        guard let token = allowed.randomElement(using: &generator) else { break }
        walk.append(token)
      }
    }
  }
}
