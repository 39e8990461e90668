import Synchronization

/// Memory of what was answered and is not sent yet, of all requests together.
///
/// Where there is no room for more, the request that has most of it ends: that of a client that reads slower than it is
/// answered, or that asks for much at once.
final class AnswerMemory: Sendable {
  private let byteLimit: Int
  private let state = Mutex(State())

  private struct Holding {
    weak var mailbox: AnswerMailbox?
    var byteCount = 0
  }

  private struct State {
    var byteCount = 0
    var holdings: [ObjectIdentifier: Holding] = [:]

    mutating func remove(_ key: ObjectIdentifier) {
      byteCount -= holdings.removeValue(forKey: key)?.byteCount ?? 0
    }
  }

  init(byteLimit: Int) { self.byteLimit = byteLimit }

  func add(_ byteCount: Int, of mailbox: AnswerMailbox) {
    let largest = state.withLock { state -> AnswerMailbox? in
      state.byteCount += byteCount
      state.holdings[ObjectIdentifier(mailbox), default: Holding(mailbox: mailbox)].byteCount +=
        byteCount
      guard state.byteCount > byteLimit,
        let most = state.holdings.max(by: { $0.value.byteCount < $1.value.byteCount })
      else { return nil }
      state.remove(most.key)
      return most.value.mailbox
    }
    largest?.giveUp()
  }

  /// Makes room for others; that of a mailbox which was given up has been made.
  func remove(_ byteCount: Int, of mailbox: AnswerMailbox) {
    let key = ObjectIdentifier(mailbox)
    state.withLock { state in
      guard let held = state.holdings[key]?.byteCount else { return }
      state.holdings[key]?.byteCount -= min(held, byteCount)
      state.byteCount -= min(held, byteCount)
    }
  }

  func forget(_ mailbox: ObjectIdentifier) { state.withLock { $0.remove(mailbox) } }
}

/// Parts of a request's answers, on their way from those who read the engine's events to the one who sends them.
final class AnswerMailbox: Sendable {
  private struct State {
    /// In order; nil is taken.
    var parts: [AnswerPart?] = []
    var nextIndex = 0
    var isGivenUp = false
  }

  private let state = Mutex(State())
  private let memory: AnswerMemory
  private let earlyEnd: EarlyEnd
  /// Whether what was taken stays in memory, since it is sent at once in the end.
  private let collects: Bool
  /// Says that there may be something to take.
  let signals: AsyncStream<Void>
  private let source: AsyncStream<Void>.Continuation

  init(_ memory: AnswerMemory, _ earlyEnd: EarlyEnd, collects: Bool) {
    self.memory = memory
    self.earlyEnd = earlyEnd
    self.collects = collects
    (signals, source) = AsyncStream.makeStream(bufferingPolicy: .bufferingNewest(1))
  }

  deinit { memory.forget(ObjectIdentifier(self)) }

  func put(_ part: AnswerPart) {
    let isTaken = state.withLock { state in
      if !state.isGivenUp { state.parts.append(part) }
      return !state.isGivenUp
    }
    if isTaken { memory.add(part.byteCount, of: self) }
    source.yield()
  }

  /// The next part; nil where there is none yet.
  ///
  /// - Throws: ``APIError`` where there is no memory for the answers.
  func take() throws -> AnswerPart? {
    try state.withLock { state in
      guard !state.isGivenUp else { throw APIError.noAnswerMemory }
      guard state.nextIndex < state.parts.count else { return nil }
      let part = state.parts[state.nextIndex]
      state.parts[state.nextIndex] = nil
      state.nextIndex += 1
      if state.nextIndex == state.parts.count || state.nextIndex == Self.mostTaken {
        state.parts.removeFirst(state.nextIndex)
        state.nextIndex = 0
      }
      return part
    }
  }

  private static let mostTaken = 256

  /// Notes that a part was sent, or collected.
  func note(_ part: AnswerPart) {
    memory.remove(collects ? AnswerPart.ownByteCount : part.byteCount, of: self)
  }

  /// Ends the answers, and frees what of them is there.
  fileprivate func giveUp() {
    state.withLock { state in
      state.isGivenUp = true
      (state.parts, state.nextIndex) = ([], 0)
    }
    earlyEnd.end(.left)
    source.yield()
  }
}

extension AnswerPart {
  /// Memory of a part in a list, whatever it says.
  static let ownByteCount = 192
  /// A token's report, and each token that could have stood there, as they are and as JSON.
  private static let reportByteCount = 160

  /// Memory that it takes until it is sent, that of what it is sent as included.
  var byteCount: Int {
    guard case .pieces(_, let pieces, let reports) = self else { return Self.ownByteCount }
    let textByteCount = pieces.reduce(0) { sum, piece in
      switch piece {
      case .text(let bytes), .reasoning(let bytes), .arguments(_, let bytes): sum + 3 * bytes.count
      case .call(_, let name): sum + 3 * name.utf8.count + 64
      }
    }
    return reports.reduce(Self.ownByteCount + textByteCount) {
      $0 + Self.reportByteCount * (1 + $1.alternatives.count)
    }
  }
}
