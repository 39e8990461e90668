import ModelFormat
import TensorBasics

/// The tokens of a model: their bytes, what they are, and which token some bytes are.
///
/// A token's string is what stands for it in text: for byte-level vocabularies the bytes its spelling
/// encodes, otherwise the spelling itself with `▁` for spaces. Strings beyond the tokens ("extra")
/// are sides of merges that are no token, and second spellings.
struct Vocabulary: Sendable {
  /// How spellings encode text.
  enum Spelling: Sendable {
    /// GPT-2's byte alphabet.
    case bytes
    /// UTF-8 with `▁` for spaces, `<0xXX>` for bytes.
    case escapedSpaces
  }

  /// `▁`, U+2581.
  static let escapedSpace: [UInt8] = [0xE2, 0x96, 0x81]

  let spelling: Spelling
  /// Number of tokens; strings from here on are extra.
  let count: Int
  private(set) var strings: StringIndex
  let attributes: [TokenAttributes]
  /// Tokens that end an answer, ascending.
  let endTokens: [Int32]
  /// Token of each extra string, -1 for none.
  private var extraTokens: [Int32] = []
  /// Token that stands for each byte, -1 if there is none.
  private(set) var byteTokens = [Int32](repeating: -1, count: 256)

  /// - Parameters:
  ///   - stripsRight: Phi-3's rule for special tokens.
  ///   - stated: the ends of answers that the file names.
  /// - Throws: `invalidVocabulary` for no tokens, too many, or lists of unequal length.
  init(
    _ definition: borrowing TokenizerDefinition, spelling: Spelling, stripsRight: Bool,
    stated: [Int]
  ) throws(TokenizerError) {
    self.spelling = spelling
    count = definition.tokens.count
    guard count > 0, count < Int(Int32.max) else {
      throw .invalidVocabulary("it has \(count) tokens")
    }
    guard definition.kinds.isEmpty || definition.kinds.count >= count else {
      throw .invalidVocabulary("\(definition.kinds.count) token types for \(count) tokens")
    }
    var attributes =
      definition.kinds.isEmpty
      ? [TokenAttributes](repeating: .normal, count: count)
      : definition.kinds.prefix(count).map { TokenAttributes(kind: $0) }
    let spelled = SpelledTokens(in: definition)
    endTokens = spelled.resolve(&attributes, stated: stated)
    for (id, flags) in definition.addedFlags.prefix(count).enumerated()
    where AddedTokenFlags(rawValue: flags).contains(.outsideModel) {
      attributes[id].insert(.outside)
    }
    if stripsRight { spelled.stripRightOfSpecial(&attributes) }
    self.attributes = attributes

    switch spelling {
    case .escapedSpaces:
      strings = StringIndex(definition.tokens)
      for id in 0..<count where strings.byteCount(of: UInt32(id)) > 0 { strings.enter(UInt32(id)) }
    case .bytes:
      strings = StringIndex(PackedStrings())
      enterBytes(of: definition.tokens)
    }
    findByteTokens()
  }

  /// Enters tokens spelt in the byte alphabet as the bytes they stand for.
  private mutating func enterBytes(of tokens: PackedStrings) {
    var decoded = PackedStrings()
    decoded.reserveCapacity(strings: tokens.count, bytes: tokens.bytes.count)
    var isText = [Bool](repeating: false, count: count)
    var second: [(id: Int, bytes: [UInt8])] = []
    var bytes: [UInt8] = []
    for id in 0..<count {
      bytes.removeAll(keepingCapacity: true)
      let isDecodable = ByteAlphabet.decode(tokens[id], into: &bytes)
      let isLiteral = !attributes[id].isDisjoint(with: .special.union(.byte))
      if isDecodable, !isLiteral || tokens[id].elementsEqual(bytes) {
        decoded.append(bytes)
        isText[id] = !bytes.isEmpty
      } else {
        // A special token is written as it is spelt, whatever that says in the byte alphabet.
        decoded.append(tokens[id])
        if isDecodable { second.append((id, bytes)) }
      }
    }
    strings = StringIndex(decoded)
    for id in 0..<count where isText[id] { strings.enter(UInt32(id)) }
    for (id, bytes) in second {
      _ = strings.append(bytes)
      extraTokens.append(Int32(id))
    }
  }

  private mutating func findByteTokens() {
    for byte in 0..<256 {
      var token = StringIndex.none
      if spelling == .escapedSpaces {
        token = Self.byteSpelling(UInt8(byte)).withUnsafeBufferPointer { strings.find($0) }
      }
      if token == StringIndex.none {
        token = [UInt8(byte)].withUnsafeBufferPointer { strings.find($0) }
      }
      byteTokens[byte] = self.token(of: token)
    }
  }

  /// `<0xXX>`.
  private static func byteSpelling(_ byte: UInt8) -> [UInt8] {
    let digits = Array("0123456789ABCDEF".utf8)
    return Array("<0x".utf8) + [digits[Int(byte >> 4)], digits[Int(byte & 15)]] + Array(">".utf8)
  }

  /// Makes bytes findable that are a side of a merge, and returns their string's number.
  mutating func internSide(_ bytes: ArraySlice<UInt8>) -> UInt32 {
    let found = bytes.withUnsafeBufferPointer { strings.find($0) }
    if found != StringIndex.none { return found }
    extraTokens.append(-1)
    return strings.append(bytes)
  }

  /// The token with this string number, -1 for none.
  func token(of number: UInt32) -> Int32 {
    if number == StringIndex.none { return -1 }
    return number < count ? Int32(number) : extraTokens[Int(number) - count]
  }

  /// Appends the token with this string number or, if there is none or only a control token, those of
  /// its bytes.
  ///
  /// - Parameter unknown: token for a byte that has none; -1 leaves it out.
  func appendTokens(
    of number: UInt32, _ bytes: UnsafeBufferPointer<UInt8>, unknown: Int32,
    to output: inout [Int32]
  ) {
    let token = token(of: number)
    if token >= 0, attributes[Int(token)].isDisjoint(with: .hidden) {
      output.append(token)
      return
    }
    for byte in bytes {
      let token = byteTokens[Int(byte)] >= 0 ? byteTokens[Int(byte)] : unknown
      if token >= 0 { output.append(token) }
    }
  }

  /// What becomes of characters without a token, in a Hugging Face folder.
  struct Fallback: Sendable {
    /// -1 leaves them out.
    var unknown: Int32
    /// Whether the tokens of their bytes stand for them, if all have one.
    var usesBytes: Bool
    /// Whether neighbours are one unknown token.
    var fuses: Bool
  }

  /// Appends the token with this string number or else what `fallback` says.
  ///
  /// - Parameter followsUnknown: whether the token before stands for unknown characters; updated.
  func appendTokens(
    of number: UInt32, _ bytes: UnsafeBufferPointer<UInt8>, _ fallback: Fallback,
    followsUnknown: inout Bool, to output: inout [Int32]
  ) {
    let token = token(of: number)
    if token >= 0, attributes[Int(token)].isDisjoint(with: .unreachable) {
      output.append(token)
      followsUnknown = false
      return
    }
    let isSpelled = spelling == .bytes && (bytes.count > 1 || token < 0)
    if isSpelled || fallback.usesBytes, bytes.allSatisfy({ byteTokens[Int($0)] >= 0 }) {
      for byte in bytes { output.append(byteTokens[Int(byte)]) }
      followsUnknown = false
    } else if fallback.unknown >= 0 {
      if !(followsUnknown && fallback.fuses) { output.append(fallback.unknown) }
      followsUnknown = true
    }
  }

  /// Appends what `token` stands for; nothing for unused tokens and unknown ids.
  ///
  /// - Parameter includesHidden: whether control and unknown tokens are written as they are spelt.
  func append(_ token: Int32, to output: inout [UInt8], includesHidden: Bool) {
    guard token >= 0, token < count else { return }
    let attributes = attributes[Int(token)]
    let string = strings[UInt32(token)]
    if !attributes.isDisjoint(with: .special) {
      if includesHidden || attributes.isDisjoint(with: .hidden) {
        output.append(contentsOf: string)
      }
    } else if attributes.contains(.byte) {
      if let byte = Self.byte(spelled: string) {
        output.append(byte)
      } else {
        output.append(contentsOf: string)
      }
    } else if attributes.contains(.normal) {
      if spelling == .bytes {
        output.append(contentsOf: string)
      } else {
        Self.appendUnescaped(string, to: &output)
      }
    }
  }

  /// The byte that a spelling `<0xXX>` names.
  private static func byte(spelled string: ArraySlice<UInt8>) -> UInt8? {
    guard string.count == 6, string.starts(with: [0x3C, 0x30, 0x78]), string.last == 0x3E else {
      return nil
    }
    var value: UInt8 = 0
    for digit in string.dropFirst(3).prefix(2) {
      switch digit {
      case 0x30...0x39: value = value << 4 | (digit - 0x30)
      case 0x41...0x46: value = value << 4 | (digit - 0x41 + 10)
      case 0x61...0x66: value = value << 4 | (digit - 0x61 + 10)
      default: return nil
      }
    }
    return value
  }

  /// Appends `string` with a space for every `▁`.
  private static func appendUnescaped(_ string: ArraySlice<UInt8>, to output: inout [UInt8]) {
    var index = string.startIndex
    while index < string.endIndex {
      if string[index] == 0xE2, index + 2 < string.endIndex, string[index + 1] == 0x96,
        string[index + 2] == 0x81
      {
        output.append(0x20)
        index += 3
      } else {
        output.append(string[index])
        index += 1
      }
    }
  }
}
