import Kernels

/// Draws the tokens of several sequences at the same time, one sequence a worker.
final class DrawRegion: ParallelRegion {
  private let pool: ThreadPool
  private let vocabularyCount: Int
  /// A worker's scratch each.
  private let samplers: UnsafeMutableBufferPointer<Sampler>
  /// Those that are drawn for; nil where nobody wants the token.
  private var rows: [ActiveSequence?] = []
  /// [rows.count, vocabularyCount]
  private var logits: UnsafePointer<Float>?

  init(vocabularyCount: Int, pool: ThreadPool) {
    self.pool = pool
    self.vocabularyCount = vocabularyCount
    samplers = .allocate(capacity: pool.threadCount)
    for worker in samplers.indices {
      samplers.initializeElement(
        at: worker, to: Sampler(forAnyOptionsOf: vocabularyCount))
    }
  }

  deinit {
    samplers.deinitialize()
    samplers.deallocate()
  }

  /// Memory of a region.
  static func byteCount(vocabularyCount: Int, threadCount: Int) -> Int {
    threadCount * Sampler.byteCount(vocabularyCount: vocabularyCount)
  }

  /// Draws the token of each of `rows` from its logits.
  func draw(
    for rows: some Sequence<ActiveSequence?>, from logits: UnsafeMutableBufferPointer<Float>
  ) {
    self.rows.append(contentsOf: rows)
    self.logits = UnsafePointer(logits.baseAddress)
    pool.run(count: self.rows.count, self)
    self.rows.removeAll(keepingCapacity: true)
  }

  func perform(index: Int, worker: Int) {
    guard let logits, let row = rows[index] else { return }
    row.draw(
      UnsafeBufferPointer(start: logits + index * vocabularyCount, count: vocabularyCount),
      &samplers[worker])
  }
}
