/// The events of one turn of a ``TokenSequence``.
///
/// ```swift
/// for try await event in sequence.events { … }
/// ```
///
/// Ends with the turn, or when the task is cancelled; the sequence goes on then, unless it is cancelled or dropped.
public struct SequenceEvents: AsyncSequence, Sendable {
  public typealias Element = TokenSequence.Event
  public typealias Failure = Never

  let sequence: TokenSequence

  public func makeAsyncIterator() -> Iterator { Iterator(sequence: sequence) }

  public struct Iterator: AsyncIteratorProtocol {
    let sequence: TokenSequence

    public mutating func next() async -> Element? { await next(isolation: nil) }

    public mutating func next(isolation actor: isolated (any Actor)?) async -> Element? {
      while !Task.isCancelled {
        switch sequence.pull(timeout: .zero) {
        case .event(let event): return event
        case .end: return nil
        case .timeout: await sequence.waitForNews()
        }
      }
      return nil
    }
  }
}
