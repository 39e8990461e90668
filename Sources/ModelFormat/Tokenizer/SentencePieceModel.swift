import TensorBasics

/// Reads SentencePiece's `tokenizer.model`, a Protocol Buffers message.
struct SentencePieceModel {
  private(set) var tokens: [[UInt8]] = []
  private(set) var scores: [Float] = []
  private(set) var kinds: [UInt8] = []
  /// 1 unigram, 2 BPE, 3 words, 4 characters.
  private(set) var kind = 1
  private(set) var unknown = 0
  private(set) var bos = 1
  private(set) var eos = 2
  private(set) var addsSpacePrefix = true
  private(set) var removesExtraWhitespace = true
  private(set) var escapesSpaces = true
  private(set) var putsSpacesAfter = false
  private(set) var hasCharacterMap = false

  /// - Throws: ``FormatError``.
  init(_ bytes: [UInt8], path: String) throws(FormatError) {
    var message = ProtocolBuffer(bytes[...], path: path)
    while let field = try message.next() {
      switch (field.number, field.value) {
      case (1, .bytes(let piece)): try readPiece(ProtocolBuffer(piece, path: path))
      case (2, .bytes(let trainer)): try readTrainer(ProtocolBuffer(trainer, path: path))
      case (3, .bytes(let normalizer)): try readNormalizer(ProtocolBuffer(normalizer, path: path))
      default: break
      }
    }
    guard !tokens.isEmpty else {
      throw FormatError(.malformed, path: path, "a SentencePiece model without pieces")
    }
  }

  private mutating func readPiece(_ piece: ProtocolBuffer) throws(FormatError) {
    var message = piece
    var (token, score, kind) = ([UInt8](), Float(0), 1)
    while let field = try message.next() {
      switch (field.number, field.value) {
      case (1, .bytes(let text)): token = Array(text)
      case (2, .word(let bits)): score = Float(bitPattern: bits)
      case (3, .integer(let value)): kind = value
      default: break
      }
    }
    guard let kind = UInt8(exactly: kind), TokenizerDefinition.TokenKind(rawValue: kind) != nil
    else { throw message.error("piece \(tokens.count) is of the unknown type \(kind)") }
    tokens.append(token)
    scores.append(score)
    kinds.append(kind)
  }

  private mutating func readTrainer(_ trainer: ProtocolBuffer) throws(FormatError) {
    var message = trainer
    while let field = try message.next() {
      guard case .integer(let value) = field.value else { continue }
      switch field.number {
      case 3: kind = value
      case 24: putsSpacesAfter = value != 0
      case 40: unknown = value
      case 41: bos = value
      case 42: eos = value
      default: break
      }
    }
  }

  private mutating func readNormalizer(_ normalizer: ProtocolBuffer) throws(FormatError) {
    var message = normalizer
    while let field = try message.next() {
      switch (field.number, field.value) {
      case (2, .bytes(let map)): hasCharacterMap = !map.isEmpty
      case (3, .integer(let value)): addsSpacePrefix = value != 0
      case (4, .integer(let value)): removesExtraWhitespace = value != 0
      case (5, .integer(let value)): escapesSpaces = value != 0
      default: break
      }
    }
  }

  /// The tokenizer; of kind `unsupported` where it does what no ``TokenizerDefinition`` can say.
  func definition(path: String) throws(FormatError) -> TokenizerDefinition {
    func refuse(_ reason: String) -> FormatError { FormatError(.unsupported, path: path, reason) }
    guard kind == 1 || kind == 2 else {
      throw refuse("a SentencePiece model of words or characters; unigram and BPE are supported")
    }
    if hasCharacterMap { throw refuse("a SentencePiece model that normalises by a map of its own") }
    if putsSpacesAfter || !escapesSpaces {
      throw refuse("a SentencePiece model that does not write spaces as ▁ before words")
    }
    if kind == 2, removesExtraWhitespace {
      throw refuse("a SentencePiece model of BPE that removes repeated spaces")
    }
    var packed = PackedStrings()
    for token in tokens { packed.append(token) }
    func valid(_ id: Int) -> Int? { tokens.indices.contains(id) ? id : nil }
    return TokenizerDefinition(
      model: kind == 2 ? .sentencePieceBPE : .unigram, tokens: packed, scores: scores, kinds: kinds,
      bosToken: valid(bos), eosToken: valid(eos), unknownToken: valid(unknown),
      addsBOS: kind == 2, addsEOS: false, addsSpacePrefix: addsSpacePrefix,
      removesExtraWhitespace: removesExtraWhitespace)
  }
}

/// Fields of a Protocol Buffers message, one after the other.
struct ProtocolBuffer {
  enum Value {
    case integer(Int)
    case word(UInt32)
    case long
    case bytes(ArraySlice<UInt8>)
  }

  private var rest: ArraySlice<UInt8>
  private let path: String

  init(_ bytes: ArraySlice<UInt8>, path: String) {
    rest = bytes
    self.path = path
  }

  func error(_ message: String) -> FormatError {
    FormatError(.malformed, at: rest.startIndex, path: path, message)
  }

  /// The next field; nil at the end.
  mutating func next() throws(FormatError) -> (number: Int, value: Value)? {
    if rest.isEmpty { return nil }
    let key = try varint()
    switch key & 7 {
    case 0: return (key >> 3, .integer(try varint()))
    case 1:
      _ = try take(8)
      return (key >> 3, .long)
    case 2: return (key >> 3, .bytes(try take(try varint())))
    case 5:
      let bytes = try take(4)
      return (key >> 3, .word(bytes.reversed().reduce(0) { $0 << 8 | UInt32($1) }))
    default: throw error("a field of unknown type \(key & 7)")
    }
  }

  private mutating func varint() throws(FormatError) -> Int {
    var value: UInt64 = 0
    for shift in stride(from: UInt64(0), to: 64, by: 7) {
      guard let byte = rest.popFirst() else { break }
      value |= UInt64(byte & 0x7F) << shift
      if byte < 0x80 { return Int(truncatingIfNeeded: value) }
    }
    throw error("a number that does not end")
  }

  private mutating func take(_ count: Int) throws(FormatError) -> ArraySlice<UInt8> {
    guard count >= 0, count <= rest.count else {
      throw error("a field that reaches beyond its message")
    }
    defer { rest = rest.dropFirst(count) }
    return rest.prefix(count)
  }
}
