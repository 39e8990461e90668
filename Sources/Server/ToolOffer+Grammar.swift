import Grammar
import ModelFormat

/// What an answer that must call a tool is held to.
extension ToolOffer {
  /// The grammar of answers that call tools whose arguments must be of a schema; nil where none must be.
  ///
  /// - Parameters:
  ///   - syntax: how the model's answers are written; set to how this one is. Control tokens are never drawn under a
  ///     grammar, so that calls which must be and begin with one are the whole answer instead.
  ///   - isControl: whether a text is a control token.
  /// - Throws: ``APIError``, where a tool's parameters cannot be held to.
  func grammar(
    _ syntax: inout AnswerSyntax, isControl: ([UInt8]) -> Bool
  ) throws -> CompiledGrammar? {
    guard isRequired || offered.contains(where: \.isStrict) else { return nil }
    if !isRequired { try checkMarks(syntax, isControl) }
    var (begin, end, separator) = ("", "", String?.none)
    var mark: String?
    if case .marked(let marks) = syntax.calls {
      mark = String(decoding: marks.begin, as: UTF8.self)
      begin = String(decoding: marks.begin, as: UTF8.self) + "\n"
      end = "\n" + String(decoding: marks.end, as: UTF8.self)
      separator = allowsMany ? "\n" : nil
    } else {
      syntax.calls = AnswerSyntax.plainCalls
    }
    if isRequired, syntax.beginsInReasoning, let reasoning = syntax.reasoning {
      // It does not think, and calls once.
      begin = String(decoding: reasoning.end, as: UTF8.self) + "\n\n" + begin
      separator = nil
    }
    let forms = try offered.map { tool in
      CompiledGrammar.Form(
        prefix: begin + "{\"name\": \(Self.literal(tool.name)), \"arguments\": ",
        schema: isRequired || tool.isStrict ? try Self.schema(of: tool) : .object,
        suffix: "}" + end)
    }
    do throws(GrammarError) {
      if isRequired { return try CompiledGrammar(forms: forms, separator: separator) }
      guard let mark else {
        return try CompiledGrammar(textOrForms: forms, separator: allowsMany ? ";" : nil)
      }
      return try CompiledGrammar(text: mark, forms, areMany: allowsMany)
    } catch {
      throw APIError.bad(
        "tools", "the parameters of a tool that is held to them are refused: \(error)")
    }
  }

  /// Refuses calls that may be, and can only be told from text by control tokens.
  private func checkMarks(_ syntax: AnswerSyntax, _ isControl: ([UInt8]) -> Bool) throws {
    var marks = syntax.reasoning.map { [$0.begin, $0.end] } ?? []
    var canHold = true
    switch syntax.calls {
    case .marked(let call): marks += [call.begin, call.end]
    case .plain: canHold = syntax.reasoning == nil
    case .announced, nil: canHold = false
    }
    guard canHold, !marks.contains(where: isControl) else {
      throw APIError.bad(
        "tools",
        "'strict' is not supported with this model unless 'tool_choice' asks for a call: leave it out, or ask for one",
        code: "unsupported_parameter")
    }
  }

  /// Of a tool's arguments, which are an object.
  private static func schema(of tool: Tool) throws -> CompiledGrammar.Form.Schema {
    guard let parameters = tool.parameters else { return .object }
    let type = parameters["type"]?.string
    guard parameters.members != nil, parameters["type"] == nil || type == "object" else {
      throw APIError.bad(
        "tools", "the parameters of '\(tool.name)' must be a schema of the type \"object\"")
    }
    return parameters.members?.isEmpty == true ? .object : .schema(parameters)
  }

  /// A text as JSON has it.
  private static func literal(_ text: String) -> String {
    String(decoding: JSONWriter.value { $0.text(nil, text) }, as: UTF8.self)
  }
}
