import ModelFormat

/// Reads calls of tools behind a mark, byte by byte: one object of JSON, or a list of them.
///
/// A call is given out as soon as its name and the beginning of its arguments are there, its arguments as they come.
struct CallReader: Sendable {
  enum Result { case more, end, bad }

  private enum Place {
    /// An object, a list, or in some forms the name before an object.
    case start
    case name
    case object(ObjectPlace)
    /// Between the objects of a list.
    case list
  }

  private enum ObjectPlace {
    case key
    case keyText(JSONSpan)
    case colon, value
    /// A value that decides nothing, or is told by its member.
    case inValue(JSONSpan, Member)
    case afterValue
  }

  private enum Member { case name, arguments, other }

  /// The mark and white space before it, of a call that has not begun.
  private(set) var before: [UInt8]
  /// What was read since and not given out.
  private(set) var unread: [UInt8] = []
  /// Calls of the answer that have begun.
  private(set) var callCount: Int
  private let syntax: AnswerSyntax
  private var place: Place
  private var isInList = false
  /// Of the object that is being read.
  private var name: String?
  /// Arguments that came before the name.
  private var arguments: [UInt8]?
  private var hasBegun = false
  private var hasArguments = false
  /// What is held back at most; longer than any name with what stands around it.
  private static let mostUnread = 1 << 16
  private static let mostNameBytes = 256
  /// Memory of one: what is held back and arguments before a name, in arrays that double.
  static let byteCount = 4 * mostUnread

  init(_ syntax: AnswerSyntax, index: Int, before: [UInt8], isInObject: Bool) {
    self.syntax = syntax
    self.before = before
    callCount = index
    place = isInObject ? .object(.key) : .start
  }

  /// Whether the name before an object is being read, between which marks may stand.
  var isInName: Bool { if case .name = place { true } else { false } }
  /// Whether an object of a list is complete.
  var isBetweenCalls: Bool { if case .list = place { true } else { false } }

  /// Takes a byte; one that is bad is not taken.
  mutating func take(_ byte: UInt8, _ pieces: inout [AnswerPiece]) -> Result {
    guard unread.count < Self.mostUnread else { return .bad }
    let result = read(byte, &pieces)
    // What was given out, or belongs to what was, is never given back.
    if result == .more, !hasBegun, !isBetweenCalls { unread.append(byte) }
    return result
  }

  private mutating func read(_ byte: UInt8, _ pieces: inout [AnswerPiece]) -> Result {
    switch place {
    case .start: start(byte)
    case .name: nameBefore(byte, &pieces)
    case .object(let place): object(place, byte, &pieces)
    case .list: list(byte)
    }
  }

  private mutating func start(_ byte: UInt8) -> Result {
    if AnswerParser.isSpace(byte) { return .more }
    if byte == UInt8(ascii: "{") {
      place = .object(.key)
      return .more
    }
    if byte == UInt8(ascii: "["), !isInList {
      isInList = true
      return .more
    }
    guard !isInList, case .announced? = syntax.calls, Self.isNameByte(byte) else { return .bad }
    place = .name
    return .more
  }

  private mutating func list(_ byte: UInt8) -> Result {
    if AnswerParser.isSpace(byte) { return .more }
    if byte == UInt8(ascii: "]") { return .end }
    guard byte == UInt8(ascii: ",") else { return .bad }
    place = .start
    return .more
  }

  // MARK: The name before an object

  private static let nameEnd = Array("[ARGS]".utf8)
  private static let idStart = Array("[CALL_ID]".utf8)

  private static func isNameByte(_ byte: UInt8) -> Bool {
    switch byte {
    case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
      UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "_"), UInt8(ascii: "-"),
      UInt8(ascii: "."):
      true
    default: false
    }
  }

  /// `name{`, `name[ARGS]{` or `name[CALL_ID]id[ARGS]{`.
  private mutating func nameBefore(_ byte: UInt8, _ pieces: inout [AnswerPiece]) -> Result {
    let isMark = byte == UInt8(ascii: "[") || byte == UInt8(ascii: "]")
    guard byte == UInt8(ascii: "{") else {
      let isRight = isMark || Self.isNameByte(byte) || AnswerParser.isSpace(byte)
      return isRight && unread.count < 2 * Self.mostNameBytes ? .more : .bad
    }
    var words = unread[...].drop(while: AnswerParser.isSpace)
    while let last = words.last, AnswerParser.isSpace(last) { words.removeLast() }
    if words.suffix(Self.nameEnd.count).elementsEqual(Self.nameEnd) {
      words.removeLast(Self.nameEnd.count)
    }
    let name = words.prefix(while: Self.isNameByte)
    let rest = words.dropFirst(name.count)
    guard rest.isEmpty || rest.starts(with: Self.idStart),
      accept(String(decoding: name, as: UTF8.self))
    else { return .bad }
    begin(&pieces)
    return argumentsByte(byte, JSONSpan(), &pieces)
  }

  // MARK: Objects

  private mutating func object(
    _ at: ObjectPlace, _ byte: UInt8, _ pieces: inout [AnswerPiece]
  ) -> Result {
    if case .keyText(let span) = at { return key(span, byte) }
    if case .inValue(let span, let member) = at { return value(span, member, byte, &pieces) }
    if AnswerParser.isSpace(byte) { return .more }
    switch at {
    case .key where byte == UInt8(ascii: "\""):
      text = []
      return key(JSONSpan(), byte)
    case .colon where byte == UInt8(ascii: ":"): place = .object(.value)
    case .value:
      text = []
      return value(JSONSpan(), member, byte, &pieces)
    case .afterValue where byte == UInt8(ascii: ","): place = .object(.key)
    case .afterValue where byte == UInt8(ascii: "}"): return endObject(&pieces)
    default: return .bad
    }
    return .more
  }

  /// The key or value that is being read, unless it is given out.
  private var text: [UInt8] = []
  private var member = Member.other

  private mutating func key(_ span: JSONSpan, _ byte: UInt8) -> Result {
    var span = span
    switch span.take(byte) {
    case .more: place = .object(.keyText(span))
    case .bad, .endedBefore: return .bad
    case .end:
      switch Self.string(text + [byte]) {
      case "name" where name == nil: member = .name
      case "arguments" where !hasArguments, "parameters" where !hasArguments: member = .arguments
      case "name", "arguments", "parameters", nil: return .bad
      default: member = .other
      }
      place = .object(.colon)
    }
    text.append(byte)
    return .more
  }

  private mutating func value(
    _ span: JSONSpan, _ member: Member, _ byte: UInt8, _ pieces: inout [AnswerPiece]
  ) -> Result {
    if case .arguments = member { return argumentsByte(byte, span, &pieces) }
    var span = span
    let result = span.take(byte)
    switch result {
    case .bad: return .bad
    case .more: place = .object(.inValue(span, member))
    case .end, .endedBefore:
      place = .object(.afterValue)
      if case .name = member {
        guard result == .end, let name = Self.string(text + [byte]), accept(name) else {
          return .bad
        }
        if hasArguments { begin(&pieces) }
      }
      if result == .endedBefore { return object(.afterValue, byte, &pieces) }
    }
    if case .name = member { text.append(byte) }
    return .more
  }

  /// A byte of the arguments, which are an object; `null` stands for none.
  private mutating func argumentsByte(
    _ byte: UInt8, _ span: JSONSpan, _ pieces: inout [AnswerPiece]
  ) -> Result {
    var span = span
    if !hasArguments {
      guard byte == UInt8(ascii: "{") else { return null(byte, span, &pieces) }
      hasArguments = true
      if name != nil { begin(&pieces) } else { arguments = [] }
    }
    let result = span.take(byte)
    guard result != .bad else { return .bad }
    if hasBegun {
      pieces.add(.arguments(index: callCount - 1, [byte]))
    } else {
      arguments?.append(byte)
    }
    place = .object(result == .end ? .afterValue : .inValue(span, .arguments))
    // Without an object around it, it is complete.
    return result == .end && isNamedBefore ? endObject(&pieces) : .more
  }

  private mutating func null(
    _ byte: UInt8, _ span: JSONSpan, _ pieces: inout [AnswerPiece]
  ) -> Result {
    let null = Array("null".utf8)
    text.append(byte)
    guard null.starts(with: text) else { return .bad }
    var span = span
    _ = span.take(byte)
    place = .object(text == null ? .afterValue : .inValue(span, .arguments))
    return .more
  }

  private var isNamedBefore = false

  // MARK: Calls

  /// Whether it is a name that a call may have.
  private mutating func accept(_ name: String) -> Bool {
    // What names no tool that was offered cannot be called.
    guard syntax.toolNames.contains(name) else { return false }
    self.name = name
    return true
  }

  private mutating func begin(_ pieces: inout [AnswerPiece]) {
    guard !hasBegun, let name else { return }
    if isInName { isNamedBefore = true }
    hasBegun = true
    pieces.append(.call(index: callCount, name: name))
    callCount += 1
    if let arguments { pieces.add(.arguments(index: callCount - 1, arguments)) }
    (before, unread) = ([], [])
  }

  private mutating func endObject(_ pieces: inout [AnswerPiece]) -> Result {
    guard name != nil else { return .bad }
    if !hasArguments { arguments = Array("{}".utf8) }
    begin(&pieces)
    (name, arguments, hasBegun, hasArguments) = (nil, nil, false, false)
    guard isInList else { return .end }
    place = .list
    return .more
  }

  /// A string of JSON as text.
  private static func string(_ json: [UInt8]) -> String? {
    json.withUnsafeBytes { try? JSONParser.parse($0, path: "call").string } ?? nil
  }
}
