import ModelFormat
import Runtime

/// An answer as far as it has come.
struct CollectedAnswer: Sendable {
  struct Call: Sendable {
    let id: String
    let name: String
    var arguments: [UInt8] = []
  }

  private(set) var pieces: [AnswerPiece] = []
  private(set) var tokens: [TokenReport] = []
  /// Numbers of the pieces that the tokens belong to.
  private(set) var tokenPieces: [Int] = []
  var end: AnswerEnd?

  /// Adds more of it, and tokens that are to be told of.
  mutating func add(_ new: [AnswerPiece], _ reports: [TokenReport]) {
    for piece in new { pieces.add(piece) }
    tokens += reports
    tokenPieces += reports.map { _ in max(0, pieces.count - 1) }
  }

  var text: [UInt8] { pieces.flatMap(\.text) }
  var reasoning: [UInt8] {
    pieces.flatMap { if case .reasoning(let bytes) = $0 { bytes } else { [UInt8]() } }
  }

  /// Its calls.
  ///
  /// - Parameter id: what a call of that number is known by.
  func calls(_ id: (_ number: Int) -> String) -> [Call] {
    var calls: [Call] = []
    for piece in pieces {
      switch piece {
      case .call(_, let name): calls.append(Call(id: id(calls.count), name: name))
      case .arguments(_, let bytes): calls[calls.count - 1].arguments += bytes
      case .text, .reasoning: break
      }
    }
    return calls
  }

  /// Writes the members of the message that it is, as conversations have it.
  func writeMessage(_ calls: [Call], to json: inout JSONWriter) {
    let (text, reasoning) = (text, reasoning)
    json.text("role", "assistant")
    if text.isEmpty, !calls.isEmpty {
      json.null("content")
    } else {
      json.text("content", utf8: text)
    }
    if !reasoning.isEmpty { json.text("reasoning_content", utf8: reasoning) }
    guard !calls.isEmpty else { return }
    json.array("tool_calls", of: calls) { list, call in list.object { call.write(to: &$0) } }
  }

  /// What a call is known by in the messages that follow: nine letters and digits, which templates of Mistral ask for.
  static func callID(_ number: UInt64) -> String {
    var (left, id) = (number, "")
    for _ in 0..<9 {
      let (quotient, digit) = left.quotientAndRemainder(dividingBy: UInt64(callIDDigits.count))
      id.append(callIDDigits[Int(digit)])
      left = quotient
    }
    return id
  }

  private static let callIDDigits = Array(
    "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
}

extension CollectedAnswer.Call {
  func write(to json: inout JSONWriter) {
    json.text("id", id)
    json.text("type", "function")
    json.object("function") { json in
      json.text("name", name)
      json.text("arguments", utf8: arguments)
    }
  }
}
