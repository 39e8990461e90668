import Grammar
import ModelFormat
import Runtime

/// What an answer must be, and which tokens it prefers: the fields of OpenAI's, llama.cpp's and vLLM's interfaces.
enum AnswerConstraint {
  static let fields = [
    "response_format", "json_schema", "grammar", "structured_outputs", "logit_bias",
    "presence_penalty", "frequency_penalty",
  ]
  private static let mostBiases = 1024

  /// The grammar that a request gives; nil = none.
  static func grammar(_ fields: RequestFields) throws -> CompiledGrammar? {
    let given = ["response_format", "json_schema", "grammar", "structured_outputs"].filter {
      fields[$0] != nil && !isText(fields, $0)
    }
    guard given.count < 2 else {
      throw APIError.bad(given[1], "give '\(given[0])' or '\(given[1])', not both")
    }
    guard let name = given.first, let value = fields[name] else { return nil }
    return switch name {
    case "response_format": try responseFormat(value)
    case "json_schema":
      try compile(name, name) { () throws(GrammarError) in try CompiledGrammar(jsonSchema: value) }
    case "grammar": try gbnf(value, name, name)
    default: try structured(value)
    }
  }

  private static func isText(_ fields: RequestFields, _ name: String) -> Bool {
    name == "response_format" && fields[name]?["type"]?.string == "text"
  }

  /// - Parameter place: of what is compiled, in the body.
  private static func compile(
    _ field: String, _ place: String, _ make: () throws(GrammarError) -> CompiledGrammar
  ) throws -> CompiledGrammar {
    do throws(GrammarError) { return try make() } catch {
      throw APIError.bad(field, "'\(place)' is refused: \(error)")
    }
  }

  private static func gbnf(
    _ value: JSONValue, _ field: String, _ place: String
  ) throws -> CompiledGrammar {
    guard let text = value.string else {
      throw APIError.bad(field, "'\(place)' must be a text in GBNF, not \(value.found)")
    }
    return try compile(field, place) { () throws(GrammarError) in try CompiledGrammar(gbnf: text) }
  }

  /// `{"type": "json_object"}` or `{"type": "json_schema", "json_schema": {"schema": …}}`.
  private static func responseFormat(_ value: JSONValue) throws -> CompiledGrammar? {
    let field = "response_format"
    switch value["type"]?.string {
    case "json_object":
      // llama.cpp takes a schema here too.
      try check(value, of: field, ["type", "schema"])
      guard let schema = value["schema"] else {
        return try compile(field, field) { () throws(GrammarError) in try .anyObject() }
      }
      return try compile(field, "response_format.schema") { () throws(GrammarError) in
        try CompiledGrammar(jsonSchema: schema)
      }
    case "json_schema":
      try check(value, of: field, ["type", "json_schema"])
      guard let format = value["json_schema"], let schema = format["schema"] else {
        throw APIError.bad(field, "'response_format.json_schema.schema' is missing")
      }
      try check(
        format, of: "response_format.json_schema", ["name", "description", "schema", "strict"])
      return try compile(field, "response_format.json_schema.schema") { () throws(GrammarError) in
        try CompiledGrammar(jsonSchema: schema)
      }
    default:
      throw APIError.bad(
        field, "'response_format' must have the type text, json_object or json_schema")
    }
  }

  /// vLLM's: one of `json`, `regex`, `choice`, `grammar` and `json_object`.
  private static func structured(_ value: JSONValue) throws -> CompiledGrammar? {
    let field = "structured_outputs"
    try check(value, of: field, ["json", "regex", "choice", "grammar", "json_object"])
    let given = (value.members ?? []).filter { !$0.value.isNull }
    guard given.count == 1, let member = given.first else {
      throw APIError.bad(
        field, "'structured_outputs' must have one of json, regex, choice, grammar and json_object")
    }
    let place = "structured_outputs.\(member.key)"
    switch member.key {
    case "json":
      return try compile(field, place) { () throws(GrammarError) in
        if let text = member.value.string { return try CompiledGrammar(jsonSchema: text) }
        return try CompiledGrammar(jsonSchema: member.value)
      }
    case "json_object":
      guard let isObject = member.value.bool else {
        throw APIError.bad(field, "'\(place)' must be true or false, not \(member.value.found)")
      }
      guard isObject else { return nil }
      return try compile(field, place) { () throws(GrammarError) in try .anyObject() }
    case "regex":
      guard let pattern = member.value.string else {
        throw APIError.bad(field, "'\(place)' must be a text, not \(member.value.found)")
      }
      return try compile(field, place) { () throws(GrammarError) in
        try CompiledGrammar(pattern: pattern)
      }
    case "choice":
      let texts = member.value.array?.compactMap(\.string) ?? []
      guard !texts.isEmpty, texts.count == member.value.array?.count else {
        throw APIError.bad(field, "'\(place)' must be a list of texts that is not empty")
      }
      return try compile(field, place) { () throws(GrammarError) in
        try CompiledGrammar(choices: texts)
      }
    default: return try gbnf(member.value, field, place)
    }
  }

  /// Refuses members that are not known.
  private static func check(_ value: JSONValue, of place: String, _ known: [String]) throws {
    let field = place.split(separator: ".").first.map(String.init) ?? place
    guard let members = value.members else {
      throw APIError.bad(field, "'\(place)' must be an object, not \(value.found)")
    }
    for member in members where !known.contains(member.key) {
      throw APIError.bad(
        field, "'\(place)' has no '\(member.key)'; there are: \(known.joined(separator: ", "))",
        code: "unknown_parameter")
    }
  }

  /// Tokens and what is added to their logits: `{"1234": -100}`.
  static func bias(_ fields: RequestFields) throws -> [TokenBias] {
    guard let value = fields["logit_bias"] else { return [] }
    guard let members = value.members, members.count <= mostBiases else {
      throw APIError.bad(
        "logit_bias", "'logit_bias' must be an object of at most \(mostBiases) token ids")
    }
    return try members.map { member in
      guard let token = Int32(member.key), token >= 0, let bias = member.value.double,
        (-100...100).contains(bias)
      else {
        throw APIError.bad(
          "logit_bias",
          "'logit_bias' must give token ids a number from -100 to 100; '\(member.key.prefix(40))' has "
            + member.value.found)
      }
      return TokenBias(token: token, bias: Float(bias))
    }.sorted { $0.token < $1.token }
  }

  static func readPenalties(_ fields: RequestFields, _ sampling: inout SamplingOptions) throws {
    let expected = "a number from -2 to 2"
    if let value = try fields.number("presence_penalty", expected, where: (-2...2).contains) {
      sampling.presencePenalty = Float(value)
    }
    if let value = try fields.number("frequency_penalty", expected, where: (-2...2).contains) {
      sampling.frequencyPenalty = Float(value)
    }
  }
}
