import Runtime

/// An answer that is complete.
struct CollectedAnswer: Sendable {
  struct Call: Sendable {
    let id = CollectedAnswer.newCallID()
    let name: String
    var arguments: [UInt8] = []
  }

  var text: [UInt8] = []
  var reasoning: [UInt8] = []
  var calls: [Call] = []
  var tokens: [TokenReport] = []
  var finish: TokenSequence.Finish?

  mutating func add(_ piece: AnswerPiece) {
    switch piece {
    case .text(let bytes): text += bytes
    case .reasoning(let bytes): reasoning += bytes
    case .call(_, let name): calls.append(Call(name: name))
    case .arguments(_, let bytes): calls[calls.count - 1].arguments += bytes
    }
  }

  /// What a call is known by in the messages that follow: nine letters and digits, which templates of Mistral ask for.
  static func newCallID() -> String {
    String((0..<9).map { _ in callIDCharacters.randomElement() ?? "0" })
  }

  private static let callIDCharacters = Array(
    "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
}
