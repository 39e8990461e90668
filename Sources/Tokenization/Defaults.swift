import ModelFormat

/// What holds for a kind of vocabulary where its file does not say otherwise.
struct Defaults {
  var spelling = Vocabulary.Spelling.escapedSpaces
  /// The pre-tokenizer; byte-pair vocabularies only.
  var rule: PreTokenizerRule?
  var bos: Int?
  var eos: Int?
  var unknown: Int?
  var addsBOS = false
  var forcesBOS = false
  var addsEOS = false
  var addsSpacePrefix = false

  init(_ definition: borrowing TokenizerDefinition) throws(TokenizerError) {
    switch definition.model {
    case .byteLevelBPE:
      guard let name = definition.preTokenizer, !name.isEmpty else { throw .missingPreTokenizer }
      apply(try PreTokenizerRule.named(name))
    case .spacedBPE:
      apply(try PreTokenizerRule.named("gemma4"))
    case .sentencePieceBPE:
      (bos, eos, unknown) = (1, 2, 0)
      addsBOS = true
      addsSpacePrefix = true
    case .bytePairs, .unigramPieces:
      // A folder says all of it.
      spelling = definition.pipeline?.isByteLevel == true ? .bytes : .escapedSpaces
    case .unigram:
      (eos, unknown) = (1, 2)
      addsEOS = true
    }
  }

  private mutating func apply(_ rule: PreTokenizerRule) {
    self.rule = rule
    spelling = rule.options.contains(.escapesSpaces) ? .escapedSpaces : .bytes
    addsBOS = rule.options.contains(.addsBOS)
    forcesBOS = rule.options.contains(.forcesBOS)
  }
}
