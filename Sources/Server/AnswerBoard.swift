import ModelFormat
import Runtime
import Synchronization

/// What is known of the answers under way, and of all prompts, for `/slots` and `/state`.
final class AnswerBoard: Sendable {
  private struct Entry {
    var phase = "queued"
    var promptCount = 0
    var readCount = 0
    var reusedCount = 0
    var answerCount = 0
  }

  /// Tokens of prompts.
  struct Prompts {
    var tokenCount = 0
    /// Those that had been read before.
    var reusedCount = 0
  }

  private let entries = Mutex<[UInt64: Entry]>([:])
  private let total = Mutex(Prompts())

  /// Of all answers that ended.
  var prompts: Prompts { total.withLock { $0 } }

  func begin(_ id: UInt64, promptCount: Int) {
    entries.withLock { $0[id] = Entry(promptCount: promptCount) }
  }
  func end(_ id: UInt64) { entries.withLock { $0[id] = nil } }

  func note(_ event: TokenSequence.Event, of id: UInt64) {
    if case .finished(let finish) = event {
      total.withLock { total in
        total.tokenCount += finish.usage.promptTokenCount
        total.reusedCount += finish.usage.reusedTokenCount
      }
    }
    entries.withLock { entries in
      switch event {
      case .reading(let done, _, let reused):
        entries[id]?.phase = "reading"
        entries[id]?.readCount = done
        entries[id]?.reusedCount = reused
      case .token:
        entries[id]?.phase = "answering"
        entries[id]?.answerCount += 1
      case .queued, .finished, .failed: break
      }
    }
  }

  /// Writes an object for each answer, the oldest first.
  func write(to json: inout JSONWriter, _ key: String) {
    let entries = entries.withLock { $0 }.sorted { $0.key < $1.key }
    json.array(key, of: entries) { list, pair in
      list.object { json in
        json.number("id", pair.key)
        json.text("state", pair.value.phase)
        json.number("prompt_tokens", pair.value.promptCount)
        json.number("read_tokens", pair.value.readCount)
        json.number("cached_tokens", pair.value.reusedCount)
        json.number("completion_tokens", pair.value.answerCount)
      }
    }
  }
}
