import FoundationEssentials
import ModelFormat

extension FuzzTarget {
  /// JSON documents: what our parser reads is what the grammar has, with the values that Foundation finds.
  static let json = FuzzTarget(
    name: "json", inputByteLimit: 512,
    dictionary: [
      "\\x5cu0000", "\\x5cud83d\\x5cude00", "\\x5cudc00", "\\x5c\\\"", "\\x5cn", "true", "false",
      "null",
      "1e308", "-0", "1E+2", "0.5", "9223372036854775807", "-9223372036854775808", "[[[[", "]]]]",
      "{\\\"a\\\":", "NaN", "Infinity", "\\xef\\xbb\\xbf",
    ],
    seeds: { JSONTarget.seeds.map { Array($0.utf8) } }, run: JSONTarget.run)
}

enum JSONTarget {
  static let seeds = [
    #"{"a":[1,-2.5e3,true,false,null],"b":{"c":"x\n\u0041\ud83d\ude00"}}"#,
    #" [ "é" , { } , [ ] , 0.0 , 1E5 ] "#, #""\"\\\/\b\f\n\r\t""#, "12", #"{"a":1,"a":2}"#,
    "9223372036854775808", "[[[[[[[[[[]]]]]]]]]]",
  ]

  static func run(_ input: UnsafeRawBufferPointer) throws(FuzzFinding) -> Bool {
    let ours: Result<JSONValue, FormatError>
    do throws(FormatError) {
      ours = .success(try JSONParser.parse(input, path: "fuzz"))
    } catch { ours = .failure(error) }
    if case .failure(let error) = ours, let offset = error.offset {
      try require(offset <= input.count, "an error at byte \(offset) of \(input.count)")
    }
    if case .success(let value) = ours { try checkOffsets(value, in: input) }
    let hasMark = input.starts(with: [0xEF, 0xBB, 0xBF])
    let isJSON = JSONGrammar.accepts(
      UnsafeRawBufferPointer(rebasing: input.dropFirst(hasMark ? 3 : 0)))
    switch ours {
    case .failure(let error):
      try require(!isJSON, "JSON that we do not read: \(error)")
      return false
    // Ours reads what Python writes (`NaN`), as long as nobody needs it.
    case .success(let value) where hasUnusable(value): return true
    case .success(let value):
      try require(isJSON, "not JSON, read as \(value)")
      try checkValues(value, Data(input))
      return true
    }
  }

  /// Compares the values of what is JSON with those of Foundation. What is JSON, Foundation cannot say: it
  /// reads numbers that nobody asked for without looking, lets a comma stand after the last value and
  /// refuses `0E1`.
  private static func checkValues(_ value: JSONValue, _ input: Data) throws(FuzzFinding) {
    guard let other = try? JSONDecoder().decode(AnyJSON.self, from: input) else { return }
    try require(other.isEqual(value), "\(value) by us, \(other) by Foundation")
  }

  private static func hasUnusable(_ value: JSONValue) -> Bool {
    switch value.content {
    case .unusable: true
    case .array(let values): values.contains(where: hasUnusable)
    case .object(let members): members.contains { hasUnusable($0.value) }
    default: false
    }
  }

  private static func checkOffsets(
    _ value: JSONValue, in input: UnsafeRawBufferPointer
  ) throws(FuzzFinding) {
    try require((0..<input.count).contains(value.offset), "a value at byte \(value.offset)")
    let first = input[value.offset]
    switch value.content {
    case .null: try require(first == UInt8(ascii: "n"), "null at \(value.offset)")
    case .bool: try require(first == UInt8(ascii: "t") || first == UInt8(ascii: "f"), "a word")
    case .string: try require(first == UInt8(ascii: "\""), "a string at \(value.offset)")
    case .integer, .wideInteger, .number, .unusable: break
    case .array(let values): for value in values { try checkOffsets(value, in: input) }
    case .object(let members): for member in members { try checkOffsets(member.value, in: input) }
    }
  }
}

/// Whatever Foundation finds in a document.
private indirect enum AnyJSON: Decodable {
  case null
  case bool(Bool)
  case number(Double)
  case string(String)
  case array([AnyJSON])
  case object([String: AnyJSON])

  private struct Key: CodingKey {
    let stringValue: String
    var intValue: Int? { nil }
    init(stringValue: String) { self.stringValue = stringValue }
    init?(intValue: Int) { nil }
  }

  init(from decoder: any Decoder) throws {
    if let container = try? decoder.container(keyedBy: Key.self) {
      var members: [String: AnyJSON] = [:]
      for key in container.allKeys {
        members[key.stringValue] = try container.decode(AnyJSON.self, forKey: key)
      }
      self = .object(members)
    } else if var container = try? decoder.unkeyedContainer() {
      var values: [AnyJSON] = []
      while !container.isAtEnd { values.append(try container.decode(AnyJSON.self)) }
      self = .array(values)
    } else {
      let container = try decoder.singleValueContainer()
      if container.decodeNil() {
        self = .null
      } else if let value = try? container.decode(Bool.self) {
        self = .bool(value)
      } else if let value = try? container.decode(String.self) {
        self = .string(value)
      } else {
        self = .number(try container.decode(Double.self))
      }
    }
  }

  func isEqual(_ other: JSONValue) -> Bool {
    switch (self, other.content) {
    case (.null, .null): true
    case (.bool(let mine), .bool(let theirs)): mine == theirs
    case (.number(let mine), .integer(let theirs)): mine == Double(theirs)
    case (.number(let mine), .wideInteger(let theirs)): mine == Double(theirs)
    case (.number(let mine), .number(let theirs)): mine == theirs
    case (.string(let mine), .string(let theirs)): mine.utf8.elementsEqual(theirs.utf8)
    case (.array(let mine), .array(let theirs)):
      mine.count == theirs.count && zip(mine, theirs).allSatisfy { $0.isEqual($1) }
    case (.object(let mine), .object(let theirs)):
      // Ours keeps doubled keys, and those that Swift's strings take for equal.
      Set(theirs.map(\.key)).count == mine.count
        && (mine.count != theirs.count
          || theirs.allSatisfy { member in mine[member.key]?.isEqual(member.value) ?? false })
    default: false
    }
  }
}
