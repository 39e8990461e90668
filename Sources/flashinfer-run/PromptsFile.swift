import CommandLineSupport
import Grammar
import ModelFormat
import Runtime
import TensorBasics
import Tokenization
import WeightLoader

/// What the answers to a file of prompts take, as far as it must be known before: the line itself is read again when its
/// turn comes, because all of them together may be longer than memory.
struct PromptEntry {
  /// From 1.
  let number: Int
  /// Where the line is in its file.
  let place: Range<Int>
  /// Of all that the answer depends on.
  let checksum: UInt64
  /// Tokens of the prompt, and those that it and its answer take.
  let promptCount: Int
  let length: Int
  /// Whether its answer has a grammar.
  let hasGrammar: Bool
  /// Whether it can be answered.
  let isGood: Bool
}

/// A prompt of a file of JSON lines, ready to be answered, or why it cannot be.
struct PromptLine {
  /// From 1.
  let number: Int
  /// The line's own name for it, as JSON; nil where it has none.
  var id: JSONValue?
  var options = GenerationOptions(prompt: [])
  /// Why it cannot be answered; nil if it can.
  var problem: String?
  /// Checksum of all that the answer depends on.
  var checksum: UInt64 = 0
  /// How its result spells the checksum: sixteen hexadecimal digits.
  var checksumText: String {
    let digits = String(checksum, radix: 16)
    return String(repeating: "0", count: 16 - digits.count) + digits
  }

  /// Positions that prompt and answer take.
  var length: Int { options.prompt.count + options.maximumTokenCount }
}

/// Reads a file of prompts: one JSON object a line.
struct PromptsFile {
  private static let members = [
    "id", "prompt", "max_tokens", "temperature", "seed", "stop", "json_schema", "grammar",
  ]
  let text: LineFile
  let sampling: SamplingArguments
  /// What answers must be where lines say nothing of it; nil = anything.
  let grammar: CompiledGrammar?
  let prompt: PromptOptions
  let model: LanguageModel
  let template: ChatTemplate?
  /// What the answers depend on beside their lines: the weights, and how they are approximated.
  let setting: String
  /// Tokens that a prompt and its answer have room for.
  let contextLength: Int
  /// Why a prompt of so many tokens has no room in a context.
  let lackOfRoom: (_ tokenCount: Int) -> String
  /// From which, and its number, a line without a seed gets its own.
  let runSeed: UInt64

  var name: String { text.name }

  /// Bytes of a line: what is made of it takes many times its memory.
  private var lineByteLimit: Int { Terminal.textByteLimit(contextLength: contextLength) }

  /// What every line that is not empty asks for.
  func entries() throws -> [PromptEntry] {
    var entries: [PromptEntry] = []
    try text.forEachLine(keeping: lineByteLimit) { line in
      guard !line.isBlank else { return }
      let read = read(line.bytes, byteCount: line.place.count, number: line.number)
      entries.append(
        PromptEntry(
          number: read.number, place: line.place, checksum: read.checksum,
          promptCount: read.options.prompt.count, length: read.length,
          hasGrammar: read.options.grammar != nil, isGood: read.problem == nil))
    }
    return entries
  }

  /// The line of an entry.
  ///
  /// - Throws: ``CommandError`` where it is another one by now.
  func line(_ entry: PromptEntry) throws -> PromptLine {
    let bytes = try text.bytes(at: entry.place.prefix(lineByteLimit))
    let line = read(bytes, byteCount: entry.place.count, number: entry.number)
    guard line.checksum == entry.checksum else {
      throw CommandError(
        .badData, "\(name), line \(entry.number): was changed while the file was being answered")
    }
    return line
  }

  /// - Parameters:
  ///   - bytes: of the line, as many as are read.
  ///   - byteCount: what it has.
  private func read(_ bytes: [UInt8], byteCount: Int, number: Int) -> PromptLine {
    var line = PromptLine(number: number)
    do {
      guard bytes.count == byteCount else {
        throw FormatError(
          .malformed, at: bytes.count, path: "\(name), line \(number)",
          "the line is longer than \(ByteCount(lineByteLimit)), which no prompt of \(contextLength) tokens is"
        )
      }
      let json = try bytes.withUnsafeBytes { bytes in
        try JSONParser.parse(bytes, path: "\(name), line \(number)")
      }
      line.id = json["id"]
      line.options = try options(json, number: number)
      let count = line.options.prompt.count
      if count >= contextLength { line.problem = lackOfRoom(count) }
    } catch { line.problem = "\(error)" }
    line.checksum = checksum(line)
    return line
  }

  /// What a line asks for.
  private func options(
    _ json: JSONValue, number: Int
  ) throws -> GenerationOptions {
    func fail(_ value: JSONValue, _ message: String) -> FormatError {
      FormatError(.malformed, at: value.offset, path: "\(name), line \(number)", message)
    }
    guard let members = json.members else { throw fail(json, "a line must be a JSON object") }
    let known = Self.members + Conversation.knownMembers
    for member in members where !known.contains(member.key) {
      throw fail(
        member.value, "'\(member.key)' is not known; there are: \(known.joined(separator: ", "))")
    }
    if let id = json["id"], id.string == nil, id.integer == nil {
      throw fail(id, "'id' must be a text or a whole number")
    }
    var chosen = sampling.options(seed: json["seed"] == nil ? mixed(number) : 0)
    if let seed = json["seed"] {
      guard let value = seed.integer, SamplingOptions.seeds.contains(value) else {
        throw fail(seed, "'seed' must be \(SamplingOptions.seedForm)")
      }
      chosen.seed = UInt64(value)
    }
    if let temperature = json["temperature"] {
      guard let value = temperature.double, value >= 0, value.isFinite else {
        throw fail(temperature, "'temperature' must be a number of 0 or more")
      }
      chosen.temperature = Float(value)
    }
    var options = GenerationOptions(
      prompt: try tokens(json, number: number, fail), maximumTokenCount: sampling.maxTokens,
      sampling: chosen, ignoresEnd: sampling.ignoreEos)
    if let count = json["max_tokens"] {
      let most = ResourceOptions.longestContext
      guard let value = count.integer, (1...most).contains(value) else {
        throw fail(count, "'max_tokens' must be a whole number from 1 to \(most)")
      }
      options.maximumTokenCount = value
    }
    options.grammar = try Self.grammar(json, fail) ?? grammar
    if let stop = json["stop"] { options.stops = StopStrings(try Self.stops(stop, fail)) }
    return options
  }

  private static func grammar(
    _ json: JSONValue, _ fail: (JSONValue, String) -> FormatError
  ) throws -> CompiledGrammar? {
    let (schema, grammar) = (json["json_schema"], json["grammar"])
    guard schema == nil || grammar == nil else {
      throw fail(json, "a line must not have both 'json_schema' and 'grammar'")
    }
    do throws(GrammarError) {
      if let schema { return try CompiledGrammar(jsonSchema: schema) }
      if let text = grammar?.string { return try CompiledGrammar(gbnf: text) }
    } catch {
      let name = schema == nil ? "grammar" : "json_schema"
      throw fail(schema ?? grammar ?? json, "'\(name)' is refused \(error)")
    }
    guard let grammar else { return nil }
    throw fail(grammar, "'grammar' must be a text")
  }

  private static func stops(
    _ value: JSONValue, _ fail: (JSONValue, String) -> FormatError
  ) throws -> [String] {
    try (value.array ?? [value]).map { element in
      guard let text = element.string, !text.isEmpty else {
        throw fail(element, "'stop' must be a text, or a list of texts that are not empty")
      }
      return text
    }
  }

  /// The tokens of `prompt` or `messages`.
  private func tokens(
    _ json: JSONValue, number: Int, _ fail: (JSONValue, String) -> FormatError
  ) throws -> [Int32] {
    guard (json["prompt"] == nil) != (json["messages"] == nil) else {
      throw fail(json, "a line must have either 'prompt' or 'messages'")
    }
    guard let text = json["prompt"] else {
      return try tokens(conversation: json, name: "\(name), line \(number)")
    }
    guard let prompt = text.string, !prompt.isEmpty else {
      throw fail(text, "'prompt' must be a text that is not empty")
    }
    guard !self.prompt.raw else { return try model.prompt(prompt) }
    let message = ChatMessage(role: .user, content: Array(prompt.utf8))
    return try tokens(self.prompt.template.completed(Conversation([message]), name: name))
  }

  private func tokens(conversation json: JSONValue, name: String) throws -> [Int32] {
    let own = json.members?.filter { Conversation.knownMembers.contains($0.key) } ?? []
    let conversation = try Conversation(
      JSONValue(content: .object(own), offset: json.offset), name: name)
    return try tokens(prompt.template.completed(conversation, name: name))
  }

  private func tokens(_ conversation: Conversation) throws -> [Int32] {
    try model.prompt(conversation, template: template)
  }

  /// A line's seed where it has none.
  private func mixed(_ number: Int) -> UInt64 {
    var words = (runSeed.littleEndian, UInt64(number).littleEndian)
    // What JSON's readers take for whole numbers ends at 2^53.
    return withUnsafeBytes(of: &words) { Checksum.of($0) } >> 11
  }

  private func checksum(_ line: PromptLine) -> UInt64 {
    let (options, sampling) = (line.options, line.options.sampling)
    let text =
      "\(setting) \(options.prompt) \(options.maximumTokenCount) \(options.ignoresEnd) \(sampling) "
      + "\(options.stops) \(line.problem ?? "")"
      + (options.grammar.map { " \($0.checksum)" } ?? "")
    var bytes = Array(text.utf8)
    return bytes.withUnsafeMutableBytes { Checksum.of(UnsafeRawBufferPointer($0)) }
  }
}
