/// Reads the steps of a `tokenizer.json` into a ``TokenizerPipeline``.
///
/// A step, and a field of a step, that is not known is refused by name: a tokenizer that is nearly right yields
/// answers that are nearly right.
struct HuggingFaceTokenizerSteps {
  private let path: String
  private(set) var pipeline = TokenizerPipeline()
  /// Whether the first space of a decoded text is the tokenizer's own.
  private(set) var stripsFirstSpace = false

  private typealias Pre = TokenizerPipeline.PreTokenizer

  init(_ root: JSONValue, path: String) throws(FormatError) {
    self.path = path
    for step in try steps(of: root["normalizer"], list: "normalizers") { try normalizer(step) }
    for step in try steps(of: root["pre_tokenizer"], list: "pretokenizers") {
      try preTokenizer(step)
    }
    guard root["decoder"] != nil else {
      stripsFirstSpace = prependsSpace
      return
    }
    for step in try steps(of: root["decoder"], list: "decoders") { try decoder(step) }
  }

  /// Whether a ▁ that the text does not have is put before it.
  private var prependsSpace: Bool {
    pipeline.normalizers.contains(.prepend(text: "▁"))
      || pipeline.preTokenizers.contains {
        if case .metaspace(_, let prepending) = $0 { prepending != .never } else { false }
      }
  }

  private func error(
    _ kind: FormatError.Kind, _ value: JSONValue, _ message: String
  ) -> FormatError {
    FormatError(kind, at: value.offset, path: path, message)
  }

  // MARK: Steps and their fields

  private struct Step {
    let value: JSONValue
    let type: String
  }

  /// A step, or those of a sequence, of sequences too.
  private func steps(
    of value: JSONValue?, list: StaticString, depth: Int = 0
  ) throws(FormatError) -> [Step] {
    guard let value else { return [] }
    guard let type = value["type"]?.string, depth < 16 else {
      throw error(.malformed, value, "a step of the tokenizer without a type, or nested too deep")
    }
    guard type == "Sequence" else { return [Step(value: value, type: type)] }
    try HuggingFaceFields.check(value, "Sequence", ["type", "\(list)"], path: path)
    guard let inner = value[list]?.array else {
      throw error(.malformed, value, "a Sequence without \"\(list)\"")
    }
    var result: [Step] = []
    for step in inner { result += try steps(of: step, list: list, depth: depth + 1) }
    return result
  }

  private func check(_ step: Step, _ fields: [String]) throws(FormatError) {
    try HuggingFaceFields.check(step.value, step.type, ["type"] + fields, path: path)
  }

  private func flag(
    _ step: Step, _ key: StaticString, default value: Bool
  ) throws(FormatError) -> Bool {
    guard let found = step.value[key] else { return value }
    guard let flag = found.bool else {
      throw error(.malformed, found, "\"\(key)\" of \(step.type) is \(found.found)")
    }
    return flag
  }

  private func text(_ step: Step, _ key: StaticString) throws(FormatError) -> String {
    guard let text = step.value[key]?.string else {
      throw error(.malformed, step.value, "\(step.type) without \"\(key)\"")
    }
    return text
  }

  private func character(_ step: Step, _ key: StaticString) throws(FormatError) -> String {
    let text = try text(step, key)
    guard text.unicodeScalars.count == 1 else {
      throw error(.malformed, step.value, "\"\(key)\" of \(step.type) is not one character")
    }
    return text
  }

  private func pattern(_ step: Step) throws(FormatError) -> TokenizerPipeline.Pattern {
    guard let pattern = step.value["pattern"] else {
      throw error(.malformed, step.value, "\(step.type) without \"pattern\"")
    }
    try HuggingFaceFields.check(pattern, "a pattern", ["String", "Regex"], path: path)
    if let text = pattern["String"]?.string { return .text(text) }
    guard let expression = pattern["Regex"]?.string else {
      throw error(.malformed, pattern, "a pattern is a String or a Regex")
    }
    return .regex(expression)
  }

  private func behavior(_ step: Step) throws(FormatError) -> TokenizerPipeline.Behavior {
    let known: [String: TokenizerPipeline.Behavior] = [
      "Isolated": .isolated, "Removed": .removed, "MergedWithPrevious": .mergedWithPrevious,
      "MergedWithNext": .mergedWithNext, "Contiguous": .contiguous,
    ]
    let name = try text(step, "behavior")
    guard let behavior = known[name] else {
      throw error(.unsupported, step.value, "the behaviour \"\(name)\" is not known")
    }
    return behavior
  }

  // MARK: Normalisers

  private mutating func normalizer(_ step: Step) throws(FormatError) {
    let form = TokenizerPipeline.Form(rawValue: step.type.lowercased())
    switch step.type {
    case "NFC", "NFD", "NFKC", "NFKD":
      try check(step, [])
      pipeline.normalizers.append(.unicode(form: form ?? .nfc))
    case "Lowercase":
      try check(step, [])
      pipeline.normalizers.append(.lowercase)
    case "StripAccents":
      try check(step, [])
      pipeline.normalizers.append(.stripAccents)
    case "Strip":
      try check(step, ["strip_left", "strip_right"])
      pipeline.normalizers.append(
        .strip(
          left: try flag(step, "strip_left", default: true),
          right: try flag(step, "strip_right", default: true)))
    case "Prepend":
      try check(step, ["prepend"])
      pipeline.normalizers.append(.prepend(text: try text(step, "prepend")))
    case "Replace":
      try check(step, ["pattern", "content"])
      pipeline.normalizers.append(
        .replace(pattern: try pattern(step), text: try text(step, "content")))
    default:
      throw error(.unsupported, step.value, "the normaliser \"\(step.type)\" is not supported")
    }
  }

  // MARK: Pre-tokenizers

  /// What `ByteLevel` cuts with.
  static let gpt2 =
    #"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"#

  private static func split(
    _ expression: String, _ behavior: TokenizerPipeline.Behavior = .isolated,
    inverted: Bool = false
  ) -> Pre {
    .split(pattern: .regex(expression), behavior: behavior, inverted: inverted)
  }

  private mutating func preTokenizer(_ step: Step) throws(FormatError) {
    switch step.type {
    case "ByteLevel":
      try check(step, ["add_prefix_space", "trim_offsets", "use_regex"])
      if try flag(step, "add_prefix_space", default: true) {
        pipeline.preTokenizers.append(.spacePrefix)
      }
      if try flag(step, "use_regex", default: true) {
        pipeline.preTokenizers.append(Self.split(Self.gpt2))
      }
      pipeline.preTokenizers.append(.byteLevel)
    case "Split":
      try check(step, ["pattern", "behavior", "invert"])
      pipeline.preTokenizers.append(
        .split(
          pattern: try pattern(step), behavior: try behavior(step),
          inverted: try flag(step, "invert", default: false)))
    case "Digits":
      try check(step, ["individual_digits"])
      let areSingle = try flag(step, "individual_digits", default: false)
      pipeline.preTokenizers.append(Self.split(#"\p{N}"#, areSingle ? .isolated : .contiguous))
    case "Punctuation":
      try check(step, ["behavior"])
      let behavior = step.value["behavior"] == nil ? .isolated : try behavior(step)
      pipeline.preTokenizers.append(Self.split(#"[\p{P}$+<=>^`|~]"#, behavior))
    case "Whitespace":
      try check(step, [])
      // The library's words include the two joiners.
      pipeline.preTokenizers.append(
        Self.split(
          #"[\w\x{200c}\x{200d}]+|[^\w\x{200c}\x{200d}\s]+"#, .removed, inverted: true))
    case "WhitespaceSplit":
      try check(step, [])
      pipeline.preTokenizers.append(Self.split(#"\s"#, .removed))
    case "CharDelimiterSplit":
      try check(step, ["delimiter"])
      pipeline.preTokenizers.append(
        .split(
          pattern: .text(try character(step, "delimiter")), behavior: .removed, inverted: false))
    case "Metaspace": try metaspace(step)
    default:
      throw error(.unsupported, step.value, "the pre-tokenizer \"\(step.type)\" is not supported")
    }
  }

  private static let metaspaceFields = [
    "replacement", "prepend_scheme", "split", "add_prefix_space", "str_rep",
  ]

  private mutating func metaspace(_ step: Step) throws(FormatError) {
    try check(step, Self.metaspaceFields)
    let replacement = try character(step, "replacement")
    let prepending = try prepending(step)
    pipeline.preTokenizers.append(.metaspace(replacement: replacement, prepending: prepending))
    if try flag(step, "split", default: true) {
      pipeline.preTokenizers.append(
        .split(pattern: .text(replacement), behavior: .mergedWithNext, inverted: false))
    }
  }

  private func prepending(_ step: Step) throws(FormatError) -> TokenizerPipeline.Prepending {
    if try !flag(step, "add_prefix_space", default: true) { return .never }
    let name = step.value["prepend_scheme"]?.string ?? "always"
    guard let prepending = TokenizerPipeline.Prepending(rawValue: name) else {
      throw error(.unsupported, step.value, "the prepend_scheme \"\(name)\" is not known")
    }
    return prepending
  }

  // MARK: Decoders

  private mutating func decoder(_ step: Step) throws(FormatError) {
    switch step.type {
    case "ByteLevel": try check(step, ["add_prefix_space", "trim_offsets", "use_regex"])
    case "ByteFallback", "Fuse": try check(step, [])
    case "Metaspace":
      try check(step, Self.metaspaceFields)
      stripsFirstSpace = try prepending(step) != .never
    case "Strip":
      try check(step, ["content", "start", "stop"])
      guard try text(step, "content") == " ", step.value["stop"]?.integer ?? 0 == 0,
        let start = step.value["start"]?.integer, (0...1).contains(start)
      else { throw error(.unsupported, step.value, "a decoder that strips more than one space") }
      stripsFirstSpace = stripsFirstSpace || start == 1
    case "Replace":
      try check(step, ["pattern", "content"])
      guard try pattern(step) == .text("▁"), try text(step, "content") == " " else {
        throw error(.unsupported, step.value, "a decoder that replaces anything but ▁ by a space")
      }
    default:
      throw error(.unsupported, step.value, "the decoder \"\(step.type)\" is not supported")
    }
  }
}

/// Which fields an object of a `tokenizer.json` may have.
enum HuggingFaceFields {
  /// - Throws: ``FormatError`` of kind `unsupported` for a field that is not among `known`.
  static func check(
    _ value: JSONValue, _ name: String, _ known: [String], path: String
  ) throws(FormatError) {
    guard let members = value.members else {
      throw FormatError(
        .malformed, at: value.offset, path: path, "\(name) is \(value.found), not an object")
    }
    if let member = members.first(where: { !known.contains($0.key) }) {
      throw FormatError(
        .unsupported, at: member.value.offset, path: path,
        "the field \"\(member.key)\" of \(name) is not known")
    }
  }
}
