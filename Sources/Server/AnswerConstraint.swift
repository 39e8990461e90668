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
  private static let objectNames = FieldNames("JSONObjectFormat", taken: ["type", "schema"])
  private static let schemaNames = FieldNames("JSONSchemaFormat", taken: ["type", "json_schema"])
  private static let namedNames = FieldNames(
    "NamedSchema", taken: ["name", "description", "schema", "strict"])
  private static let flatNames = FieldNames(
    "FlatSchemaFormat", taken: ["type", "name", "description", "schema", "strict"])
  private static let textNames = FieldNames("TextFormat", taken: ["type"])
  private static let structuredNames = FieldNames(
    "StructuredOutputs", taken: ["json", "regex", "choice", "grammar", "json_object"])
  static let names = [
    objectNames, schemaNames, namedNames, flatNames, textNames, structuredNames,
  ]

  /// The grammar that a request gives; nil = none.
  static func grammar(_ fields: RequestFields) throws -> CompiledGrammar? {
    let values = [
      ("response_format", fields["response_format"]), ("text", fields["text"]?["format"]),
      ("output_config", fields["output_config"]?["format"]),
      ("json_schema", fields["json_schema"]), ("grammar", fields["grammar"]),
      ("structured_outputs", fields["structured_outputs"]),
    ]
    let given = values.compactMap { name, value in value.map { (name, $0) } }
    let grammars = try given.compactMap { name, value in
      try grammar(name, value).map { (name, $0) }
    }
    guard grammars.count < 2 else {
      throw APIError.bad(
        grammars[1].0, "give '\(grammars[0].0)' or '\(grammars[1].0)', not both")
    }
    return grammars.first?.1
  }

  private static func grammar(_ name: String, _ value: JSONValue) throws -> CompiledGrammar? {
    switch name {
    case "response_format": try form(value, name, name, isNested: true)
    case "text", "output_config": try form(value, name, name + ".format", isNested: false)
    case "json_schema":
      try compile(name, name) { () throws(GrammarError) in try CompiledGrammar(jsonSchema: value) }
    case "grammar": try gbnf(value, name, name)
    default: try structured(value)
    }
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

  /// `{"type": "json_object"}`, or `{"type": "json_schema"}` with a schema.
  ///
  /// - Parameters:
  ///   - place: of the form, in the body.
  ///   - isNested: whether the schema is in a member `json_schema`, and not beside the type.
  private static func form(
    _ value: JSONValue, _ field: String, _ place: String, isNested: Bool
  ) throws -> CompiledGrammar? {
    switch value["type"]?.string {
    case "text":
      try textNames.check(value, at: place)
      return nil
    case "json_object":
      // llama.cpp takes a schema here too.
      try objectNames.check(value, at: place)
      guard let schema = value["schema"] else {
        return try compile(field, place) { () throws(GrammarError) in try .anyObject() }
      }
      return try compile(field, place + ".schema") { () throws(GrammarError) in
        try CompiledGrammar(jsonSchema: schema)
      }
    case "json_schema":
      try (isNested ? schemaNames : flatNames).check(value, at: place)
      let inner = isNested ? place + ".json_schema" : place
      guard let format = isNested ? value["json_schema"] : value, let schema = format["schema"]
      else { throw APIError.bad(field, "'\(inner).schema' is missing") }
      if isNested { try namedNames.check(format, at: inner) }
      return try compile(field, inner + ".schema") { () throws(GrammarError) in
        try CompiledGrammar(jsonSchema: schema)
      }
    default:
      throw APIError.bad(
        field, "'\(place)' must have the type text, json_object or json_schema")
    }
  }

  /// vLLM's: one of `json`, `regex`, `choice`, `grammar` and `json_object`.
  private static func structured(_ value: JSONValue) throws -> CompiledGrammar? {
    let field = "structured_outputs"
    try structuredNames.check(value, at: field)
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

  /// Tokens and what is added to their logits: `{"1234": -100}`.
  static func bias(_ fields: RequestFields) throws -> [TokenBias] {
    guard let value = fields["logit_bias"] else { return [] }
    guard let members = value.members, members.count <= mostBiases else {
      throw APIError.bad(
        "logit_bias", "'logit_bias' must be an object of at most \(mostBiases) token ids")
    }
    return try members.map { member in
      // Not in other spellings, of which two could be the same token.
      guard let token = Int32(member.key), token >= 0, String(token) == member.key,
        let bias = member.value.double,
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
