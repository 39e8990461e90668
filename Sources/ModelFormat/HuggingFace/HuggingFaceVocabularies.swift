import TensorBasics

/// Vocabularies of a folder without `tokenizer.json`: SentencePiece, tiktoken, tekken, `vocab.json` with `merges.txt`.
///
/// tiktoken's and GPT-2's files do not say how text is cut; the class that reads them does, and is named in
/// `tokenizer_config.json`.
struct HuggingFaceVocabularies {
  private let special: HuggingFaceSpecialTokens

  init(_ special: HuggingFaceSpecialTokens) { self.special = special }

  /// The vocabulary of a folder; nil if it has none of these files.
  func definition(
    _ documents: HuggingFace.Documents
  ) throws(FormatError) -> TokenizerDefinition? {
    if let document = documents.tekken { return try tekken(document) }
    if let document = documents.pieces {
      // Llama 3's file of this name is tiktoken's.
      let isText = document.bytes.prefix(64).contains(0x20) && document.bytes.first != 0x0A
      return isText ? try ranks(document) : try sentencePiece(document)
    }
    if let document = documents.ranks { return try ranks(document) }
    guard let vocabulary = documents.vocabulary else { return nil }
    guard let merges = documents.merges else {
      throw FormatError(
        .unsupported, path: vocabulary.path, "a vocabulary without merges.txt beside it")
    }
    return try pairs(vocabulary, merges)
  }

  // MARK: Files

  private func sentencePiece(
    _ document: HuggingFace.Document
  ) throws(FormatError) -> TokenizerDefinition {
    let model = try SentencePieceModel(document.bytes, path: document.path)
    var definition = try model.definition(path: document.path)
    var tokens = (0..<definition.tokens.count).map { Array(definition.tokens[$0]) }
    try append(special.added(), to: &tokens, kinds: &definition.kinds, document)
    definition.tokens = Self.packed(tokens)
    definition.scores += [Float](repeating: 0, count: tokens.count - definition.scores.count)
    let stated = (definition.bosToken, definition.eosToken)
    special.add(to: &definition, stated: stated, id: Self.finder(tokens))
    return definition
  }

  /// tiktoken's text: a token in Base64 and its rank, a line each.
  private func ranks(_ document: HuggingFace.Document) throws(FormatError) -> TokenizerDefinition {
    var vocabulary = RankedVocabulary()
    var line = 0
    for text in document.bytes.split(separator: 0x0A) {
      line += 1
      let parts = text.split(separator: 0x20)
      guard parts.count == 2, let token = Base64.decode(parts[0]),
        Int(String(decoding: parts[1], as: UTF8.self).trimmingCarriageReturn) == vocabulary.count,
        vocabulary.append(token)
      else {
        throw FormatError(
          .malformed, path: document.path,
          "line \(line) is no token in Base64 with the rank \(vocabulary.count)")
      }
    }
    guard let rules = CuttingRules.ofRanks(special, count: vocabulary.count) else {
      throw unknownClass(document, "tiktoken's files do not say how text is cut")
    }
    return try definition(vocabulary, rules, special.added(), document)
  }

  private func tekken(_ document: HuggingFace.Document) throws(FormatError) -> TokenizerDefinition {
    let root = try document.json()
    func malformed(_ message: String) -> FormatError {
      FormatError(.malformed, at: root.offset, path: document.path, message)
    }
    guard let pattern = root["config"]?["pattern"]?.string, let entries = root["vocab"]?.array,
      let size = root["config"]?["default_vocab_size"]?.integer,
      let specialCount = root["config"]?["default_num_special_tokens"]?.integer,
      (0...1 << 16).contains(specialCount), size >= specialCount, size < 1 << 24
    else { throw malformed("tekken.json without pattern, sizes or vocabulary") }
    var names = (0..<specialCount).map { "<SPECIAL_\($0)>" }
    let listed = root["special_tokens"]?.array ?? []
    for (rank, name) in Self.tekkenNames.enumerated() where listed.isEmpty && rank < specialCount {
      names[rank] = name
    }
    for token in listed {
      guard let rank = token["rank"]?.integer, names.indices.contains(rank),
        let name = token["token_str"]?.string
      else { throw malformed("a special token without a rank or text") }
      names[rank] = name
    }
    var vocabulary = RankedVocabulary()
    for entry in entries.prefix(size - specialCount) {
      guard entry["rank"]?.integer == vocabulary.count,
        let bytes = (entry["token_bytes"]?.string).flatMap({ Base64.decode($0.utf8) }),
        vocabulary.append(bytes)
      else {
        throw FormatError(
          .malformed, at: entry.offset, path: document.path,
          "a token that is not Base64, or not of rank \(vocabulary.count)")
      }
    }
    let rules = CuttingRules(pattern: pattern, specialNames: names, specialsComeFirst: true)
    var result = try definition(vocabulary, rules, [], document)
    let find = { (name: String) in names.firstIndex(of: name) }
    special.add(to: &result, stated: (find("<s>"), find("</s>")), id: find)
    if let bos = result.bosToken, result.pipeline?.prefix.isEmpty == true {
      result.pipeline?.prefix = [bos]
      result.addsBOS = true
    }
    return result
  }

  /// What files of tekken's first version leave out.
  private static let tekkenNames = [
    "<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]",
    "[TOOL_RESULTS]", "[/TOOL_RESULTS]", "[TOOL_CALLS]", "[IMG]", "<pad>", "[IMG_BREAK]",
    "[IMG_END]", "[PREFIX]", "[MIDDLE]", "[SUFFIX]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]",
    "[TOOL_CONTENT]",
  ]

  /// GPT-2's files, in its byte alphabet.
  private func pairs(
    _ vocabulary: HuggingFace.Document, _ merges: HuggingFace.Document
  ) throws(FormatError) -> TokenizerDefinition {
    guard let rules = CuttingRules.ofPairs(special) else {
      throw unknownClass(vocabulary, "vocab.json and merges.txt do not say how text is cut")
    }
    let root = try vocabulary.json()
    var tokens: [[UInt8]] = []
    let members = root.members ?? []
    var kinds: [UInt8] = []
    for member in members {
      guard let id = member.value.integer, (0..<members.count + 65536).contains(id) else {
        throw FormatError(
          .malformed, at: member.value.offset, path: vocabulary.path,
          "token \"\(member.key)\" has an impossible id")
      }
      while tokens.count <= id {
        tokens.append([])
        kinds.append(TokenizerDefinition.TokenKind.unused.rawValue)
      }
      tokens[id] = Array(member.key.utf8)
      kinds[id] = TokenizerDefinition.TokenKind.normal.rawValue
    }
    var packed = PackedStrings()
    for (number, line) in merges.bytes.split(separator: 0x0A).enumerated() {
      if number == 0, line.starts(with: "#version".utf8) { continue }
      let merge = line.last == 0x0D ? line.dropLast() : line
      guard merge.split(separator: 0x20, omittingEmptySubsequences: false).count == 2 else {
        throw FormatError(
          .malformed, path: merges.path, "line \(number + 1) does not join two tokens")
      }
      packed.append(merge)
    }
    return try definition(tokens, kinds, packed, rules, special.added(), vocabulary)
  }

  private func unknownClass(_ document: HuggingFace.Document, _ reason: String) -> FormatError {
    let name = special.className.map { "the class \"\($0)\"" } ?? "a class that is not named"
    return FormatError(
      .unsupported, path: document.path,
      "\(reason), \(name) does, which is not known; a tokenizer.json would be read instead")
  }

  // MARK: What they have in common

  private func definition(
    _ vocabulary: RankedVocabulary, _ rules: CuttingRules,
    _ added: [HuggingFaceSpecialTokens.Added],
    _ document: HuggingFace.Document
  ) throws(FormatError) -> TokenizerDefinition {
    let kind = TokenizerDefinition.TokenKind.normal.rawValue
    return try definition(
      vocabulary.spellings(), [UInt8](repeating: kind, count: vocabulary.count),
      vocabulary.merges(), rules, added, document)
  }

  private func definition(
    _ tokens: [[UInt8]], _ kinds: [UInt8], _ merges: PackedStrings, _ rules: CuttingRules,
    _ added: [HuggingFaceSpecialTokens.Added], _ document: HuggingFace.Document
  ) throws(FormatError) -> TokenizerDefinition {
    var (tokens, kinds) = (tokens, kinds)
    var flags = [UInt8](repeating: 0, count: tokens.count)
    let names = rules.specialNames.map { Array($0.utf8) }
    let control = TokenizerDefinition.TokenKind.control.rawValue
    let flag = AddedTokenFlags([.added, .outsideModel]).rawValue
    if rules.specialsComeFirst {
      tokens = names + tokens
      kinds = names.map { _ in control } + kinds
      flags = names.map { _ in flag } + flags
    } else {
      tokens += names
      kinds += names.map { _ in control }
      flags += names.map { _ in flag }
    }
    let modelCount = tokens.count - (rules.specialsComeFirst ? 0 : names.count)
    try append(added, to: &tokens, kinds: &kinds, document)
    flags += [UInt8](repeating: 0, count: tokens.count - flags.count)
    for token in added {
      var found = AddedTokenFlags(token.value)
      if token.id >= modelCount { found.insert(.outsideModel) }
      flags[token.id] = found.rawValue
    }
    var pipeline = TokenizerPipeline()
    if rules.composes { pipeline.normalizers = [.unicode(form: .nfc)] }
    pipeline.preTokenizers = [
      .split(pattern: .regex(rules.pattern), behavior: .isolated, inverted: false), .byteLevel,
    ]
    if rules.addsSpace { pipeline.preTokenizers.insert(.spacePrefix, at: 0) }
    pipeline.ignoresMerges = rules.keepsWhole
    var definition = TokenizerDefinition(
      model: .bytePairs, tokens: Self.packed(tokens), kinds: kinds, merges: merges,
      addsSpacePrefix: false)
    definition.addedFlags = flags
    definition.pipeline = pipeline
    special.add(to: &definition, id: Self.finder(tokens))
    return definition
  }

  /// Puts added tokens at their ids, beyond the vocabulary or over what it has there.
  private func append(
    _ added: [HuggingFaceSpecialTokens.Added], to tokens: inout [[UInt8]], kinds: inout [UInt8],
    _ document: HuggingFace.Document
  ) throws(FormatError) {
    let limit = tokens.count + 65536
    for token in added {
      guard token.id < limit, token.id >= 0 else {
        throw FormatError(
          .malformed, at: token.value.offset, path: document.path,
          "added token \"\(token.content)\" has the impossible id \(token.id)")
      }
      while tokens.count <= token.id {
        tokens.append(Array("[PAD\(tokens.count)]".utf8))
        kinds.append(TokenizerDefinition.TokenKind.unused.rawValue)
      }
      tokens[token.id] = Array(token.content.utf8)
      let isUnknown = kinds[token.id] == TokenizerDefinition.TokenKind.unknown.rawValue
      if isUnknown { continue }
      let isSpecial = token.value["special"]?.bool == true
      kinds[token.id] =
        (isSpecial ? TokenizerDefinition.TokenKind.control : .userDefined).rawValue
    }
  }

  private static func packed(_ tokens: [[UInt8]]) -> PackedStrings {
    var packed = PackedStrings()
    packed.reserveCapacity(strings: tokens.count, bytes: tokens.reduce(0) { $0 + $1.count })
    for token in tokens { packed.append(token) }
    return packed
  }

  private static func finder(_ tokens: [[UInt8]]) -> (String) -> Int? {
    { name in tokens.lastIndex(of: Array(name.utf8)) }
  }
}

extension String {
  fileprivate var trimmingCarriageReturn: String { hasSuffix("\r") ? String(dropLast()) : self }
}

/// How the code that reads a vocabulary cuts text, and the tokens it adds.
struct CuttingRules {
  var pattern: String
  /// Special tokens, in the order of their ids.
  var specialNames: [String] = []
  /// Whether they have the lowest ids.
  var specialsComeFirst = false
  /// NFC before everything.
  var composes = false
  var addsSpace = false
  /// A piece that is a token stays whole, as in tiktoken.
  var keepsWhole = true

  private static let head = #"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"#
  private static let tail = #"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"#
  private static let qwen = head + tail
  private static let llama3 = head + "{1,3}" + tail

  private static let kimi: String = {
    let ending = "(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    let upper = #"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]"#
    let lower = #"[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]"#
    let start = #"[^\r\n\p{L}\p{N}]?"#
    return #"[\p{Han}]+|"# + start + upper + "*" + lower + "+" + ending + "|" + start + upper + "+"
      + lower + "*" + ending + #"|\p{N}{1,3}"# + tail
  }()

  /// The rules of a folder with tiktoken's ranks; nil where they are not known.
  static func ofRanks(_ special: HuggingFaceSpecialTokens, count: Int) -> CuttingRules? {
    switch special.className {
    case "QWenTokenizer":
      let names = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
      return CuttingRules(
        pattern: qwen, specialNames: names + (0..<205).map { "<|extra_\($0)|>" }, composes: true)
    case "TikTokenTokenizer": return CuttingRules(pattern: kimi)
    default: break
    }
    guard special.architecture == "LlamaForCausalLM", count == 128_000 else { return nil }
    let first = [
      "<|begin_of_text|>", "<|end_of_text|>", "<|reserved_special_token_0|>",
      "<|reserved_special_token_1|>", "<|finetune_right_pad_id|>", "<|step_id|>",
      "<|start_header_id|>", "<|end_header_id|>", "<|eom_id|>", "<|eot_id|>", "<|python_tag|>",
      "<|image|>",
    ]
    let names = first + (2..<246).map { "<|reserved_special_token_\($0)|>" }
    return CuttingRules(pattern: llama3, specialNames: names)
  }

  /// The rules of a folder with GPT-2's files; nil where they are not known.
  static func ofPairs(_ special: HuggingFaceSpecialTokens) -> CuttingRules? {
    let addsSpace = special.settings?["add_prefix_space"]?.bool ?? false
    let gpt2 = CuttingRules(
      pattern: HuggingFaceTokenizerSteps.gpt2, addsSpace: addsSpace, keepsWhole: false)
    let qwen2 = CuttingRules(pattern: qwen, composes: true, keepsWhole: false)
    switch special.className {
    case "GPT2Tokenizer", "GPT2TokenizerFast", "CodeGenTokenizer", "CodeGenTokenizerFast":
      return gpt2
    case "Qwen2Tokenizer", "Qwen2TokenizerFast": return qwen2
    case nil: break
    default: return nil
    }
    switch special.architecture {
    case "OPTForCausalLM": return gpt2
    case let name? where name.hasPrefix("Qwen"): return qwen2
    default: return nil
    }
  }
}
