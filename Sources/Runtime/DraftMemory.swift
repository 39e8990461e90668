/// What drafters remember of all answers of an engine or session.
package final class DraftMemory {
  package let history: OutputHistory
  package let successors: TokenSuccessors

  package init(vocabularyCount: Int, historyCapacity: Int = OutputHistory.usualCapacity) {
    history = OutputHistory(capacity: historyCapacity)
    successors = TokenSuccessors(vocabularyCount: vocabularyCount)
  }

  /// Memory of one.
  static func byteCount(vocabularyCount: Int) -> Int {
    OutputHistory.byteCount + TokenSuccessors.byteCount(vocabularyCount: vocabularyCount)
  }
}
