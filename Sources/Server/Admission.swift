import HTTPTypes
import Runtime
import Synchronization
import TensorBasics

/// How many answers may be under way or wait: a request beyond that is told when to come again.
///
/// Whoever has most of them makes room: where all are taken and a client comes that has fewer, the other's newest request
/// that waits is sent away in its place.
package final class Admission: Sendable {
  /// Answers to a request, as far as making room for others needs them.
  package protocol Occupant: AnyObject, Sendable {
    /// Whether all of them still wait for a place.
    var isQueued: Bool { get }
    /// They are given up, because others have fewer.
    func giveWay(retrySeconds: Int)
  }

  /// Answers that the engine has places for, and those that may wait.
  let placeCount: Int
  let queueCount: Int
  private let grammarByteLimit: Int
  private let state = Mutex(State())

  fileprivate struct Entry {
    let client: String
    let count: Int
    let grammarByteCount: Int
    let occupant: any Occupant
    let startNanoseconds: Int
  }

  fileprivate struct State {
    var answerCount = 0
    var grammarByteCount = 0
    /// By the order in which they came.
    var entries: [UInt64: Entry] = [:]
    var lastNumber: UInt64 = 0
    /// Moving average of what an answer takes once it has a place; nil before the first has ended.
    var meanSeconds: Double?
    /// When the last of those that were sent away was told to come again.
    var promisedNanoseconds = 0
  }

  /// - Parameter grammarByteLimit: memory of the grammars of all answers.
  package init(placeCount: Int, queueCount: Int, grammarByteLimit: Int = 8 << 20) {
    self.grammarByteLimit = grammarByteLimit
    self.placeCount = placeCount
    self.queueCount = queueCount
  }

  /// A request's share, which is given back with its last reference, when its answers have been sent.
  package final class Share: Sendable {
    private let admission: Admission
    private let number: UInt64

    fileprivate init(_ admission: Admission, _ number: UInt64) {
      self.admission = admission
      self.number = number
    }

    deinit { admission.state.withLock { _ = $0.remove(number) } }
  }

  /// Learns from an answer that ended how long they take.
  func note(_ usage: TokenSequence.Usage) {
    guard let begin = usage.beginNanoseconds else { return }
    note(seconds: Double(usage.endNanoseconds - begin) / 1e9)
  }

  package func note(seconds: Double) {
    state.withLock { state in
      let mean = state.meanSeconds ?? seconds
      state.meanSeconds = mean + (seconds - mean) / 8
    }
  }

  /// Room for so many answers.
  ///
  /// - Parameter grammarByteCount: memory of what says what they must be.
  /// - Throws: ``APIError``: 429 where there is none now, 503 where there is none for the grammar, 400 where there never is.
  package func enter(
    _ count: Int, for client: String, grammarByteCount: Int = 0, _ occupant: any Occupant
  ) throws -> Share {
    let most = placeCount + queueCount
    guard count <= most else {
      throw APIError.bad(
        "n", "the request asks for \(count) answers; at most \(most) can be under way or wait",
        code: "too_many_answers")
    }
    let (result, evicted) = state.withLock { state in
      let excess = state.answerCount + count - most
      guard let evicted = state.evictions(for: client, count, excess: excess) else {
        let seconds = state.promise(count, excess: excess, placeCount: placeCount, most: most)
        return (Result<UInt64, APIError>.failure(full(seconds)), [any Occupant]())
      }
      guard state.grammarByteCount + grammarByteCount <= grammarByteLimit else {
        let seconds = state.promise(count, excess: count, placeCount: placeCount, most: most)
        return (.failure(Self.noRoomForGrammar(seconds)), [])
      }
      let occupants = evicted.compactMap { state.remove($0)?.occupant }
      let number = state.add(
        Entry(
          client: client, count: count, grammarByteCount: grammarByteCount, occupant: occupant,
          startNanoseconds: monotonicNanoseconds()))
      return (.success(number), occupants)
    }
    for other in evicted {
      other.giveWay(
        retrySeconds: state.withLock {
          $0.promise(1, excess: 1, placeCount: placeCount, most: most)
        })
    }
    return Share(self, try result.get())
  }

  private static func noRoomForGrammar(_ retrySeconds: Int) -> APIError {
    APIError(
      .serviceUnavailable,
      "the grammars of the answers under way take all the memory that there is for them: come again in about "
        + "\(retrySeconds) s", code: "grammar_memory_full", retrySeconds: retrySeconds)
  }

  private func full(_ retrySeconds: Int) -> APIError {
    APIError(
      .tooManyRequests,
      "\(placeCount) answers are under way and \(queueCount) wait: come again in about "
        + "\(retrySeconds) s", code: "queue_full", retrySeconds: retrySeconds)
  }
}

extension Admission.State {
  fileprivate mutating func add(_ entry: Admission.Entry) -> UInt64 {
    lastNumber += 1
    answerCount += entry.count
    grammarByteCount += entry.grammarByteCount
    entries[lastNumber] = entry
    return lastNumber
  }

  fileprivate mutating func remove(_ number: UInt64) -> Admission.Entry? {
    guard let entry = entries.removeValue(forKey: number) else { return nil }
    answerCount -= entry.count
    grammarByteCount -= entry.grammarByteCount
    return entry
  }

  /// In how many seconds a request that is sent away finds room for `count` answers.
  ///
  /// That is when `excess` answers will have ended, and after those who were told to come before it; at most when all that is under
  /// way and waits now will have, so that whoever asks again too soon makes nobody wait longer.
  fileprivate mutating func promise(
    _ count: Int, excess: Int, placeCount: Int, most: Int
  ) -> Int {
    let now = monotonicNanoseconds()
    // Where none has ended, one takes at least as long as the oldest is there.
    let oldest = entries.values.lazy.map(\.startNanoseconds).min()
    let seconds = meanSeconds ?? oldest.map { Double(now - $0) / 1e9 } ?? 0
    let each = seconds * 1e9 / Double(placeCount)
    let wait = max(each * Double(excess), Double(promisedNanoseconds - now) + each * Double(count))
    let bounded = min(600e9, max(each * Double(excess), min(wait, each * Double(most))))
    promisedNanoseconds = now + Int(bounded)
    return max(1, Int((bounded / 1e9).rounded(.up)))
  }

  /// Requests that make room for one of `client`; none where there is room, nil where nobody has to.
  fileprivate func evictions(for client: String, _ count: Int, excess: Int) -> [UInt64]? {
    guard excess > 0 else { return [] }
    var counts: [String: Int] = [:]
    for entry in entries.values { counts[entry.client, default: 0] += entry.count }
    let own = counts[client, default: 0] + count
    var (candidates, evicted, left) = ([String: [UInt64]](), [UInt64](), excess)
    for number in entries.keys.sorted() {
      guard let entry = entries[number], entry.client != client, entry.occupant.isQueued else {
        continue
      }
      candidates[entry.client, default: []].append(number)
    }
    while left > 0 {
      // Of several that have as many, whose newest is newest.
      let richest = candidates.max {
        (counts[$0.key, default: 0], $0.value.last ?? 0)
          < (counts[$1.key, default: 0], $1.value.last ?? 0)
      }
      guard let (other, numbers) = richest, let newest = numbers.last,
        let entry = entries[newest], counts[other, default: 0] - entry.count >= own
      else { return nil }
      evicted.append(newest)
      left -= entry.count
      counts[other, default: 0] -= entry.count
      candidates[other] = numbers.count > 1 ? Array(numbers.dropLast()) : nil
    }
    return evicted
  }
}
