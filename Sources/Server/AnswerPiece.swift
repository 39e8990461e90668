/// What an answer consists of, as it comes.
package enum AnswerPiece: Sendable, Equatable {
  case text([UInt8])
  /// What the model thought before it answered.
  case reasoning([UInt8])
  /// The model calls a tool: the first of an answer is call 0.
  case call(index: Int, name: String)
  /// More of a call's arguments, an object of JSON as the model wrote it.
  case arguments(index: Int, [UInt8])

  /// Its text; none where it is something else.
  var text: [UInt8] { if case .text(let bytes) = self { bytes } else { [] } }
}

extension [AnswerPiece] {
  /// Adds a piece, to the last one where it continues that.
  package mutating func add(_ piece: AnswerPiece) {
    guard var bytes = last.flatMap({ Self.continued($0, by: piece) }) else { return append(piece) }
    // Taken out of the list first, so that they are not copied.
    removeLast()
    switch piece {
    case .text(let more):
      bytes += more
      append(.text(bytes))
    case .reasoning(let more):
      bytes += more
      append(.reasoning(bytes))
    case .arguments(let index, let more):
      bytes += more
      append(.arguments(index: index, bytes))
    case .call: append(piece)
    }
  }

  /// The bytes of a piece that another one continues; nil where that is another piece.
  private static func continued(_ old: AnswerPiece, by new: AnswerPiece) -> [UInt8]? {
    switch (old, new) {
    case (.text(let bytes), .text), (.reasoning(let bytes), .reasoning): bytes
    case (.arguments(let index, let bytes), .arguments(let newIndex, _)) where index == newIndex:
      bytes
    default: nil
    }
  }
}
