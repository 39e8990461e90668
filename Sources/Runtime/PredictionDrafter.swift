import KVCache
import ModelFormat

/// Proposes the tokens that the model's own layer for further tokens draws, one after the other, with the noise of the sequence
/// that they are for.
///
/// Slot s of its cache is made of the model's hidden state after the token at p, and of the embedding of the token at p + 1, and
/// gives the token at p + 2, where p is s after the first state that it was given: RoPE knows distances alone. After what the
/// model has read, its own states stand for the model's.
package final class PredictionDrafter: Drafter {
  private let model: DraftModel
  private let contextLength: Int
  private let memory: DraftMemory?
  private var window: StateWindow
  /// Its keys and values; nil before the first proposal.
  private var cache: KeyValueStore?
  /// Positions whose states by the model are in the cache, from slot 0 on.
  private var held = 0..<0
  /// The last row's state by itself [hiddenSize].
  private var state: [Float]
  /// The context, and what was drawn after it.
  private var path: [Int32] = []
  package private(set) var stepCount = 0

  package init(_ model: DraftModel, contextLength: Int, memory: DraftMemory?) {
    self.model = model
    (self.contextLength, self.memory) = (contextLength, memory)
    let hiddenSize = model.model.configuration.hiddenSize
    window = StateWindow(hiddenSize: hiddenSize)
    state = [Float](repeating: 0, count: hiddenSize)
    path.reserveCapacity(contextLength + Draft.wideCapacity)
  }

  deinit { cache?.close() }

  package var fallback: (any Drafter)? {
    LookupDrafter(contextLength: contextLength, memory: memory)
  }

  package var wantsStates: Bool { true }

  package func take(states: UnsafePointer<Float>, rowCount: Int, at position: Int) {
    window.take(states, rowCount: rowCount, at: position)
  }

  /// Memory of one, without its keys and values.
  static func byteCount(hiddenSize: Int) -> Int {
    StateWindow.byteCount(hiddenSize: hiddenSize) + MemoryLayout<Float>.stride * hiddenSize
  }

  package func propose(after context: DraftContext, into draft: inout Draft) throws(RuntimeError) {
    // The last token is not read.
    let end = context.path.count - 1
    guard window.positions.contains(end - 1), let cache = try openCache() else { return }
    path.removeAll(keepingCapacity: true)
    path.append(contentsOf: context.path)
    try cut(cache, to: end - 1)
    guard var next = try read(upTo: end, context, in: cache) else { return }
    while true {
      draft.append(next.token, grade: next.grade)
      path.append(next.token)
      guard draft.wantsMore, cache.positionCount < cache.limit else { return }
      guard let following = try readDrawn(context, in: cache) else { return }
      next = following
    }
  }

  /// Has the cache hold no states but the model's, and none of `end` and later positions.
  private func cut(_ cache: KeyValueStore, to end: Int) throws(RuntimeError) {
    let kept = held.lowerBound..<max(held.lowerBound, min(held.upperBound, end))
    let continues = kept.upperBound >= window.positions.lowerBound && kept.lowerBound <= end
    let count = continues ? kept.count : 0
    if cache.positionCount > count { _ = try model.core().truncate(cache, to: count) }
    guard continues, cache.positionCount == count else {
      if cache.positionCount > 0 { _ = try model.core().truncate(cache, to: 0) }
      held = window.positions.lowerBound..<window.positions.lowerBound
      return
    }
    held = kept
  }

  /// What it draws, and how sure it is of that.
  private typealias Drawn = (token: Int32, grade: Int)

  /// Reads the model's states of all positions before `end` that it has not read.
  ///
  /// - Returns: what follows the path; nil where there is no room for them.
  private func read(
    upTo end: Int, _ context: DraftContext, in cache: KeyValueStore
  ) throws(RuntimeError) -> Drawn? {
    guard end - held.lowerBound <= cache.limit else { return nil }
    let core = try model.core()
    var drawn: Drawn?
    while held.upperBound < end {
      let count = min(end - held.upperBound, core.plan.chunkLength)
      let width = state.count
      for row in 0..<count {
        window.copy(held.upperBound + row, to: core.inputStates + row * width)
      }
      let tokens = path[held.upperBound + 1..<held.upperBound + 1 + count]
      drawn = try step(
        tokens, in: cache, context, draws: held.upperBound + count == end)
      held = held.lowerBound..<held.upperBound + count
    }
    return drawn
  }

  /// Reads what it drew last, and its own state in place of the model's.
  private func readDrawn(
    _ context: DraftContext, in cache: KeyValueStore
  ) throws(RuntimeError) -> Drawn? {
    try model.core().inputStates.update(from: state, count: state.count)
    return try step(path.suffix(1), in: cache, context, draws: true)
  }

  /// Runs the layer over tokens whose states are in place.
  private func step(
    _ tokens: ArraySlice<Int32>, in cache: KeyValueStore, _ context: DraftContext, draws: Bool
  ) throws(RuntimeError) -> Drawn? {
    stepCount += 1
    let core = try model.core()
    core.batch.removeAll()
    tokens.withUnsafeBufferPointer {
      core.batch.append(
        $0, at: cache.positionCount, .read, in: cache, logitCount: draws ? 1 : 0,
        states: .pooling)
    }
    let last = (tokens.count - 1) * state.count
    var drawn: Drawn?
    do throws(RuntimeError) {
      try core.step(
        continues: true,
        pool: { states in
          state.withUnsafeMutableBufferPointer { own in
            own.baseAddress?.update(from: states + last, count: own.count)
          }
        },
        { _, logits in
          drawn = model.draw(
            UnsafeBufferPointer(logits), context.sampling, path: path,
            answerStart: context.answerStart)
        })
    } catch {
      core.abandon()
      throw error
    }
    return drawn
  }

  private func openCache() throws(RuntimeError) -> KeyValueStore? {
    if cache == nil {
      let core = try model.core()
      if core.freeSequenceCount > 0 { cache = try core.openSequence() }
    }
    return cache
  }
}
