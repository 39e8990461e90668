import ModelFormat
import TensorBasics
import Testing
import Tokenization

/// Regular expressions of tokenizer files: their meaning is Oniguruma's, whatever library matches them.
@Suite struct PatternTests {
  /// The pieces that a split makes of a text, told by a vocabulary of bytes whose tokens all pieces are.
  private func pieces(_ pattern: String, _ text: String) throws -> [String] {
    var tokens = PackedStrings()
    // A piece of several bytes is no token, so that pieces are told apart by a merge of all neighbours.
    var pipeline = TokenizerPipeline()
    pipeline.preTokenizers = [
      .split(pattern: .regex(pattern), behavior: .isolated, inverted: false)
    ]
    pipeline.ignoresMerges = true
    let scalars = Array(text.unicodeScalars)
    var all = Set<String>()
    for start in scalars.indices {
      for end in start..<scalars.count {
        var piece = ""
        piece.unicodeScalars.append(contentsOf: scalars[start...end])
        all.insert(piece)
      }
    }
    let sorted = all.sorted { Array($0.utf8).lexicographicallyPrecedes(Array($1.utf8)) }
    for piece in sorted { tokens.append(piece.utf8) }
    var definition = TokenizerDefinition(model: .bytePairs, tokens: tokens)
    definition.pipeline = pipeline
    let tokenizer = try Tokenizer(definition)
    return try tokenizer.encode(text.utf8).map { sorted[Int($0)] }
  }

  private func problem(_ pattern: String) -> String {
    do {
      _ = try pieces(pattern, "ab")
      return "accepted"
    } catch { return "\(error)" }
  }

  @Test(arguments: [
    (#"^b|a$"#, "a\nb\na", "a|\n|b|\n|a"), (#"\p{L}{1,3}+"#, "abcdefg1", "abcdefg|1"),
    (#"a++b|a"#, "aab", "aab"), (#"\h+"#, "g1fg", "g|1f|g"), (#"(?m:a.b)"#, "a\nbc", "a\nb|c"),
    (#"a.b"#, "a\nb", "a\nb"), (#"[a-c&&b-d]+"#, "abcd", "a|bc|d"),
    (#"[[a-c][^a-z]]+"#, "ab1d", "ab1|d"), (#"[^a-z&&[^b]]+"#, "abA", "a|bA"),
    (#"\p{Han}+"#, "漢、字", "漢|、|字"), (#"(?i:'s)"#, "x'ſ'S", "x|'ſ|'S"), (#"a{,2}"#, "aaa", "aa|a"),
    (#"a{x"#, "ba{xb", "b|a{x|b"), (#"x(?i)a|b"#, "xAxBb", "xA|xB|b"), (#"[]a]+"#, "]ab", "]a|b"),
    (#"\p{^L}"#, "a1", "a|1"), (#"(?<n>x)y"#, "xyz", "xy|z"), (#"x*"#, "axxb", "a|xx|b"),
    (#"(?=b)"#, "aaba", "aa|ba"), (#"\w+"#, "a²-", "a²|-"), (#"[\w]+"#, "a²", "a|²"),
    (#"\s+"#, "a\u{85}\u{3000}b\u{180e}", "a|\u{85}\u{3000}|b\u{180e}"),
    (#"\x41|\u0042"#, "AB", "A|B"),
    (#"[\r\n/]+"#, "a/\r", "a|/\r"), (#"\p{Cn}"#, "a\u{378}", "a|\u{378}"),
    // Letters and punctuation that came with Unicode 15 and 16.
    (#"\p{Lu}"#, "a\u{1c89}b", "a|\u{1c89}|b"), (#"[^\p{L}]+"#, "\u{105c0}1", "\u{105c0}|1"),
    (#"\P{L}"#, "\u{16d63}x\u{1fae9}", "\u{16d63}x|\u{1fae9}"), (#"\bx"#, "ax x", "ax |x"),
  ])
  func `A pattern means what it means to Oniguruma`(
    pattern: String, text: String, expected: String
  ) throws {
    #expect(try pieces(pattern, text).joined(separator: "|") == expected)
  }

  @Test(arguments: [
    (#"a(?s)b"#, "character 1 "), (#"a{3,1}"#, "character 1 "), (#"\p{Klingon}"#, "\"klingon\""),
    (#"a\i"#, "character 1 "), (#"[[:alpha:]]"#, "POSIX"), (#"(a"#, "not closed"),
    (#"a)"#, "closes"),
    (#"[a"#, "not closed"), (#"(?i:straße|fi)"#, "any case"), (#"(?i:\p{Lu})"#, "any case"),
    (#"(?<=a+)b"#, "PCRE2"), (#"(?~a)"#, "unknown kind"), (#"\1"#, "not supported"),
    (#"*a"#, "repeat"),
    (#"\xe9"#, "beyond ASCII"), (#"[z-a]"#, "before it begins"), (#"\X"#, "not supported"),
    (#"(?(1)a)"#, "unknown kind"), (String(repeating: "(", count: 100), "too deep"),
  ])
  func `What has no translation is refused with its place`(pattern: String, reason: String) {
    #expect(problem(pattern).contains(reason), "\(problem(pattern))")
  }

  /// A step after ByteLevel sees three characters where a byte is no UTF-8.
  @Test func `Cuts inside a byte that is no character are one`() throws {
    var tokens = PackedStrings()
    for token in ["ÿ", "a"] { tokens.append(token.utf8) }
    var definition = TokenizerDefinition(model: .bytePairs, tokens: tokens)
    var pipeline = TokenizerPipeline()
    pipeline.preTokenizers = [
      .byteLevel, .split(pattern: .regex("¿"), behavior: .isolated, inverted: false),
    ]
    definition.pipeline = pipeline
    #expect(try Tokenizer(definition).encode([0xFF, 0x61, 0xFF]) == [0, 1, 0])
  }

  @Test func `A pattern that takes for ever ends in an error`() {
    let text = String(repeating: "a", count: 40) + "!"
    do {
      _ = try Self.split(#"(?:a|a|a?)+[bc]"#, text)
      Issue.record("it ended")
    } catch { #expect("\(error)".contains("PCRE2")) }
  }

  /// None of them takes many steps for one match, and all a time that grows with the square of the text.
  @Test(arguments: [
    #"a(?=.*z)|a"#, #"a*b|a"#, #"(?:a|b)+c|a"#, #"a(?=[^z]*z)|[^a]"#, #"\w+\d|\w"#,
  ])
  func `A pattern that goes over the text again at every character ends in an error`(
    pattern: String
  ) {
    do {
      _ = try Self.split(pattern, String(repeating: "a", count: 200_000))
      Issue.record("it ended")
    } catch {
      #expect("\(error)".contains("takes too long on this text"), "\(error)")
      #expect("\(error)".contains("ids") && "\(error)".contains(pattern), "\(error)")
    }
  }

  @Test(arguments: [
    #" ?\p{L}+| ?\p{N}{1,3}| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"#, #"\p{N}"#, #"!"#, #"[^!]+"#,
  ])
  func `Long texts are cut by sound patterns, wherever their matches are`(pattern: String) throws {
    for filler in ["a", "é", "北京 ", "    ", "a1 "] {
      let text = String(repeating: filler, count: 400_000) + "!"
      #expect(try Self.split(pattern, text).last == 1)
    }
  }

  /// PCRE2 is asked for matches that begin in the next few places only, again and again.
  @Test func `Matches are found at any distance, among characters of any length`() throws {
    for character in ["a", "é", "北", "😀"] {
      for distance in 0...140 {
        let gap = String(repeating: character, count: distance)
        let count = try Self.split("!", gap + "!" + gap + "!").count { $0 == 1 }
        #expect(count == 2, "\(distance) times \(character)")
      }
    }
  }

  private static func split(_ pattern: String, _ text: String) throws -> [Int32] {
    var tokens = PackedStrings()
    for token in ["a", "!"] { tokens.append(token.utf8) }
    var definition = TokenizerDefinition(model: .bytePairs, tokens: tokens)
    var pipeline = TokenizerPipeline()
    pipeline.preTokenizers = [
      .split(pattern: .regex(pattern), behavior: .isolated, inverted: false)
    ]
    definition.pipeline = pipeline
    return try Tokenizer(definition).encode(text.utf8)
  }
}
