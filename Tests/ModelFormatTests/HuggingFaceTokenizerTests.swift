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
      #expect(definition.model == .byteLevelBPE && definition.preTokenizer == "gpt-2")
      #expect(definition.tokens.count == 7 && Array(definition.tokens[4]) == Array("abc".utf8))
      #expect(definition.kinds == [1, 1, 1, 1, 1, 3, 4])
      #expect(Array(definition.merges[1]) == Array("ab c".utf8) && definition.merges.count == 2)
      #expect(definition.bosToken == 5 && definition.eosToken == nil && definition.addsBOS == false)
    }
    let adds = try definition(
      Self.byteLevel(), settings: #"{"bos_token":{"content":"<s>"},"add_bos_token":true}"#)
    #expect(adds.addsBOS == true)
  }

  @Test func `Pre-tokenizers are known by their exact structure`() throws {
    let ignores = #","ignore_merges":true"#
    let digits =
      #"{"type":"Sequence","pretokenizers":[{"type":"Digits","individual_digits":true},"#
      + #"{"type":"ByteLevel","add_prefix_space":false,"use_regex":true}]}"#
    let qwen = Self.llama3.replacing("{1,3}", with: "")
    #expect(try definition(Self.byteLevel(digits)).preTokenizer == "smollm")
    #expect(try definition(Self.byteLevel(Self.split(qwen))).preTokenizer == "qwen2")
    #expect(
      try definition(Self.byteLevel(Self.split(Self.llama3), model: ignores)).preTokenizer
        == "llama-bpe")
    #expect(try definition(Self.byteLevel(Self.split(Self.llama3))).preTokenizer == "smaug-bpe")
    for (unknown, model) in [
      (Self.split(qwen + "x"), ""), (Self.split(qwen), ignores),
      (#"{"type":"ByteLevel","add_prefix_space":true}"#, ""),
      (digits.replacing("individual_digits\":true", with: "individual_digits\":false"), ""),
    ] {
      #expect(try problem(Self.byteLevel(unknown, model: model)).contains("not known"))
    }
  }

  @Test func `SentencePiece vocabularies get scores from the order of merges`() throws {
    let definition = try definition(Self.spaced())
    #expect(definition.model == .sentencePieceBPE && definition.addsSpacePrefix == true)
    #expect(definition.kinds == [2, 6, 1, 1, 1, 1, 1] && definition.unknownToken == 0)
    #expect(definition.scores[5] == -1 && definition.scores[6] == -2)
    #expect(definition.scores[2] < -2 && definition.merges.count == 0)
  }

  @Test func `Merges that SentencePiece would not have are refused`() throws {
    #expect(try problem(Self.spaced(merges: #"["a b"]"#)).contains("▁ab"))
    #expect(try problem(Self.spaced(vocabulary: #","▁a":7"#)).contains("SentencePiece"))
    #expect(try problem(Self.spaced(merges: #"["a b","▁ ab","b a"]"#)).contains("b a"))
    #expect(try problem(Self.spaced(more: #","ignore_merges":true"#)).contains("byte_fallback"))
  }

  @Test(arguments: [
    (Self.byteLevel(model: #","dropout":0.1"#), "dropout"),
    (Self.byteLevel(model: #","end_of_word_suffix":"</w>""#), "</w>"),
    (Self.byteLevel(more: #","normalizer":{"type":"Lowercase"}"#), "normaliser"),
    (Self.byteLevel().replacing("\"BPE\"", with: "\"WordPiece\""), "WordPiece"),
    (Self.byteLevel().replacing("\"tag\"", with: "\"tag\",\"lstrip\":true"), "absorbs"),
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
    let settings = #"{"bos_token":"<s>","chat_template":[{"name":"default","template":"{{x}}"}]}"#
    #expect(try definition(Self.byteLevel(more: more), settings: settings).addsBOS == true)
    var folder = TinyFolder()
    folder.settings = settings
    #expect(try folder.describe().chatTemplate == "{{x}}")
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
    // 160,407 tokens do not fit this model's table; by then they have been read.
    do throws(FormatError) {
      _ = try folder.describe()
      Issue.record("described")
    } catch { #expect(error.message.contains("160407 tokens")) }
    #expect(clock.now - start < .seconds(10))
  }
}
