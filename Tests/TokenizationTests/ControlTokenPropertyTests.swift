import ModelFormat
import TensorBasics
import TestSupport
import Testing
import Tokenization

/// Control tokens that were typed, through every operation of templates and every kind of tokenizer.
@Suite struct ControlTokenPropertyTests {
  /// What the templates never write themselves, in any case that they may make of it.
  private static let controls = [
    "<|конец|>", "<|КОНЕЦ|>", "<|Конец|>", "конец", "<|имя|>", "д", "Ж", "ж", "й\u{301}",
  ]

  private enum Kind: CaseIterable {
    case sentencePiece, pipeline, normalizing, strippingSpaces
  }

  private static func tokenizer(_ kind: Kind) throws -> Tokenizer {
    var tokens = PackedStrings()
    var kinds: [UInt8] = [2, 3, 3]
    for token in ["<unk>", "<s>", "</s>"] { tokens.append(token.utf8) }
    for byte in UInt8.min...UInt8.max {
      let digits = Array("0123456789ABCDEF")
      tokens.append("<0x\(digits[Int(byte >> 4)])\(digits[Int(byte & 15)])>".utf8)
      kinds.append(6)
    }
    for token in controls {
      tokens.append(token.utf8)
      kinds.append(3)
    }
    var definition = TokenizerDefinition(
      model: kind == .sentencePiece ? .sentencePieceBPE : .bytePairs, tokens: tokens,
      scores: kind == .sentencePiece ? kinds.indices.map { -Float($0) } : [], kinds: kinds,
      bosToken: 1, eosToken: 2, unknownToken: 0, addsSpacePrefix: false)
    guard kind != .sentencePiece else { return try Tokenizer(definition) }
    var pipeline = TokenizerPipeline()
    pipeline.byteFallback = true
    var flags = AddedTokenFlags.added
    if kind == .normalizing {
      pipeline.normalizers = [.unicode(form: .nfkd), .lowercase, .stripAccents]
      flags.insert(.normalized)
    }
    if kind == .strippingSpaces { flags.formUnion([.stripsLeft, .stripsRight]) }
    definition.pipeline = pipeline
    definition.addedFlags = kinds.indices.map {
      $0 < 3 ? AddedTokenFlags.added.rawValue : $0 < 259 ? 0 : flags.rawValue
    }
    return try Tokenizer(definition)
  }

  @Test("No template makes a control token of what was typed", arguments: 1...6)
  func controlTokens(seed: UInt64) throws {
    let tokenizers = try Kind.allCases.map { ($0, try Self.tokenizer($0)) }
    var conversation = Conversation([ChatMessage(role: .user, "ж <|конец|>")])
    conversation.setArgument("x", "жД ё\n<|Конец|>\tы%s{0} конец")
    conversation.setArgument("y", "  <|конец|>\r\nф 'Ы\" <| конец |>")
    conversation.setArgument("n", #"["<|конец|>", "конец", "д", "<|", "|>"]"#)
    conversation.setArgument("d", #"{"ключ": "<|конец|>", "<|имя|>": "конец"}"#)
    conversation.setNow("2026-01-31")
    var generator = TemplateGenerator(seed: seed)
    var count = 0
    for _ in 0..<120 {
      let source = generator.template()
      guard let template = try? ChatTemplate(source) else { continue }
      for (kind, tokenizer) in tokenizers {
        guard let tokens = try? tokenizer.encodeChat(conversation, template: template) else {
          break
        }
        count += 1
        #expect(!tokens.contains { $0 >= 259 }, "\(kind): \(source)")
      }
    }
    #expect(count > 200)
  }

  /// The tokens are there to be made.
  @Test func `The template itself makes them`() throws {
    for kind in Kind.allCases {
      let tokenizer = try Self.tokenizer(kind)
      let tokens = try tokenizer.encodeChat(
        Conversation([ChatMessage(role: .user, "<|конец|>")]),
        template: ChatTemplate("<|конец|>{{ messages[0].content }}<|имя|>"))
      #expect(tokens.filter { $0 >= 259 } == [259, 263], "\(kind): \(tokens)")
    }
  }
}
