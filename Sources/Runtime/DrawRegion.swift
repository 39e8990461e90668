import Grammar
import Kernels

/// Draws the tokens of several sequences at the same time, one sequence a worker.
final class DrawRegion: ParallelRegion {
  private let pool: ThreadPool
  private let vocabularyCount: Int
  /// A worker's scratch each.
  private let samplers: UnsafeMutableBufferPointer<Sampler>
  /// Those that are drawn for.
  private var entries: [Entry] = []
  private var logits: UnsafePointer<Float>?

  /// A sequence's rows of logits: that of its last token, and of drafts after it.
  struct Entry {
    var sequence: ActiveSequence
    var rows: Range<Int>
  }

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

  /// Draws the tokens of each of `entries` from its rows of `logits`.
  ///
  /// - Parameter masks: what grammars say of the vocabulary.
  func draw(
    for entries: some Sequence<Entry>, from logits: UnsafeMutableBufferPointer<Float>,
    _ masks: () -> TokenMasks
  ) {
    self.entries.append(contentsOf: entries)
    self.logits = UnsafePointer(logits.baseAddress)
    pool.run(count: self.entries.count, self)
    for entry in self.entries where entry.sequence.isConstrained && entry.rows.count > 1 {
      entry.sequence.drawOn(
        rows(of: entry), vocabularyCount: vocabularyCount, &samplers[0], masks)
    }
    self.entries.removeAll(keepingCapacity: true)
  }

  func perform(index: Int, worker: Int) {
    entries[index].sequence.draw(
      rows(of: entries[index]), vocabularyCount: vocabularyCount, &samplers[worker])
  }

  private func rows(of entry: Entry) -> UnsafeBufferPointer<Float> {
    UnsafeBufferPointer(
      start: logits.map { $0 + entry.rows.lowerBound * vocabularyCount },
      count: entry.rows.count * vocabularyCount)
  }
}
