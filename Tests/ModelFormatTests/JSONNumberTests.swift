import ModelFormat
import Testing

/// Numbers are read as RFC 8259 writes them, not as Swift's `Int` and `Double` read texts.
@Suite struct JSONNumberTests {
  private func parse(_ text: String) throws(FormatError) -> JSONValue {
    try withBytes(Array(text.utf8)) { bytes throws(FormatError) in
      try JSONParser.parse(bytes, path: "numbers")
    }
  }

  @Test(arguments: [
    "01", "-01", "00", "1.", ".5", "-.5", "1.e3", "1e", "1e+", "1E-", "-", "+1", "--1", "1e1.5",
    "1.2.3", "0x10",
  ])
  func `What is no number is refused`(text: String) {
    for document in [text, "[\(text)]", "{\"a\":\(text)}"] {
      #expect(throws: FormatError.self) { try parse(document) }
    }
  }

  @Test(arguments: [
    ("0", 0.0), ("-0", 0), ("10", 10), ("0.5", 0.5), ("-0.25e2", -25), ("0E1", 0), ("1e-2", 0.01),
    ("100e00", 100), ("9223372036854775808", 0x1p63), ("1.0", 1),
  ])
  func `What is one is read`(text: String, value: Double) throws {
    #expect(try parse(text).double == value)
  }
}
