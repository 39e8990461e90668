import ModelFormat
import TensorBasics
import TestSupport
import Testing

@Suite struct HuggingFaceTokenizerTests {
  private static let llama3 =
    #"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*"#
    + #"|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"#

  private static func split(_ regex: String) -> String {
    #"{"type":"Sequence","pretokenizers":[{"type":"Split","pattern":{"Regex":"\#(regex)"},"#
      + #""behavior":"Isolated","invert":false},{"type":"ByteLevel","add_prefix_space":false,"#
      + #""use_regex":false}]}"#
  }

  private static func byteLevel(
    _ preTokenizer: String = #"{"type":"ByteLevel","add_prefix_space":false}"#,
    model: String = "", merges: String = #"["a b","ab c"]"#, more: String = ""
  ) -> String {
    #"{"added_tokens":[{"id":5,"content":"<s>","special":true},{"id":6,"content":"tag"}],"#
      + #""normalizer":null,"pre_tokenizer":\#(preTokenizer)\#(more),"model":{"type":"BPE"\#(model),"#
      + #""vocab":{"a":0,"b":1,"c":2,"ab":3,"abc":4},"merges":\#(merges)}}"#
  }

  private static func spaced(
    merges: String = #"[["a","b"],["▁","ab"]]"#, more: String = "", vocabulary: String = ""
  ) -> String {
    #"{"added_tokens":[{"id":0,"content":"<unk>","special":true}],"normalizer":{"type":"Sequence","#
      + #""normalizers":[{"type":"Prepend","prepend":"▁"},{"type":"Replace","pattern":{"String":" "},"#
      + #""content":"▁"}]},"model":{"type":"BPE","unk_token":"<unk>","byte_fallback":true\#(more),"#
      + #""vocab":{"<unk>":0,"<0x0A>":1,"a":2,"b":3,"▁":4,"ab":5,"▁ab":6\#(vocabulary)},"#
      + #""merges":\#(merges)}}"#
  }

  private func definition(_ json: String, settings: String? = nil) throws -> TokenizerDefinition {
    var folder = TinyFolder()
    (folder.tokenizer, folder.settings) = (json, settings)
    let description = try folder.describe()
    if let problem = description.tokenizerProblem { throw problem }
    return try #require(description.tokenizer)
  }

  private func problem(_ json: String) throws -> String {
    var folder = TinyFolder()
    folder.tokenizer = json
    do throws(FormatError) {
      return try folder.describe().tokenizerProblem?.description ?? "none"
    } catch { return error.description }
  }

  @Test func `Byte-level vocabularies with merges in either spelling`() throws {
    for merges in [#"["a b","ab c"]"#, #"[["a","b"],["ab","c"]]"#] {
      let definition = try definition(
        Self.byteLevel(merges: merges), settings: #"{"bos_token":"<s>","eos_token":null}"#)
      #expect(definition.model == .bytePairs && definition.pipeline?.preTokenizers.count == 2)
      #expect(definition.addedFlags == [0, 0, 0, 0, 0, 33, 41])
      #expect(definition.tokens.count == 7 && Array(definition.tokens[4]) == Array("abc".utf8))
      #expect(definition.kinds == [1, 1, 1, 1, 1, 3, 4])
      #expect(Array(definition.merges[1]) == Array("ab c".utf8) && definition.merges.count == 2)
      #expect(definition.bosToken == 5 && definition.eosToken == nil && definition.addsBOS == false)
    }
    let adds = try definition(
      Self.byteLevel(), settings: #"{"bos_token":{"content":"<s>"},"add_bos_token":true}"#)
    #expect(adds.addsBOS == true)
  }

  @Test func `Steps become data, shorthands written out`() throws {
    typealias Step = TokenizerPipeline.PreTokenizer
    func steps(_ json: String) throws -> [Step] {
      try #require(try definition(Self.byteLevel(json)).pipeline).preTokenizers
    }
    let digits =
      #"{"type":"Sequence","pretokenizers":[{"type":"Digits","individual_digits":true},"#
      + #"{"type":"ByteLevel","add_prefix_space":true,"use_regex":false}]}"#
    #expect(
      try steps(digits) == [
        .split(pattern: .regex(#"\p{N}"#), behavior: .isolated, inverted: false), .spacePrefix,
        .byteLevel,
      ])
    let metaspace =
      #"{"type":"Metaspace","replacement":"▁","prepend_scheme":"first","split":true}"#
    #expect(
      try steps(metaspace) == [
        .metaspace(replacement: "▁", prepending: .first),
        .split(pattern: .text("▁"), behavior: .mergedWithNext, inverted: false),
      ])
    let split =
      #"{"type":"Split","pattern":{"Regex":"a|b"},"behavior":"MergedWithNext","invert":true}"#
    #expect(
      try steps(split) == [
        .split(pattern: .regex("a|b"), behavior: .mergedWithNext, inverted: true)
      ])
  }

  @Test func `Vocabularies of characters keep their merges and fall back to bytes`() throws {
    let definition = try definition(Self.spaced())
    let pipeline = try #require(definition.pipeline)
    #expect(definition.model == .bytePairs && definition.addsSpacePrefix == true)
    #expect(definition.kinds == [2, 6, 1, 1, 1, 1, 1] && definition.unknownToken == 0)
    #expect(pipeline.byteFallback && !pipeline.fusesUnknown && !pipeline.isByteLevel)
    #expect(
      pipeline.normalizers == [
        .prepend(text: "▁"), .replace(pattern: .text(" "), text: "▁"),
      ])
    #expect(definition.merges.count == 2 && definition.scores.isEmpty)
  }

  @Test func `A unigram vocabulary has a score for every token`() throws {
    let json =
      #"{"added_tokens":[{"id":3,"content":"<s>","special":true}],"pre_tokenizer":{"type":"Metaspace","#
      + #""replacement":"▁"},"model":{"type":"Unigram","unk_id":0,"byte_fallback":false,"#
      + #""vocab":[["<unk>",0.0],["a",-1.5],["▁",-2]]}}"#
    let definition = try definition(json)
    #expect(definition.model == .unigramPieces && definition.scores == [0, -1.5, -2, 0])
    #expect(definition.unknownToken == 0 && definition.kinds == [2, 1, 1, 3])
    #expect(try problem(json.replacing("[\"a\",-1.5]", with: "[\"a\"]")).contains("no token with"))
    #expect(try problem(json.replacing("\"unk_id\":0", with: "\"unk_id\":7")).contains("is none"))
  }

  @Test func `All ends of an answer are kept`() throws {
    var folder = TinyFolder()
    folder.tokenizer = Self.byteLevel()
    folder.generation = #"{"eos_token_id":[1,4,2,6,99]}"#
    #expect(try folder.describe().tokenizer?.stopTokens.prefix(4) == [1, 4, 2, 6])
  }

  @Test(arguments: [
    (Self.byteLevel(model: #","dropout":0.1"#), "dropout"),
    (Self.byteLevel(model: #","end_of_word_suffix":"</w>""#), "</w>"),
    (Self.byteLevel(more: #","normalizer":{"type":"BertNormalizer"}"#), "normaliser"),
    (Self.byteLevel().replacing("\"BPE\"", with: "\"WordPiece\""), "WordPiece"),
    (Self.byteLevel().replacing("\"tag\"", with: "\"tag\",\"bold\":true"), "\"bold\""),
    (Self.byteLevel(model: #","cache":1"#), "the field \"cache\" of BPE"),
    (Self.byteLevel(more: #","experimental":{}"#), "\"experimental\" of tokenizer.json"),
    (Self.byteLevel(#"{"type":"UnicodeScripts"}"#), "UnicodeScripts"),
    (Self.byteLevel(#"{"type":"ByteLevel","cut":1}"#), "the field \"cut\" of ByteLevel"),
    (Self.byteLevel(#"{"type":"Split","pattern":{"Glob":"a"},"behavior":"Isolated"}"#), "Glob"),
    (Self.byteLevel(#"{"type":"Split","pattern":{"String":"a"},"behavior":"Cut"}"#), "\"Cut\""),
    (Self.byteLevel(#"{"type":"Metaspace","replacement":"▁","prepend_scheme":"x"}"#), "\"x\""),
    (Self.byteLevel(more: #","post_processor":{"type":"BertProcessing"}"#), "BertProcessing"),
    (Self.byteLevel(more: #","decoder":{"type":"WordPiece"}"#), "WordPiece"),
    (Self.byteLevel(more: #","normalizer":{"type":"Precompiled"}"#), "Precompiled"),
    (Self.byteLevel(merges: #"["a c"]"#), "\"ac\" is no token"),
    (Self.byteLevel().replacing("\"abc\":4", with: "\"abc\":3"), "appears twice"),
    (Self.byteLevel().replacing("\"abc\":4", with: "\"abc\":999999999"), "the impossible id"),
    (Self.byteLevel(merges: #"["ab"]"#), "join two"), (Self.byteLevel(merges: "7"), "merges"),
  ])
  func `What would give other tokens is refused`(json: String, text: String) throws {
    let problem = try problem(json)
    #expect(problem.contains(text), "\(problem)")
  }

  @Test func `Tokens that are canonically equal stay two, and gaps become unused`() throws {
    let json = Self.spaced(vocabulary: #","\u00e9":8,"e\u0301":9"#)
    let definition = try definition(json)
    #expect(definition.tokens.count == 10 && definition.kinds[7] == 5)
    #expect(Array(definition.tokens[8]) == [0xC3, 0xA9])
    #expect(Array(definition.tokens[9]) == [0x65, 0xCC, 0x81])
  }

  @Test func `A template that begins with BOS adds it`() throws {
    let more =
      #","post_processor":{"type":"Sequence","processors":[{"type":"ByteLevel"},"#
      + #"{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"<s>","type_id":0}},"#
      + #"{"Sequence":{"id":"A","type_id":0}}]}]}"#
    let settings =
      #"{"bos_token":"<s>","chat_template":[{"name":"default","template":"{{x}}"},"#
      + #"{"name":"tool_use","template":"{{y}}"}]}"#
    #expect(try definition(Self.byteLevel(more: more), settings: settings).addsBOS == true)
    var folder = TinyFolder()
    folder.settings = settings
    let description = try folder.describe()
    #expect(
      description.chatTemplate == "{{x}}" && description.otherTemplates == ["tool_use": "{{y}}"])
    #expect(description.chatTemplate(hasTools: true) == "{{y}}")
    #expect(description.chatTemplate(hasTools: false) == "{{x}}")
  }

  @Test func `Damaged documents end in a model or an error`() throws {
    var generator = SeededGenerator(seed: 3)
    let documents = [Self.byteLevel(), Self.spaced(), TinyFolder().config]
    for round in 0..<20_000 {
      let original = Array(documents[round % 3].utf8)
      let damaged = String(
        decoding: Mutation.mutate(original, using: &generator), as: UTF8.self)
      var folder = TinyFolder()
      if round % 3 == 2 { folder.config = damaged } else { folder.tokenizer = damaged }
      do throws(FormatError) {
        _ = try folder.describe()
      } catch { #expect(!error.message.isEmpty) }
    }
  }

  @Test func `A large vocabulary takes no time`() throws {
    // Pairs of 400 letters: as many tokens and merges as the largest vocabularies have.
    let letters = (0..<400).map { String(UnicodeScalar(0x4E00 + $0)!) }
    var vocabulary: [String] = []
    var merges: [String] = []
    for letter in letters { vocabulary.append(#""\#(letter)":\#(7 + vocabulary.count)"#) }
    for left in letters {
      for right in letters {
        vocabulary.append(#""\#(left)\#(right)":\#(7 + vocabulary.count)"#)
        merges.append(#"["\#(left)","\#(right)"]"#)
      }
    }
    var folder = TinyFolder()
    folder.tokenizer = Self.spaced(
      merges: #"[["a","b"],["▁","ab"],\#(merges.joined(separator: ","))]"#,
      vocabulary: "," + vocabulary.joined(separator: ","))
    let clock = ContinuousClock()
    let start = clock.now
    // More tokens than the model's table has rows, which nothing forbids.
    #expect(try folder.describe().tokenizer?.tokens.count == 160_407)
    #expect(clock.now - start < .seconds(10))
  }
}
