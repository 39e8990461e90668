import Grammar
import ModelFormat

/// What an answer that must call a tool is held to.
extension ToolOffer {
  /// The grammar of calls of the tools that must be called; nil where none must be.
  ///
  /// - Parameter syntax: how the model's answers are written; set to how this one is. Control tokens are never drawn under a
  ///   grammar, so that calls which begin with one are the whole answer instead.
  /// - Throws: ``APIError``, where a tool's parameters cannot be held to.
  func grammar(_ syntax: inout AnswerSyntax) throws -> CompiledGrammar? {
    guard !required.isEmpty else { return nil }
    var (begin, end, separator) = ("", "", String?.none)
    if case .marked(let marks) = syntax.calls {
      begin = String(decoding: marks.begin, as: UTF8.self) + "\n"
      end = "\n" + String(decoding: marks.end, as: UTF8.self)
      separator = allowsMany ? "\n" : nil
    } else {
      syntax.calls = AnswerSyntax.plainCalls
    }
    if syntax.beginsInReasoning, let reasoning = syntax.reasoning {
      // It does not think, and calls once.
      begin = String(decoding: reasoning.end, as: UTF8.self) + "\n\n" + begin
      separator = nil
    }
    let forms = try required.map { tool in
      CompiledGrammar.Form(
        prefix: begin + "{\"name\": \(Self.literal(tool.name)), \"arguments\": ",
        schema: try Self.schema(of: tool), suffix: "}" + end)
    }
    do throws(GrammarError) {
      return try CompiledGrammar(forms: forms, separator: separator)
    } catch {
      throw APIError.bad(
        "tools", "the parameters of a tool that must be called are refused: \(error)")
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
    let list = JSONWriter.document { $0.array("", of: [text]) { $0.text(nil, $1) } }
    let (begin, end) = (
      list.firstIndex(of: UInt8(ascii: "[")), list.lastIndex(of: UInt8(ascii: "]"))
    )
    guard let begin, let end else { return "\"\"" }
    return String(decoding: list[(begin + 1)..<end], as: UTF8.self)
  }
}
