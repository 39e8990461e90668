import Runtime

/// An answer that is complete.
struct CollectedAnswer: Sendable {
  struct Call: Sendable {
    let id = CollectedAnswer.newCallID()
    let name: String
    var arguments: [UInt8] = []
  }

  var pieces: [AnswerPiece] = []
  var tokens: [TokenReport] = []
  var finish: TokenSequence.Finish?

  var text: [UInt8] { pieces.flatMap(\.text) }
  var reasoning: [UInt8] {
    pieces.flatMap { if case .reasoning(let bytes) = $0 { bytes } else { [UInt8]() } }
  }

  /// Its calls, each with an id that is new.
  func calls() -> [Call] {
    var calls: [Call] = []
    for piece in pieces {
      switch piece {
      case .call(_, let name): calls.append(Call(name: name))
      case .arguments(_, let bytes): calls[calls.count - 1].arguments += bytes
      case .text, .reasoning: break
      }
    }
    return calls
  }

  /// What a call is known by in the messages that follow: nine letters and digits, which templates of Mistral ask for.
  static func newCallID() -> String {
    String((0..<9).map { _ in callIDCharacters.randomElement() ?? "0" })
  }

  private static let callIDCharacters = Array(
    "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
}
