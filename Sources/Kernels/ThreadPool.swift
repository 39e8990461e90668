import CKernels
import Glibc
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
/// memory in long runs, and takes from the others' shares when its own is done; it spins at most 50 µs
/// for the next region, then sleeps on a futex. A region that is an object allocates nothing; one that is a
/// closure costs a few small allocations, which a prompt can bear and a decoded token need not.
public final class ThreadPool: @unchecked Sendable {
  // Safety: `state` is shared through atomics; `threads` is touched by init and deinit alone.
  public let threadCount: Int
  private let state: State
  private var threads: [pthread_t] = []

  /// Processors this process may use.
  public static var availableProcessorCount: Int { Int(ck_processor_count()) }

  /// - Parameter threadCount: the caller included, at least 1.
  public init(threadCount: Int) {
    precondition(threadCount >= 1, "a pool has at least its caller")
    self.threadCount = threadCount
    state = State(threadCount: threadCount)
    for worker in 1..<max(1, threadCount) {
      let start = Unmanaged.passRetained(WorkerStart(state: state, worker: worker))
      var attributes = pthread_attr_t()
      pthread_attr_init(&attributes)
      pthread_attr_setstacksize(&attributes, 256 << 10)
      var thread = pthread_t()
      let result = pthread_create(
        &thread, &attributes,
        { argument in
          let start = Unmanaged<WorkerStart>.fromOpaque(argument!).takeRetainedValue()
          start.state.work(as: start.worker)
          return nil
        }, start.toOpaque())
      pthread_attr_destroy(&attributes)
      precondition(result == 0, "the system refuses a thread")
      threads.append(thread)
    }
  }

  deinit {
    state.stop()
    for thread in threads { pthread_join(thread, nil) }
  }

  /// Performs every part below `count` once, and returns when all are done.
  ///
  /// Regions do not nest, and one thread at a time uses a pool.
  public func run(count: Int, _ region: any ParallelRegion) {
    guard count > 1, !threads.isEmpty else {
      for index in 0..<count { region.perform(index: index, worker: 0) }
      return
    }
    state.run(region, count: count)
  }

  /// Tells workers where the memory begins that each will read first in the next region: they fetch it
  /// into their caches while they wait, so that memory is not idle between regions.
  ///
  /// - Parameter starts: an address for each worker, 0 = none; the caller's own is ignored.
  public func expect(readingFrom starts: UnsafePointer<UInt>) {
    for worker in 1..<max(1, threadCount) { state.expect(starts[worker], worker: worker) }
  }

  /// Calls `body(index, worker)` once for every index below `count`, and returns when all are done.
  public func run(count: Int, _ body: (_ index: Int, _ worker: Int) -> Void) {
    guard count > 1, !threads.isEmpty else {
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

private final class WorkerStart {
  let state: State
  let worker: Int

  init(state: State, worker: Int) {
    self.state = state
    self.worker = worker
  }
}

/// What caller and workers share.
///
/// A region is published by opening the gate for a new generation. A worker that finds the gate open
/// counts itself in before it touches the region, and out behind it. The caller, out of indexes, shuts
/// the gate and waits for those inside: a worker that slept through the region is not waited for.
private final class State: @unchecked Sendable {
  // Safety: `region` and `count` are written before the gate opens (release) and read behind entering it
  // (acquire); they stay until all who entered have left.
  private unowned(unsafe) var region: (any ParallelRegion)?
  private var count = 0
  /// The generation in the upper half, then whether the gate is open, then how many are inside.
  private let gate = Atomic<UInt64>(0)
  private static let open: UInt64 = 1 << 31
  /// The generation by itself, for sleepers to wait on.
  private let generation = UnsafeMutablePointer<Atomic<UInt32>>.allocate(capacity: 1)
  /// The next index of each worker's share, a cache line apart; in the second word of the line the
  /// address that it may fetch ahead.
  private let cursors: UnsafeMutablePointer<Atomic<Int>>
  private let threadCount: Int
  private let sleepers = Atomic<Int>(0)
  private let isStopping = Atomic<Bool>(false)

  private static let spinNanoseconds: UInt64 = 50_000
  private static let cursorStride = 64 / MemoryLayout<Atomic<Int>>.stride

  init(threadCount: Int) {
    self.threadCount = threadCount
    generation.initialize(to: Atomic(0))
    cursors = .allocate(capacity: threadCount * Self.cursorStride)
    for index in 0..<threadCount * Self.cursorStride {
      (cursors + index).initialize(to: Atomic(0))
    }
  }

  deinit {
    generation.deinitialize(count: 1)
    generation.deallocate()
    cursors.deinitialize(count: threadCount * Self.cursorStride)
    cursors.deallocate()
  }

  private func cursor(_ worker: Int) -> UnsafeMutablePointer<Atomic<Int>> {
    cursors + worker * Self.cursorStride
  }

  private func aheadAddress(_ worker: Int) -> UnsafeMutablePointer<Atomic<Int>> {
    cursor(worker) + 1
  }

  func expect(_ address: UInt, worker: Int) {
    aheadAddress(worker).pointee.store(Int(bitPattern: address), ordering: .relaxed)
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
    gate.store(UInt64(next) << 32 | Self.open, ordering: .sequentiallyConsistent)
    publish(next)
    takeIndexes(as: 0)
    gate.bitwiseAnd(~Self.open, ordering: .acquiringAndReleasing)
    while gate.load(ordering: .acquiring) & (Self.open - 1) != 0 { ck_pause() }
    // The caller keeps the region alive until here: `region` does not own it.
    extendLifetime(region)
    self.region = nil
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
      seen = waitForGeneration(after: seen, worker: worker)
      if isStopping.load(ordering: .acquiring) { return }
      guard enter(seen) else { continue }
      takeIndexes(as: worker)
      gate.wrappingSubtract(1, ordering: .releasing)
    }
  }

  /// Counts a worker in, where the gate is open for `generation`.
  private func enter(_ generation: UInt32) -> Bool {
    var value = gate.load(ordering: .relaxed)
    while value >> 32 == UInt64(generation), value & Self.open != 0 {
      let (exchanged, original) = gate.weakCompareExchange(
        expected: value, desired: value + 1, ordering: .acquiring)
      if exchanged { return true }
      value = original
    }
    return false
  }

  /// The generation, once it is another than `seen`.
  private func waitForGeneration(after seen: UInt32, worker: Int) -> UInt32 {
    let start = now()
    let expected = aheadAddress(worker)
    var ahead = (address: 0, byteCount: 0)
    var spins = 0
    while true {
      let current = generation.pointee.load(ordering: .acquiring)
      if current != seen {
        expected.pointee.store(0, ordering: .relaxed)
        return current
      }
      if ahead.byteCount > 0 {
        ck_prefetch(UnsafeRawPointer(bitPattern: ahead.address), Self.aheadStep)
        ahead.address += Self.aheadStep
        ahead.byteCount -= Self.aheadStep
      } else if expected.pointee.load(ordering: .relaxed) != 0 {
        ahead = (expected.pointee.exchange(0, ordering: .relaxed), Self.aheadByteCount)
      } else {
        ck_pause()
      }
      spins += 1
      guard spins % 64 == 0, now() - start > Self.spinNanoseconds else { continue }
      sleepers.wrappingAdd(1, ordering: .sequentiallyConsistent)
      if generation.pointee.load(ordering: .sequentiallyConsistent) == seen {
        ck_futex_wait(generation, seen)
      }
      sleepers.wrappingSubtract(1, ordering: .sequentiallyConsistent)
    }
  }

  /// What a worker fetches ahead: as much as its own cache holds beside what is in it.
  private static let aheadByteCount = 512 << 10
  private static let aheadStep = 1 << 10

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
