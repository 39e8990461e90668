import FoundationEssentials
import ModelFormat

extension FuzzTarget {
  /// JSON documents, read by our parser and by Foundation's.
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
    guard isComparable(input) else { return false }
    // Ours reads what Python writes (`NaN`), as long as nobody needs it.
    if case .success(let value) = ours, hasUnusable(value) { return true }
    let decoder = JSONDecoder()
    let theirs = try? decoder.decode(AnyJSON.self, from: Data(input))
    switch (ours, theirs) {
    case (.success(let value), let other?):
      try require(other.isEqual(value), "\(value) by us, \(other) by Foundation")
      return true
    case (.failure, nil): return false
    case (.success(let value), nil): throw FuzzFinding("only we read this, as \(value)")
    case (.failure(let error), let other?):
      // Foundation lets a comma stand behind the last value.
      try require(
        isBehindComma(error, input), "only Foundation reads this, as \(other): \(error)")
      return false
    }
  }

  /// Whether both should agree: Foundation also reads UTF-16 and UTF-32, lets a mark of byte order stand
  /// in front, and refuses a zero with an exponent (`0E1`).
  private static func isComparable(_ input: UnsafeRawBufferPointer) -> Bool {
    !input.prefix(4).contains(0) && !input.starts(with: [0xEF, 0xBB, 0xBF])
      && !input.starts(with: [0xFF, 0xFE]) && !input.starts(with: [0xFE, 0xFF])
      && !input.indices.contains { index in
        input[index] == UInt8(ascii: "0") && index + 1 < input.count
          && input[index + 1] | 0x20 == UInt8(ascii: "e")
          && (index == 0 || !(0x2E...0x39).contains(input[index - 1]))
      }
  }

  private static func hasUnusable(_ value: JSONValue) -> Bool {
    switch value.content {
    case .unusable: true
    case .array(let values): values.contains(where: hasUnusable)
    case .object(let members): members.contains { hasUnusable($0.value) }
    default: false
    }
  }

  /// Whether an error is that an array or object goes on behind a comma.
  private static func isBehindComma(
    _ error: FormatError, _ input: UnsafeRawBufferPointer
  ) -> Bool {
    guard let offset = error.offset, offset < input.count,
      [UInt8(ascii: "]"), UInt8(ascii: "}")].contains(input[offset])
    else { return false }
    let space: [UInt8] = [0x20, 0x09, 0x0A, 0x0D]
    return input[..<offset].last { !space.contains($0) } == UInt8(ascii: ",")
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
    case .integer, .number, .unusable: break
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
