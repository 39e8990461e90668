import TensorBasics

/// The binary tokenizer section (`docs/format.md`, section 4): arrays one after the other, so that a
/// vocabulary of a quarter of a million tokens loads at the speed of copying it.
extension FlashImageHeader.Tokenizer {
  /// Describes the section of `definition`; offset and checksum are filled in later.
  init(_ definition: TokenizerDefinition) {
    model = definition.model
    preTokenizer = definition.preTokenizer
    pipeline = definition.pipeline
    stopTokens = definition.stopTokens.isEmpty ? nil : definition.stopTokens
    bosToken = definition.bosToken
    eosToken = definition.eosToken
    eotToken = definition.eotToken
    unknownToken = definition.unknownToken
    addsBOS = definition.addsBOS
    addsEOS = definition.addsEOS
    addsSpacePrefix = definition.addsSpacePrefix
    removesExtraWhitespace = definition.removesExtraWhitespace
    tokenCount = definition.tokens.count
    tokenByteCount = definition.tokens.bytes.count
    mergeCount = definition.merges.count
    mergeByteCount = definition.merges.bytes.count
    hasScores = !definition.scores.isEmpty
    hasKinds = !definition.kinds.isEmpty
    hasFlags = definition.addedFlags.isEmpty ? nil : true
    offset = 0
    byteCount = 0
    checksum = HexChecksum(0)
    byteCount = sectionByteCount
  }

  /// Length of the section that the counts make.
  var sectionByteCount: Int {
    4 * (tokenCount + 1) + (hasScores ? 4 * tokenCount : 0) + 4 * (mergeCount + 1)
      + (hasKinds ? tokenCount : 0) + (hasFlags == true ? tokenCount : 0) + tokenByteCount
      + mergeByteCount
  }

  /// The section's bytes.
  static func section(_ definition: TokenizerDefinition) -> [UInt8] {
    var bytes: [UInt8] = []
    bytes.reserveCapacity(Self(definition).sectionByteCount)
    for offset in definition.tokens.offsets { bytes.appendLittleEndian(offset) }
    for score in definition.scores { bytes.appendLittleEndian(score.bitPattern) }
    for offset in definition.merges.offsets { bytes.appendLittleEndian(offset) }
    bytes += definition.kinds
    bytes += definition.addedFlags
    bytes += definition.tokens.bytes
    bytes += definition.merges.bytes
    return bytes
  }

  /// Checks counts against the file before anything is allocated for them.
  func validate(fileByteCount: Int, path: String) throws(FormatError) {
    let counts = [tokenCount, tokenByteCount, mergeCount, mergeByteCount, offset, byteCount]
    let limit = FlashImage.tokenizerByteLimit
    guard counts.allSatisfy({ $0 >= 0 }), byteCount <= limit,
      [tokenCount, tokenByteCount, mergeCount, mergeByteCount].allSatisfy({ $0 <= byteCount }),
      byteCount == sectionByteCount
    else {
      throw FormatError(
        .malformed, path: path, "the tokenizer section's length does not follow from its counts")
    }
    guard offset % FlashImage.alignment == 0, offset <= fileByteCount,
      byteCount <= fileByteCount - offset
    else {
      throw FormatError(
        .malformed, at: offset, path: path, "the tokenizer section does not lie in the file")
    }
  }

  /// Reads the section, whose length ``validate(fileByteCount:path:)`` has checked.
  func definition(
    _ section: UnsafeRawBufferPointer, path: String
  ) throws(FormatError) -> TokenizerDefinition {
    guard Checksum.of(section) == checksum.value else {
      throw FormatError(
        .checksumMismatch, at: offset, path: path, "the tokenizer section is damaged (checksum)")
    }
    var place = 0
    func take(_ count: Int) -> UnsafeRawBufferPointer {
      defer { place += count }
      return UnsafeRawBufferPointer(rebasing: section[place..<place + count])
    }
    let tokenOffsets = take(4 * (tokenCount + 1))
    let scores = take(hasScores ? 4 * tokenCount : 0)
    let mergeOffsets = take(4 * (mergeCount + 1))
    let kinds = take(hasKinds ? tokenCount : 0)
    let flags = take(hasFlags == true ? tokenCount : 0)
    let tokens = try strings(tokenOffsets, take(tokenByteCount), path)
    let merges = try strings(mergeOffsets, take(mergeByteCount), path)
    var definition = TokenizerDefinition(
      model: model, preTokenizer: preTokenizer, tokens: tokens,
      scores: (0..<scores.count / 4).map { Float(bitPattern: word(scores, $0)) },
      kinds: [UInt8](kinds), merges: merges, bosToken: bosToken, eosToken: eosToken,
      eotToken: eotToken, unknownToken: unknownToken, addsBOS: addsBOS, addsEOS: addsEOS,
      addsSpacePrefix: addsSpacePrefix, removesExtraWhitespace: removesExtraWhitespace)
    definition.pipeline = pipeline
    definition.stopTokens = stopTokens ?? []
    definition.addedFlags = [UInt8](flags)
    return definition
  }

  private func word(_ bytes: UnsafeRawBufferPointer, _ index: Int) -> UInt32 {
    UInt32(littleEndian: bytes.loadUnaligned(fromByteOffset: 4 * index, as: UInt32.self))
  }

  private func strings(
    _ offsets: UnsafeRawBufferPointer, _ bytes: UnsafeRawBufferPointer, _ path: String
  ) throws(FormatError) -> PackedStrings {
    let count = offsets.count / 4 - 1
    var strings = PackedStrings()
    strings.reserveCapacity(strings: count, bytes: bytes.count)
    var start = Int(word(offsets, 0))
    guard start == 0, Int(word(offsets, count)) == bytes.count else {
      throw FormatError(
        .malformed, at: offset, path: path, "tokenizer strings do not fill their bytes")
    }
    for index in 0..<count {
      let end = Int(word(offsets, index + 1))
      guard end >= start, end <= bytes.count else {
        throw FormatError(
          .malformed, at: offset, path: path, "tokenizer string \(index) ends before it begins")
      }
      strings.append(UnsafeRawBufferPointer(rebasing: bytes[start..<end]))
      start = end
    }
    return strings
  }
}
