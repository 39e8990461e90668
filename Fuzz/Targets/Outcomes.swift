import ModelFormat
import TensorBasics

/// What a parser made of an input, in a form that can be compared.
enum Outcome<Value> {
  case complete(Value)
  case needsMore(Int)
  case refused(FormatError)

  init(_ parse: () throws(FormatError) -> ParseProgress<Value>) {
    do throws(FormatError) {
      switch try parse() {
      case .complete(let value): self = .complete(value)
      case .needsMore(let byteCount): self = .needsMore(byteCount)
      }
    } catch { self = .refused(error) }
  }

  var value: Value? { if case .complete(let value) = self { value } else { nil } }

  /// Checks what holds of every outcome: errors say something, and more than there is asks for more.
  func check(prefixByteCount: Int, fileByteCount: Int) throws(FuzzFinding) {
    switch self {
    case .complete: break
    case .needsMore(let byteCount):
      try require(
        byteCount > prefixByteCount && byteCount <= fileByteCount,
        "\(byteCount) bytes wanted of \(fileByteCount), having \(prefixByteCount)")
    case .refused(let error):
      try require(!error.message.isEmpty, "an error without a message")
      try require(error.path == "fuzz", "an error without its file: \(error)")
      try require(
        error.description.utf8.count < 4096, "an error of \(error.description.utf8.count) bytes")
    }
  }
}

extension ModelDescription {
  /// Checks that all tensors and extents lie in a file of this length.
  func checkPlaces(fileByteCount: Int) throws(FuzzFinding) {
    for tensor in tensors {
      let span = tensor.byteSpan
      try require(
        span.lowerBound >= 0 && span.upperBound <= fileByteCount && tensor.byteCount >= 0,
        "tensor \(tensor.name) lies at \(span) in a file of \(fileByteCount) bytes")
      try require(
        tensor.columnCount > 0 && tensor.rowCount > 0, "tensor \(tensor.name) has no elements")
    }
    for extent in extents {
      try require(
        extent.offset >= 0 && extent.byteCount > 0
          && extent.byteCount <= fileByteCount - extent.offset,
        "extent at \(extent.offset) does not lie in the file")
    }
  }

  /// Checks that `other` says the same.
  func checkEqual(_ other: ModelDescription, _ what: String) throws(FuzzFinding) {
    try require(
      configuration == other.configuration && tensors == other.tensors && extents == other.extents
        && name == other.name && chatTemplate == other.chatTemplate
        && sourceIdentity == other.sourceIdentity && tokenizerProblem == other.tokenizerProblem,
      "\(what): another description")
    let (own, others) = (tokenizer, other.tokenizer)
    try require(
      own?.tokens.bytes == others?.tokens.bytes && own?.tokens.offsets == others?.tokens.offsets
        && own?.merges.bytes == others?.merges.bytes && own?.kinds == others?.kinds
        && own?.scores.map(\.bitPattern) == others?.scores.map(\.bitPattern)
        && own?.bosToken == others?.bosToken && own?.eosToken == others?.eosToken
        && own?.preTokenizer == others?.preTokenizer && own?.pipeline == others?.pipeline
        && own?.addedFlags == others?.addedFlags && own?.stopTokens == others?.stopTokens
        && own?.model == others?.model,
      "\(what): another tokenizer")
  }
}
