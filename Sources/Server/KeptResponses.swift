import HTTPTypes
import Synchronization

/// Responses that others may go on from, as far as there is room: those used least recently go first.
final class KeptResponses: Sendable {
  private struct State {
    var entries: [String: (response: KeptResponse, lastUse: Int)] = [:]
    var byteCount = 0
    var useCount = 0
  }

  /// Most bytes of all of them.
  let byteLimit: Int
  private let state = Mutex(State())

  init(byteLimit: Int) { self.byteLimit = byteLimit }

  /// Keeps a response; one that is longer than all may be is not kept.
  func keep(_ response: KeptResponse) {
    guard response.byteCount <= byteLimit else { return }
    state.withLock { state in
      state.useCount += 1
      state.entries[response.id] = (response, state.useCount)
      state.byteCount += response.byteCount
      while state.byteCount > byteLimit,
        let oldest = state.entries.min(by: { $0.value.lastUse < $1.value.lastUse })
      {
        state.entries[oldest.key] = nil
        state.byteCount -= oldest.value.response.byteCount
      }
    }
  }

  /// A response that is kept.
  ///
  /// - Parameter field: that names it, in the body of the request; nil = its path does.
  /// - Throws: ``APIError`` with 404.
  func find(_ id: String?, field: String? = nil) throws -> KeptResponse {
    let id = id ?? ""
    let found = state.withLock { state -> KeptResponse? in
      state.useCount += 1
      state.entries[id]?.lastUse = state.useCount
      return state.entries[id]?.response
    }
    guard let found else { throw Self.missing(id, field) }
    return found
  }

  /// Forgets a response.
  ///
  /// - Throws: ``APIError`` with 404 where there is none.
  func remove(_ id: String?) throws {
    let id = id ?? ""
    let removed = state.withLock { state -> Bool in
      guard let entry = state.entries.removeValue(forKey: id) else { return false }
      state.byteCount -= entry.response.byteCount
      return true
    }
    guard removed else { throw Self.missing(id, nil) }
  }

  private static func missing(_ id: String, _ field: String?) -> APIError {
    APIError(
      .notFound,
      "there is no response '\(id.prefix(80))' here: it was not kept, was deleted, or made room for others "
        + "(the server's --keep-responses)", field: field,
      code: field == nil ? "response_not_found" : "previous_response_not_found")
  }
}

/// A response, and what it takes to go on from it.
struct KeptResponse: Sendable {
  let id: String
  /// As it was told.
  let json: [UInt8]
  /// The conversation in the form that chat templates are given, its answer last: each message as JSON. Instructions are
  /// no part of it.
  let messages: [[UInt8]]
  /// Tokens of its prompt and its answer.
  let tokens: [Int32]
  /// What the prompt begins with beside messages: instructions, tools and arguments of the template.
  let frame: [UInt8]

  var byteCount: Int {
    messages.reduce(Self.overhead + json.count + frame.count) { $0 + $1.count + 32 }
      + MemoryLayout<Int32>.stride * tokens.count
  }

  /// Of dictionary, id and allocations.
  private static let overhead = 1024
}
