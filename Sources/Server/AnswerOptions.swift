import Grammar
import ModelFormat
import Runtime

/// How a request wants to be answered: what completions and chats have in common.
struct AnswerOptions: Sendable {
  /// Whom the request asks; nil = whoever is there.
  var model: String?
  /// Most tokens of an answer; nil = as many as the context has room for.
  var limit: Int?
  var sampling = SamplingOptions()
  /// What an answer must be; nil = anything.
  var grammar: CompiledGrammar?
  var stops: [String] = []
  var ignoresEnd = false
  /// Answers to each prompt.
  var choiceCount = 1
  /// Most probable tokens to tell of with each token; nil = no log-probabilities at all.
  var alternativeCount: Int?
  /// How far the answers stand back; nil = as the client's key says.
  var priority: Int?
  /// How long they may take, waiting included; nil = as long as the server lets them.
  var timeLimit: Duration?
  var streams = false
  /// Whether a stream ends with what the answer took.
  var includesUsage = false

  static let fields =
    [
      "model", "max_tokens", "temperature", "top_p", "top_k", "min_p", "repetition_penalty", "seed",
      "stop", "ignore_eos", "n", "stream", "stream_options",
    ] + loadFields + AnswerConstraint.fields
  /// What an answer is given of the engine's time.
  static let loadFields = ["priority", "timeout"]
  /// Of both endpoints.
  static let neutralFields: [String: FieldNames.NeutralValue] = [
    "user": .anyText
  ]
  static let streamNames = FieldNames(
    "StreamOptions", taken: ["include_usage"], neutral: ["include_obfuscation": .no])
  /// The most probable tokens that can be told of.
  static let mostAlternatives = 20
  static let mostPriority = 9
  /// Thirty years of seconds: more than any answer takes, few enough that no clock overflows.
  private static let longestTimeLimit = 1e9
  /// Far more than any queue holds, few enough that no product of counts overflows.
  private static let mostChoices = 1 << 16
  private static let mostStops = 64
  private static let mostStopBytes = 4096

  /// - Parameters:
  ///   - limit: names of the fields that bound the answer, which mean the same.
  ///   - stops: name of the field that has the stop strings.
  ///   - streamOptions: members that `stream_options` may have.
  init(
    _ fields: RequestFields, limit names: [String], stops stopName: String = "stop",
    streamOptions: FieldNames = AnswerOptions.streamNames
  ) throws {
    model = try fields.text("model")
    for name in names {
      guard let value = try fields.integer(name, in: 1...Int.max) else { continue }
      guard limit ?? value == value else {
        throw APIError.bad(name, "\(names.joined(separator: " and ")) contradict each other")
      }
      limit = value
    }
    try readSampling(fields)
    try AnswerConstraint.readPenalties(fields, &sampling)
    sampling.logitBias = try AnswerConstraint.bias(fields)
    grammar = try AnswerConstraint.grammar(fields)
    stops = try Self.stops(fields[stopName], stopName, takesText: stopName == "stop")
    ignoresEnd = try fields.flag("ignore_eos") ?? false
    choiceCount = try fields.integer("n", in: 1...Self.mostChoices) ?? 1
    priority = try fields.integer("priority", in: 0...Self.mostPriority)
    timeLimit = try fields.number(
      "timeout", "a number of seconds above 0", where: { $0 > 0 && $0 <= Self.longestTimeLimit }
    ).map { .seconds($0) }
    streams = try fields.flag("stream") ?? false
    includesUsage = try Self.includesUsage(fields, names: streamOptions, streams: streams)
  }

  private mutating func readSampling(_ fields: RequestFields) throws {
    if let value = try fields.number(
      "temperature", "a number from 0 to 100", where: (0...100).contains)
    {
      sampling.temperature = Float(value)
    }
    if let value = try fields.number(
      "top_p", "a number above 0 and at most 1", where: { $0 > 0 && $0 <= 1 })
    {
      // A number that no Float but 0 is near is above 0 all the same.
      sampling.topP = max(Float(value), .leastNormalMagnitude)
    }
    if let value = try fields.number("min_p", "a number from 0 to 1", where: (0...1).contains) {
      sampling.minP = Float(value)
    }
    if let value = try fields.integer("top_k", in: 0...Int(Int32.max)) { sampling.topK = value }
    if let value = try fields.number(
      "repetition_penalty", "a number above 0 and at most 100", where: { $0 > 0 && $0 <= 100 })
    {
      sampling.repetitionPenalty = max(Float(value), .leastNormalMagnitude)
    }
    // As of flashinfer-run: short enough to be typed again.
    let seed = try fields.integer(
      "seed", in: SamplingOptions.seeds, expected: SamplingOptions.seedForm)
    sampling.seed = seed.map { UInt64($0) } ?? .random(in: 0...0xFFFF_FFFF)
  }

  /// - Parameter takesText: whether one may stand there by itself.
  private static func stops(
    _ value: JSONValue?, _ name: String, takesText: Bool
  ) throws -> [String] {
    guard let value else { return [] }
    let list = takesText && value.string != nil ? [value] : value.array
    let texts = list?.compactMap(\.string) ?? []
    guard texts.count == list?.count, !texts.contains(""), texts.count <= mostStops,
      texts.reduce(0, { $0 + $1.utf8.count }) <= mostStopBytes
    else {
      throw APIError.bad(
        name,
        "'\(name)' must be \(takesText ? "a text or " : "")a list of at most \(mostStops) texts, none of them empty and all "
          + "of them at most \(mostStopBytes) bytes")
    }
    return texts
  }

  private static func includesUsage(
    _ fields: RequestFields, names: FieldNames, streams: Bool
  ) throws -> Bool {
    guard let value = fields["stream_options"] else { return false }
    guard streams else {
      throw APIError.bad("stream_options", "'stream_options' needs \"stream\": true")
    }
    try names.check(value, at: "stream_options")
    for member in value.members ?? [] where member.value.bool == nil && !member.value.isNull {
      throw APIError.bad(
        "stream_options", "'\(member.key)' must be true or false, not \(member.value.found)")
    }
    return value["include_usage"]?.bool ?? false
  }
}
