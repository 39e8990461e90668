import Hummingbird
import ModelFormat
import Tokenization

/// `/tokenize`, `/detokenize` and `/apply-template`: what the vocabulary and the chat template do alone.
struct TextRoutes: Sendable {
  let model: ServedModel
  let bodies: RequestBodies

  static let tokenizeNames = FieldNames(
    "TokenizeRequest", taken: ["content", "add_special", "parse_special", "with_pieces", "model"])
  static let detokenizeNames = FieldNames("DetokenizeRequest", taken: ["tokens", "model"])

  func add(to router: Router<ConnectionContext>) {
    router.post("tokenize") { request, _ in
      try await bodies.read(request) { try tokenize($0) }
    }
    router.post("detokenize") { request, _ in
      try await bodies.read(request) { try detokenize($0) }
    }
    router.post("apply-template") { request, _ in
      try await bodies.read(request) { try applyTemplate($0) }
    }
  }

  private func tokenize(_ body: [UInt8]) throws -> Response {
    let fields = try RequestFields(body, Self.tokenizeNames)
    try model.check(fields.text("model"))
    _ = try fields.required("content")
    let text = Array((try fields.text("content") ?? "").utf8)
    let isMarkup = try fields.flag("parse_special") ?? true
    let tokens: [Int32]
    do {
      tokens =
        try fields.flag("add_special") ?? false
        ? model.tokenizer.encodePrompt(text, parseSpecial: isMarkup)
        : model.tokenizer.encode(text, parseSpecial: isMarkup)
    } catch let error as TokenizerError { throw APIError.bad("content", error.description) }
    guard try fields.flag("with_pieces") ?? false else {
      return Response { json in json.array("tokens", of: tokens) { $0.number(nil, $1) } }
    }
    return Response { json in
      json.array("tokens", of: tokens) { list, token in list.object { write(token, to: &$0) } }
    }
  }

  /// A token with what it spells: a text, or its bytes where those are no whole characters.
  private func write(_ token: Int32, to json: inout JSONWriter) {
    let bytes = model.tokenizer.spelling(token)
    json.number("id", token)
    if String(validating: bytes, as: UTF8.self) != nil {
      json.text("piece", utf8: bytes)
    } else {
      json.array("piece", of: bytes) { $0.number(nil, $1) }
    }
  }

  private func detokenize(_ body: [UInt8]) throws -> Response {
    let fields = try RequestFields(body, Self.detokenizeNames)
    try model.check(fields.text("model"))
    let value = try fields.required("tokens")
    let known = 0..<Int32(model.tokenizer.vocabularyCount)
    let tokens = value.array?.isEmpty == true ? [] : CompletionRequest.tokens(value)
    guard let tokens, tokens.allSatisfy(known.contains) else {
      throw APIError.bad(
        "tokens", "'tokens' must be a list of token ids below \(known.upperBound)")
    }
    var (text, bytes) = (StreamingDetokenizer(model.tokenizer, startsText: true), [UInt8]())
    for token in tokens { text.append(token, to: &bytes) }
    text.finish(&bytes)
    return Response { $0.text("content", utf8: bytes) }
  }

  private func applyTemplate(_ body: [UInt8]) throws -> Response {
    let request = try TemplateRequest(body)
    try model.check(request.model)
    let text = try model.text(of: request)
    return Response { $0.text("prompt", utf8: text) }
  }
}
