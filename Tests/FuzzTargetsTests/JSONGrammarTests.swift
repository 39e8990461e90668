import FuzzTargets
import ModelFormat
import Testing

/// What fuzzing takes for JSON, and that our parser takes the same.
@Suite struct JSONGrammarTests {
  @Test(arguments: [
    "0", "-0", "0E1", "1e-2", "12.50E+7", " [ ] ", "{}", #""""#, #"["\u00e9\/\\", "é", null]"#,
    #"{"a":1,"a":2}"#, "[[[[1,2],{}]], true,false]", "\t\r\n1 ", "1e999", #""\ud800""#,
    String(repeating: "[", count: 200) + String(repeating: "]", count: 200),
  ])
  func `JSON is accepted`(text: String) throws { #expect(try agreed(text) == true) }

  @Test(arguments: [
    "", " ", "01", "-", "+1", ".5", "1.", "1.e2", "2e", "2e+", "0x1", "[1,]", "[,1]", "[1 2]",
    #"{"a":1,}"#, #"{"a":1,"a":2.}"#, #"{"a":1,"a":01}"#, #"{"a":[1,],"a":2}"#, #"{"a"}"#,
    "{a:1}", #"{"a":}"#, #""\x""#, #""\u12g4""#, "\"\u{01}\"", "\"", "tru", "nulll", "[", "]", "[}",
    "1 2", "\u{A0}1", "{1:2}", "/**/1",
  ])
  func `What is not JSON is refused, also where nobody asks for it`(text: String) throws {
    #expect(try agreed(text) == false)
  }

  @Test func `A text that is not UTF-8 is refused`() {
    for bytes in [[0x22, 0xFF, 0x22], [0x22, 0xED, 0xA0, 0x80, 0x22], [0x22, 0xC0, 0x80, 0x22]] {
      #expect(verdicts(bytes.map { UInt8($0) }) == [false, false])
    }
  }

  /// The verdict, where the grammar and our parser give the same.
  private func agreed(_ text: String) throws -> Bool {
    let verdicts = verdicts(Array(text.utf8))
    try #require(verdicts[0] == verdicts[1], "the grammar and the parser disagree")
    return verdicts[0]
  }

  private func verdicts(_ bytes: [UInt8]) -> [Bool] {
    bytes.withUnsafeBytes { bytes in
      [JSONGrammar.accepts(bytes), (try? JSONParser.parse(bytes, path: "test")) != nil]
    }
  }
}
