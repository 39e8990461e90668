import HTTPTypes
import Runtime
import Synchronization

/// The vectors of a request's inputs, which are read at the same time as far as there are places.
final class Embeddings: Admission.Occupant {
  /// Tokens of each input.
  private let inputs: [[Int32]]
  private let pooling: Pooling
  private let client: RequestClient
  private let desk: AnswerDesk
  private let state = Mutex(State())

  private struct State {
    var open: [UInt64: TokenSequence] = [:]
    var isCancelled = false
    /// Whether one of the inputs was read.
    var hasVector = false
    /// Why it was cancelled, where that is not the client's own wish.
    var refusal: APIError?
  }

  init(
    _ inputs: [[Int32]], _ pooling: Pooling, for client: RequestClient, at desk: AnswerDesk
  ) {
    self.inputs = inputs
    self.pooling = pooling
    self.client = client
    self.desk = desk
  }

  /// Ends it; whoever waits for the vectors is told.
  func cancel() {
    state.withLock { state in
      state.isCancelled = true
      for sequence in state.open.values { sequence.cancel() }
    }
  }

  var isQueued: Bool {
    let (open, hasVector) = state.withLock { (Array($0.open.values), $0.hasVector) }
    return !hasVector && !open.isEmpty && open.allSatisfy(\.isQueued)
  }

  func giveWay(retrySeconds: Int) {
    state.withLock { $0.refusal = .gaveWay(retrySeconds) }
    cancel()
  }

  /// The vectors, of length 1, in the order of the inputs.
  ///
  /// - Throws: ``APIError``; `CancellationError` where it was cancelled.
  func vectors() async throws -> [[Float]] {
    let count = min(inputs.count, desk.engine.plan.sequenceCount)
    let share = try desk.admission.enter(count, for: client.name, self)
    defer { withExtendedLifetime(share) {} }
    let deadline = try desk.timeLimit(nil).map { ContinuousClock.now + $0 }
    var vectors = [[Float]](repeating: [], count: inputs.count)
    try await withThrowingTaskGroup(of: (Int, [Float]).self) { group in
      for index in 0..<count { group.addTask { (index, try await self.vector(index)) } }
      if let deadline {
        group.addTask {
          try await Task.sleep(until: deadline, clock: .continuous)
          throw APIError.timeIsOver
        }
      }
      defer { group.cancelAll() }
      var (next, openCount) = (count, inputs.count)
      while openCount > 0, let (index, vector) = try await group.next() {
        vectors[index] = vector
        openCount -= 1
        state.withLock { $0.hasVector = true }
        guard next < inputs.count else { continue }
        group.addTask { [next] in (next, try await self.vector(next)) }
        next += 1
      }
    }
    return vectors
  }

  private func vector(_ index: Int) async throws -> [Float] {
    let sequence = try open(inputs[index])
    desk.board.begin(sequence.id, promptCount: inputs[index].count, for: client)
    defer {
      desk.board.end(sequence.id)
      state.withLock { $0.open[sequence.id] = nil }
      sequence.cancel()
    }
    for await event in sequence.events {
      desk.board.note(event, of: sequence.id)
      switch event {
      case .finished(let finish):
        guard finish.reason != .cancelled, let vector = finish.embedding else { break }
        desk.note(finish.usage)
        return Self.normalised(vector)
      case .failed(let error): throw desk.refusal(error, field: "input")
      case .queued, .reading, .token: break
      }
    }
    throw state.withLock { $0.refusal ?? CancellationError() as any Error }
  }

  private func open(_ tokens: [Int32]) throws -> TokenSequence {
    var request = SequenceRequest(tokens: tokens, limit: 0)
    request.pooling = pooling
    request.contextLimit = tokens.count
    (request.client, request.priority) = (client.name, client.leastPriority)
    return try state.withLock { state in
      guard !state.isCancelled else { throw CancellationError() }
      do throws(RuntimeError) {
        let sequence = try desk.engine.open(request, whenFull: .queue)
        state.open[sequence.id] = sequence
        return sequence
      } catch { throw desk.refusal(error, field: "input") }
    }
  }

  /// A vector of length 1 in the same direction; one without a direction stays as it is.
  static func normalised(_ vector: [Float]) -> [Float] {
    let square = vector.reduce(0.0) { $0 + Double($1) * Double($1) }
    guard square > 0 else { return vector }
    let factor = 1 / square.squareRoot()
    return vector.map { Float(Double($0) * factor) }
  }
}

/// Memory of vectors that are computed or sent, of all requests together.
final class EmbeddingMemory: Sendable {
  private let byteLimit: Int
  private let total = Mutex(0)

  init(byteLimit: Int) { self.byteLimit = byteLimit }

  /// A request's share, which is given back with its last reference.
  final class Share: Sendable {
    private let memory: EmbeddingMemory
    private let byteCount: Int

    fileprivate init(_ memory: EmbeddingMemory, _ byteCount: Int) {
      self.memory = memory
      self.byteCount = byteCount
    }

    deinit { memory.total.withLock { $0 -= byteCount } }
  }

  /// Room for `count` vectors of `size` numbers.
  ///
  /// - Throws: ``APIError``: 400 where there never is, 503 where there is none now.
  func enter(_ count: Int, size: Int) throws -> Share {
    let vectorByteCount = MemoryLayout<Float>.stride * size
    let most = byteLimit / vectorByteCount
    guard count <= most else {
      throw APIError.bad(
        "input", "'input' has \(count) texts; a request may have \(most) of this model's vectors")
    }
    let byteCount = count * vectorByteCount
    let hasRoom = total.withLock { total -> Bool in
      guard total + byteCount <= byteLimit else { return false }
      total += byteCount
      return true
    }
    guard hasRoom else {
      throw APIError(
        .serviceUnavailable, "too many vectors are computed at the same time", retrySeconds: 1)
    }
    return Share(self, byteCount)
  }
}
