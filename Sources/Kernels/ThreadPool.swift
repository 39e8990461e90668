import CKernels
import Glibc
package import HostResources
import Synchronization

/// A parallel region as an object that exists before the region runs, so that running it allocates
/// nothing; see ``ThreadPool``.
public protocol ParallelRegion: AnyObject {
  /// Does the part `index` as worker `worker`; parts run at the same time.
  func perform(index: Int, worker: Int)
}

/// Workers for short parallel regions.
///
/// The caller takes part as worker 0. Each worker has a contiguous share of the indexes, so that it reads
/// memory in long runs, and takes from the others' shares when its own is done. A worker without a region, and
/// the caller while workers finish theirs, spin 50 µs at most and then sleep on a futex. A region that is an object allocates nothing; one that is a
/// closure costs a few small allocations, which a prompt can bear and a decoded token need not.
public final class ThreadPool: @unchecked Sendable {
  // Safety: `state` is shared through atomics; `threads` is touched by init and deinit alone.
  public let threadCount: Int
  private let state: State
  private var threads: [BackgroundThread] = []
  /// What to tell people where the system refused some of the threads; nil if it granted all.
  public let note: String?

  /// Starts as many of the threads as the system grants; the caller alone will do.
  ///
  /// - Parameter threadCount: the caller included, at least 1.
  public convenience init(threadCount: Int) {
    self.init(threadCount: threadCount) { work throws(ThreadError) in try BackgroundThread(work) }
  }

  /// - Parameter start: starts a thread; tests refuse some.
  package init(
    threadCount wanted: Int,
    _ start: (any BackgroundWork) throws(ThreadError) -> BackgroundThread
  ) {
    precondition(wanted >= 1, "a pool has at least its caller")
    state = State(capacity: wanted)
    var refusal: ThreadError?
    while threads.count + 1 < wanted, refusal == nil {
      do throws(ThreadError) {
        threads.append(try start(Worker(state: state, index: threads.count + 1)))
      } catch { refusal = error }
    }
    threadCount = threads.count + 1
    state.threadCount = threadCount
    note = refusal.map { [threadCount] in
      "the system refuses threads: \(threadCount) of \(wanted) compute: \($0)"
    }
  }

  deinit {
    state.stop()
    for thread in threads { thread.join() }
  }

  /// Performs every part below `count` once, and returns when all are done.
  ///
  /// Regions do not nest, and one thread at a time uses a pool.
  public func run(count: Int, _ region: any ParallelRegion) {
    guard count > 1, threadCount > 1 else {
      for index in 0..<count { region.perform(index: index, worker: 0) }
      return
    }
    state.run(region, count: count)
  }

  /// Calls `body(index, worker)` once for every index below `count`, and returns when all are done.
  public func run(count: Int, _ body: (_ index: Int, _ worker: Int) -> Void) {
    guard count > 1, threadCount > 1 else {
      for index in 0..<count { body(index, 0) }
      return
    }
    withoutActuallyEscaping(body) { body in
      state.run(ClosureRegion(body), count: count)
    }
  }
}

/// A closure as a region.
private final class ClosureRegion: ParallelRegion {
  private let body: (_ index: Int, _ worker: Int) -> Void

  init(_ body: @escaping (_ index: Int, _ worker: Int) -> Void) { self.body = body }

  func perform(index: Int, worker: Int) { body(index, worker) }
}

private final class Worker: BackgroundWork {
  private let state: State
  private let index: Int

  init(state: State, index: Int) {
    self.state = state
    self.index = index
  }

  func run() { state.work(as: index) }
}

/// What caller and workers share.
///
/// A region is published by opening the gate for a new generation. A worker that finds the gate open
/// counts itself in before it touches the region, and out afterwards. The caller, out of indexes, shuts
/// the gate and waits for those inside: a worker that slept through the region is not waited for. If that
/// takes long, the caller notes that it sleeps, and the last worker out wakes it.
private final class State: @unchecked Sendable {
  // Safety: `region`, `count` and `threadCount` are written before the gate opens (release) and read after
  // entering it (acquire); they stay until all who entered have left.
  private unowned(unsafe) var region: (any ParallelRegion)?
  private var count = 0
  /// The generation in the upper half, then whether the gate is open, whether the caller sleeps until nobody is
  /// inside, and how many are. The caller sleeps on the lower half, which comes first in memory.
  private let gate: UnsafeMutablePointer<Atomic<UInt64>>
  private static let open: UInt64 = 1 << 31
  private static let callerSleeps: UInt64 = 1 << 30
  private static let inside: UInt64 = callerSleeps - 1
  /// The generation by itself, for sleepers to wait on.
  private let generation: UnsafeMutablePointer<Atomic<UInt32>>
  /// The next index of each worker's share, a cache line apart.
  private let cursors: UnsafeMutablePointer<Atomic<Int>>
  private let capacity: Int
  /// ``gate`` and ``generation``, a cache line apart.
  private let words = UnsafeMutableRawPointer.allocate(
    byteCount: 2 * State.cacheLineByteCount, alignment: State.cacheLineByteCount)
  /// The caller and those workers that there are, at most `capacity`.
  var threadCount = 1
  private let sleepers = Atomic<Int>(0)
  private let isStopping = Atomic<Bool>(false)

  private static let spinNanoseconds: UInt64 = 50_000
  private static let cacheLineByteCount = 64
  private static let cursorStride = cacheLineByteCount / MemoryLayout<Atomic<Int>>.stride

  /// - Parameter capacity: the most threads, the caller included.
  init(capacity: Int) {
    self.capacity = capacity
    gate = words.bindMemory(to: Atomic<UInt64>.self, capacity: 1)
    generation = (words + Self.cacheLineByteCount).bindMemory(to: Atomic<UInt32>.self, capacity: 1)
    gate.initialize(to: Atomic(0))
    generation.initialize(to: Atomic(0))
    cursors = .allocate(capacity: capacity * Self.cursorStride)
    for index in 0..<capacity * Self.cursorStride {
      (cursors + index).initialize(to: Atomic(0))
    }
  }

  deinit {
    gate.deinitialize(count: 1)
    generation.deinitialize(count: 1)
    words.deallocate()
    cursors.deinitialize(count: capacity * Self.cursorStride)
    cursors.deallocate()
  }

  private func cursor(_ worker: Int) -> UnsafeMutablePointer<Atomic<Int>> {
    cursors + worker * Self.cursorStride
  }

  /// Where `worker`'s share of the indexes begins; the share of worker `threadCount` is the end.
  private func share(_ worker: Int) -> Int { count * worker / threadCount }

  /// Runs a region as worker 0 and waits for those who joined.
  func run(_ region: any ParallelRegion, count: Int) {
    self.region = region
    self.count = count
    for worker in 0..<threadCount {
      cursor(worker).pointee.store(share(worker), ordering: .relaxed)
    }
    let next = generation.pointee.load(ordering: .relaxed) &+ 1
    gate.pointee.store(UInt64(next) << 32 | Self.open, ordering: .sequentiallyConsistent)
    publish(next)
    takeIndexes(as: 0)
    gate.pointee.bitwiseAnd(~Self.open, ordering: .acquiringAndReleasing)
    waitForWorkers()
    // The caller keeps the region alive until here: `region` does not own it.
    extendLifetime(region)
    self.region = nil
  }

  /// Waits until nobody is inside the gate, which is shut.
  private func waitForWorkers() {
    let start = now()
    var spins = 0
    var value = gate.pointee.load(ordering: .acquiring)
    while value & Self.inside != 0 {
      ck_pause()
      spins += 1
      if spins % 64 == 0, now() - start > Self.spinNanoseconds {
        let (_, sleeping) = gate.pointee.bitwiseOr(Self.callerSleeps, ordering: .acquiring)
        // Wakes at once where somebody left meanwhile: the word is another then.
        if sleeping & Self.inside != 0 {
          ck_futex_wait(gate, UInt32(truncatingIfNeeded: sleeping))
        }
      }
      value = gate.pointee.load(ordering: .acquiring)
    }
  }

  func stop() {
    isStopping.store(true, ordering: .sequentiallyConsistent)
    publish(generation.pointee.load(ordering: .relaxed) &+ 1)
  }

  /// Sets the generation and wakes those who sleep on it.
  private func publish(_ next: UInt32) {
    generation.pointee.store(next, ordering: .sequentiallyConsistent)
    if sleepers.load(ordering: .sequentiallyConsistent) > 0 { ck_futex_wake_all(generation) }
  }

  /// A worker's life: one region after the other, without those that ended before it came.
  func work(as worker: Int) {
    var seen: UInt32 = 0
    while true {
      seen = waitForGeneration(after: seen)
      if isStopping.load(ordering: .acquiring) { return }
      guard enter(seen) else { continue }
      takeIndexes(as: worker)
      leave()
    }
  }

  /// Counts a worker in, where the gate is open for `generation`.
  private func enter(_ generation: UInt32) -> Bool {
    var value = gate.pointee.load(ordering: .relaxed)
    while value >> 32 == UInt64(generation), value & Self.open != 0 {
      let (exchanged, original) = gate.pointee.weakCompareExchange(
        expected: value, desired: value + 1, ordering: .acquiring)
      if exchanged { return true }
      value = original
    }
    return false
  }

  /// Counts a worker out, and wakes a caller who waits for the last.
  private func leave() {
    let (_, value) = gate.pointee.wrappingSubtract(1, ordering: .releasing)
    if value & (Self.callerSleeps | Self.inside) == Self.callerSleeps { ck_futex_wake_all(gate) }
  }

  /// The generation, once it is another than `seen`.
  private func waitForGeneration(after seen: UInt32) -> UInt32 {
    let start = now()
    var spins = 0
    while true {
      let current = generation.pointee.load(ordering: .acquiring)
      if current != seen { return current }
      ck_pause()
      spins += 1
      guard spins % 64 == 0, now() - start > Self.spinNanoseconds else { continue }
      sleepers.wrappingAdd(1, ordering: .sequentiallyConsistent)
      if generation.pointee.load(ordering: .sequentiallyConsistent) == seen {
        ck_futex_wait(generation, seen)
      }
      sleepers.wrappingSubtract(1, ordering: .sequentiallyConsistent)
    }
  }

  private func takeIndexes(as worker: Int) {
    guard let region else { return }
    for turn in 0..<threadCount {
      let owner = (worker + turn) % threadCount
      let (next, end) = (cursor(owner), share(owner + 1))
      while case let index = next.pointee.wrappingAdd(1, ordering: .relaxed).oldValue, index < end {
        region.perform(index: index, worker: worker)
      }
    }
  }

  private func now() -> UInt64 {
    var time = timespec()
    clock_gettime(CLOCK_MONOTONIC, &time)
    return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
  }
}
