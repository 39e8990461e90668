import Synchronization
import TensorBasics

/// All requests of a load.
public struct LoadRun: Sendable {
  private let client: LoadClient
  private let requests: [LoadRequest]
  private let arrivals: Arrivals

  public init(_ client: LoadClient, _ requests: [LoadRequest], _ arrivals: Arrivals) {
    self.client = client
    self.requests = requests
    self.arrivals = arrivals
  }

  /// Posts them, and waits for all answers.
  ///
  /// - Parameter onEnd: called with the number of requests that have ended, from any thread.
  /// - Returns: what became of each, in the order of the requests.
  public func run(onEnd: @escaping @Sendable (Int) -> Void = { _ in }) async -> [RequestOutcome] {
    let ended = Counter()
    @Sendable func send(_ number: Int, start: Int) async -> (Int, RequestOutcome) {
      let outcome = await client.send(requests[number], start: start)
      onEnd(ended.next() + 1)
      return (number, outcome)
    }
    let found =
      switch arrivals {
      case .rate: await sendAtMoments(send)
      case .clients(let count): await sendInTurn(count, send)
      }
    return found.sorted { $0.0 < $1.0 }.map(\.1)
  }

  private typealias Send = @Sendable (_ number: Int, _ start: Int) async -> (Int, RequestOutcome)

  private func sendAtMoments(_ send: @escaping Send) async -> [(Int, RequestOutcome)] {
    let begin = monotonicNanoseconds()
    return await withTaskGroup(of: (Int, RequestOutcome).self) { group in
      for (number, moment) in (arrivals.moments(requests.count) ?? []).enumerated() {
        let start = begin + Int(moment * 1e9)
        let wait = start - monotonicNanoseconds()
        if wait > 0 { try? await Task.sleep(for: .nanoseconds(wait)) }
        group.addTask { await send(number, start) }
      }
      var found: [(Int, RequestOutcome)] = []
      for await one in group { found.append(one) }
      return found
    }
  }

  private func sendInTurn(_ clientCount: Int, _ send: @escaping Send) async -> [(
    Int, RequestOutcome
  )] {
    let numbers = Counter()
    let count = requests.count
    return await withTaskGroup(of: [(Int, RequestOutcome)].self) { group in
      for _ in 0..<min(clientCount, count) {
        group.addTask {
          var found: [(Int, RequestOutcome)] = []
          while case let number = numbers.next(), number < count {
            found.append(await send(number, monotonicNanoseconds()))
          }
          return found
        }
      }
      var found: [(Int, RequestOutcome)] = []
      for await some in group { found += some }
      return found
    }
  }
}

/// Numbers from 0 on, each for one who asks.
private final class Counter: Sendable {
  private let count = Atomic(0)

  func next() -> Int { count.add(1, ordering: .relaxed).oldValue }
}
