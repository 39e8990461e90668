import ModelFormat
import Runtime
import Synchronization

/// What is known of the answers under way, and of all prompts, for `/slots` and `/state`.
final class AnswerBoard: Sendable {
  private struct Entry {
    let client: String
    let priority: Int
    var phase = "queued"
    var aheadCount: Int?
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

  /// - Parameter priority: nil = as the client's key says.
  func begin(
    _ id: UInt64, promptCount: Int, for client: RequestClient, priority: Int? = nil
  ) {
    let entry = Entry(
      client: client.name, priority: priority ?? client.leastPriority, promptCount: promptCount)
    entries.withLock { $0[id] = entry }
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
      case .queued(let ahead): entries[id]?.aheadCount = ahead
      case .reading(let done, _, let reused):
        entries[id]?.phase = "reading"
        entries[id]?.aheadCount = nil
        entries[id]?.readCount = done
        entries[id]?.reusedCount = reused
      case .token:
        entries[id]?.phase = "answering"
        entries[id]?.aheadCount = nil
        entries[id]?.answerCount += 1
      case .finished, .failed: break
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
        json.text("client", pair.value.client)
        json.number("priority", pair.value.priority)
        json.number("ahead", pair.value.aheadCount)
        json.number("prompt_tokens", pair.value.promptCount)
        json.number("read_tokens", pair.value.readCount)
        json.number("cached_tokens", pair.value.reusedCount)
        json.number("completion_tokens", pair.value.answerCount)
      }
    }
  }
}
