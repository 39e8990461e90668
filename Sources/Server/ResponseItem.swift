import ModelFormat
import Tokenization

/// An item of a response's output: a message, reasoning, or a call of a tool.
struct ResponseItem {
  enum Kind: Equatable {
    case message, reasoning
    case call(name: String)
  }

  let kind: Kind
  /// Its text, or the call's arguments.
  var content: [UInt8] = []
  /// Of a message, the tokens that are to be told of.
  var tokens: [TokenReport] = []

  init(_ kind: Kind) { self.kind = kind }

  /// What a piece is a part of.
  init(_ piece: AnswerPiece) {
    switch piece {
    case .text: kind = .message
    case .reasoning: kind = .reasoning
    case .call(_, let name): kind = .call(name: name)
    case .arguments: kind = .call(name: "")
    }
  }

  /// The kind of the item that an answer ends with; nil where it has none.
  static func last(of answer: CollectedAnswer) -> ResponseItem? {
    answer.pieces.last.map { ResponseItem($0) }
  }

  /// Whether a piece is more of it.
  func continues(with piece: AnswerPiece) -> Bool {
    switch (kind, piece) {
    case (.message, .text), (.reasoning, .reasoning), (.call, .arguments): true
    default: false
    }
  }

  /// The items of an answer, one at least.
  static func list(of answer: CollectedAnswer) -> [ResponseItem] {
    var items: [ResponseItem] = []
    for (number, piece) in answer.pieces.enumerated() {
      if items.last?.continues(with: piece) != true { items.append(ResponseItem(piece)) }
      switch piece {
      case .text(let bytes), .reasoning(let bytes), .arguments(_, let bytes):
        items[items.count - 1].content += bytes
      case .call: break
      }
      guard case .text = piece else { continue }
      items[items.count - 1].tokens += zip(answer.tokens, answer.tokenPieces).filter {
        $1 == number
      }.map(\.0)
    }
    return items.isEmpty ? [ResponseItem(.message)] : items
  }
}

extension ResponseItem {
  /// What an item is called, and how far it has come.
  struct Label {
    let id: String
    /// What a call is known by.
    let callID: String
    let status: String
  }

  func write(_ label: Label, _ tokenizer: Tokenizer, to json: inout JSONWriter) {
    let hasBegun = label.status != "in_progress"
    json.text("id", label.id)
    switch kind {
    case .message:
      json.text("type", "message")
      json.text("role", "assistant")
      json.array("content") { list in
        if hasBegun { list.object { writePart(tokenizer, to: &$0) } }
      }
    case .reasoning:
      json.text("type", "reasoning")
      json.array("summary") { _ in }
      json.array("content") { list in
        if hasBegun { list.object { writePart(tokenizer, to: &$0) } }
      }
    case .call(let name):
      json.text("type", "function_call")
      json.text("call_id", label.callID)
      json.text("name", name)
      json.text("arguments", utf8: content)
    }
    json.text("status", label.status)
  }

  /// Writes what a message or reasoning consists of.
  func writePart(_ tokenizer: Tokenizer, to json: inout JSONWriter) {
    json.text("type", kind == .message ? "output_text" : "reasoning_text")
    json.text("text", utf8: content)
    guard kind == .message else { return }
    json.array("annotations") { _ in }
    Self.write(tokens, tokenizer, to: &json)
  }

  static func write(_ tokens: [TokenReport], _ tokenizer: Tokenizer, to json: inout JSONWriter) {
    json.array("logprobs", of: tokens) { list, token in
      list.object { token.write(tokenizer, to: &$0) }
    }
  }
}
