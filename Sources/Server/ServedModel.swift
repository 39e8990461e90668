import HTTPTypes
import Runtime
import Tokenization
import WeightLoader

/// A model as requests see it: its name, its vocabulary, its chat template and its context.
struct ServedModel: @unchecked Sendable {
  // Safety: of the model only what never changes is used, its vocabulary and description, and its templates, which
  // have a lock. What reads weights is the engine's alone.
  private let model: LanguageModel
  /// What requests call it.
  let name: String
  /// Tokens of a prompt and its answer.
  let contextLength: Int
  /// What frames conversations without and with tools; nil where the model has none that can be used.
  private let (framing, toolFraming): (Framing?, Framing?)

  private struct Framing {
    let template: ChatTemplate
    let syntax: AnswerSyntax
    let names: TemplateNames

    init(_ template: ChatTemplate) {
      self.template = template
      syntax = AnswerSyntax(of: template)
      names = TemplateNames(template)
    }
  }

  /// - Parameter template: what frames conversations instead of the model's own templates.
  init(_ model: LanguageModel, name: String, contextLength: Int, template: ChatTemplate?) {
    self.model = model
    self.name = name
    self.contextLength = contextLength
    let framings = [false, true].map { hasTools -> Framing? in
      let own = model.source.description.chatTemplate(hasTools: hasTools)
      return (template ?? own.flatMap { try? ChatTemplate($0) }).map(Framing.init)
    }
    (framing, toolFraming) = (framings[0], framings[1])
  }

  var tokenizer: Tokenizer { model.tokenizer }
  var trainedContextLength: Int { model.configuration.contextLength }
  var chatTemplate: String? {
    framing?.template.source ?? model.source.description.chatTemplate(hasTools: false)
  }

  /// What of each layer stays in memory.
  func shares(_ plan: ResidencyPlan) -> WeightShares {
    WeightShares(
      plan, layerCount: model.configuration.layerCount,
      layers: model.source.description.tensors.map(\.layer))
  }

  /// Refuses a request for another model.
  func check(_ asked: String?) throws {
    guard let asked, asked != name else { return }
    throw APIError(
      .notFound, "there is no model '\(asked)' here, but '\(name)'", field: "model",
      code: "model_not_found")
  }

  /// Refuses what a request adds to the logits of tokens that there are not.
  func check(_ biases: [TokenBias]) throws {
    let count = model.configuration.vocabularyCount
    guard let wrong = biases.first(where: { $0.token >= count }) else { return }
    throw APIError.bad(
      "logit_bias", "'logit_bias': token \(wrong.token) is outside the vocabulary of \(count)")
  }

  /// The tokens of a prompt to be continued.
  func tokens(_ prompt: CompletionRequest.Prompt) throws -> [Int32] {
    switch prompt {
    case .text(let text):
      let tokens: [Int32]
      do throws(RuntimeError) { tokens = try model.prompt(text) } catch {
        throw APIError(error, field: "prompt")
      }
      return try checked("prompt", tokens)
    case .tokens(let tokens): return try checked("prompt", tokens)
    }
  }

  /// How hidden states become a vector where nobody says it.
  var pooling: Pooling { model.source.description.pooling.flatMap(Pooling.init) ?? .mean }
  /// Numbers of a hidden state.
  var hiddenSize: Int { model.configuration.hiddenSize }

  /// The tokens of a text whose meaning is wanted: with the tokens before and after it that the model wants, and
  /// nothing in it is a control token.
  func embeddingTokens(_ input: CompletionRequest.Prompt) throws -> [Int32] {
    switch input {
    case .text(let text):
      let tokens: [Int32]
      do throws(TokenizerError) { tokens = try tokenizer.encodePrompt(text.utf8) } catch {
        throw APIError.bad("input", error.description)
      }
      return try checked("input", tokens, answerCount: 0)
    case .tokens(let tokens): return try checked("input", tokens, answerCount: 0)
    }
  }

  /// The tokens of a conversation to be answered.
  ///
  /// - Parameter field: of the request, that has it.
  func tokens(_ request: ChatRequest, field: String = "messages") throws -> [Int32] {
    try check(request.options.model)
    try check(request.options.sampling.logitBias)
    let framing = try framing(request.tools)
    if let framing { try request.demands.check(framing.names) }
    do throws(RuntimeError) {
      guard let continued = request.continued else {
        return try model.prompt(request.conversation, template: framing?.template)
      }
      return try model.prompt(
        request.conversation, continuing: continued.tokens, answer: continued.answer,
        template: framing?.template)
    } catch { throw APIError(error, field: field) }
  }

  /// The tokens of a conversation that a context has room for, and how its answer is written.
  func job(_ request: ChatRequest, field: String = "messages") throws -> Answers.Job {
    let tokens = try checked(field, try tokens(request, field: field))
    let framing = try framing(request.tools)
    var syntax = framing?.syntax ?? AnswerSyntax()
    if !request.separatesReasoning { syntax.reasoning = nil }
    if request.tools.names.isEmpty { syntax.calls = nil }
    syntax.toolNames = request.tools.names
    syntax.allowsManyCalls = request.tools.allowsMany
    syntax.note(promptTail: tokens.suffix(Self.tailCount).flatMap(tokenizer.spelling))
    guard !request.forbidsThinking || !syntax.beginsInReasoning else {
      throw APIError.bad(
        "thinking",
        "'thinking': the model's chat template has answers begin with thinking all the same",
        code: "unsupported_parameter")
    }
    var options = request.options
    let calls = try request.tools.grammar(&syntax) { mark in
      let token = tokenizer.token(spelled: String(decoding: mark, as: UTF8.self))
      return token.map { tokenizer.decode([$0]).isEmpty } ?? false
    }
    if let calls {
      guard options.grammar == nil else {
        throw APIError.bad(
          request.tools.isRequired ? "tool_choice" : "tools",
          "an answer is a call of a tool or of another form, not both")
      }
      options.grammar = calls
    }
    return Answers.Job(prompts: [tokens], options: options, syntax: syntax)
  }

  /// Tokens that the mark of reasoning and white space after it have at most.
  private static let tailCount = 16

  /// What frames a conversation with such tools; nil where there is nothing, which the model says.
  private func framing(_ tools: ToolOffer) throws -> Framing? {
    guard !tools.names.isEmpty else { return framing }
    guard let toolFraming, toolFraming.template.takesTools else {
      throw APIError.bad(
        "tools",
        "the model's chat template has no place for 'tools': give it one that has (the server's --chat-template)",
        code: "unsupported_parameter")
    }
    return toolFraming
  }

  /// The text that the chat template makes of a conversation.
  func text(of request: TemplateRequest) throws -> [UInt8] {
    let framing = try framing(request.tools)
    if let framing { try request.demands.check(framing.names) }
    do throws(RuntimeError) {
      return try model.text(of: request.conversation, template: framing?.template)
    } catch { throw APIError(error, field: "messages") }
  }

  /// Tokens that a context has room for, with so many of an answer at least.
  private func checked(
    _ field: String, _ tokens: [Int32], answerCount: Int = 1
  ) throws -> [Int32] {
    let most = contextLength - answerCount
    guard tokens.count <= most else {
      let (what, rest) = answerCount > 0 ? ("prompt", " and an answer") : ("text", "")
      throw APIError.bad(
        field,
        "the \(what) has \(tokens.count) tokens; a context of \(contextLength) has room for \(most)\(rest) "
          + "(the server's --context)",
        code: "context_length_exceeded")
    }
    return tokens
  }
}
