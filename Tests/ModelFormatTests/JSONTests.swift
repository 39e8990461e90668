import ModelFormat
import TestSupport
import Testing

/// What `config.json` may hold where nobody looks, and what errors say where somebody does.
@Suite struct JSONTests {
  private func error(_ more: String, start: String = "") -> String? {
    var folder = TinyFolder()
    folder.config = start + folder.config
    folder.more = more
    do throws(FormatError) {
      _ = try folder.describe()
      return nil
    } catch { return error.description }
  }

  /// Everything that Python's `json` reads without a word.
  private static let odd = [
    "NaN", "Infinity", "-Infinity", "1e999", "-1e999", "99999999999999999999999",
    String(repeating: "9", count: 400), #""\ud800""#, #""\udc00 \ud83d\ude00""#, #""\ud800\ud800""#,
    #"{"\ud800":1}"#, #"{"a":1,"a":2}"#, "1E5",
    String(repeating: "[", count: 500) + #"{"]":[1,"}"]}"# + String(repeating: "]", count: 500),
  ]

  @Test(arguments: odd) func `What no value stands for is accepted where nobody needs it`(
    value: String
  ) {
    #expect(error(#""x":\#(value)"#) == nil)
    #expect(error(#""x":[1,{"y":\#(value)}]"#) == nil)
  }

  @Test(arguments: [
    (#""rms_norm_eps":NaN"#, #""rms_norm_eps" should be a number and is NaN"#),
    (#""hidden_size":Infinity"#, #""hidden_size" should be an integer and is Infinity"#),
    (#""rope_theta":-Infinity"#, #""rope_theta" should be a number and is -Infinity"#),
    (#""rope_theta":1e999"#, #""rope_theta" should be a number and is the number 1e999"#),
    (#""hidden_act":"\ud800""#, #""hidden_act" should be a string and is half a surrogate pair"#),
    (#""hidden_size":"32""#, #""hidden_size" should be an integer and is "32""#),
    (#""hidden_size":32.5"#, #""hidden_size" should be an integer and is 32.5"#),
    (#""tie_word_embeddings":[]"#, #"should be true or false and is an array"#),
    (#""rope_scaling":{"rope_type":"linear","factor":NaN}"#, #""factor" should be a number"#),
  ]) func `Where it is needed the key is named, and what it holds`(more: String, text: String) {
    #expect(error(more)?.contains(text) == true, "\(error(more) ?? "described")")
  }

  @Test(arguments: [
    (#""x":nan"#, "unknown word at 'nan"), (#""x":+1"#, "no value begins at '+1"),
    (#""x":-"#, "no value begins at '-"), (#""x":'a'"#, "no value begins at ''a'"),
    (#""x" 1"#, "':' is missing at '1"), (#""x":[1 2]"#, "',' or ']' is missing at '2]"),
    (#""x":"\q""#, "unknown escape at 'q"), (#""x":1,"#, "a key is missing at '}"),
    (String(repeating: #"{"x":["#, count: 60), "a closing bracket has no opening one at '}"),
    (
      #""x":"# + String(repeating: "[", count: 70) + "}",
      "a closing bracket has no opening one at '}"
    ),
  ]) func `What is no JSON is shown with its place`(more: String, text: String) {
    let more = more.hasPrefix("{") ? #""x":"# + more : more
    let message = error(more)
    #expect(message?.contains(text) == true, "\(message ?? "described")")
    #expect(message?.contains("config.json: at byte ") == true)
  }

  @Test func `A byte order mark before the document is no part of it`() throws {
    let text = "\u{FEFF}{\"weight_map\":{\"x\":\"a\"}}"
    #expect(try HuggingFace.shardNames(index: .init(path: "i", bytes: Array(text.utf8))) == ["a"])
  }

  @Test func `Half a surrogate pair is never a token, a template or a file's name`() {
    let index = #"{"weight_map":{"x":"\ud800"}}"#
    #expect(throws: FormatError.self) {
      try HuggingFace.shardNames(index: .init(path: "i", bytes: Array(index.utf8)))
    }
    var folder = TinyFolder()
    folder.settings = #"{"chat_template":"\ud800"}"#
    let refusal = #expect(throws: FormatError.self) { try folder.describe() }
    #expect(refusal?.description.contains("chat_template") == true)
  }
}
