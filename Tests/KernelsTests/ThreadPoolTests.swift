import Glibc
import HostResources
import Kernels
import Synchronization
import Testing

/// Parallel regions with as many threads as the system grants.
@Suite struct ThreadPoolTests {
  /// A pool of `wanted` threads from a system that starts `granted` of them.
  private func pool(wanted: Int, granted: Int, errno: Int32 = EAGAIN) -> ThreadPool {
    var left = granted
    return ThreadPool(threadCount: wanted) { work throws(ThreadError) in
      guard left > 0 else { throw ThreadError(errno: errno) }
      left -= 1
      return try BackgroundThread(work)
    }
  }

  /// Whether every part of regions of all lengths is done once, by a worker that there is.
  private func works(_ pool: ThreadPool) -> Bool {
    (0..<200).allSatisfy { count in
      let counts = UnsafeMutablePointer<Atomic<Int>>.allocate(capacity: max(1, count))
      for index in 0..<count { (counts + index).initialize(to: Atomic(0)) }
      defer { counts.deallocate() }
      let strangers = Atomic<Int>(0)
      pool.run(count: count) { index, worker in
        counts[index].wrappingAdd(1, ordering: .relaxed)
        if !(0..<pool.threadCount).contains(worker) { strangers.wrappingAdd(1, ordering: .relaxed) }
      }
      return strangers.load(ordering: .relaxed) == 0
        && (0..<count).allSatisfy { counts[$0].load(ordering: .relaxed) == 1 }
    }
  }

  @Test(
    "A pool goes on with the threads that it gets, and says so once",
    arguments: [0, 1, 2, 3], [EAGAIN, ENOMEM, EPERM])
  func refusals(granted: Int, errno: Int32) {
    let pool = pool(wanted: 5, granted: granted, errno: errno)
    #expect(pool.threadCount == granted + 1)
    #expect(pool.note?.contains("\(granted + 1) of 5") == true)
    #expect(works(pool))
  }

  @Test(arguments: [1, 2, 4]) func `A pool that gets all of them says nothing`(count: Int) {
    let pool = ThreadPool(threadCount: count)
    #expect(pool.threadCount == count && pool.note == nil)
    #expect(works(pool))
  }

  @Test func `A region is over when the last of its parts is, whoever does that`() {
    let pool = ThreadPool(threadCount: 2)
    for _ in 0..<20 {
      let isBegun = Atomic(false)
      let isDone = Atomic(false)
      pool.run(count: 2) { index, _ in
        if index == 0 {
          // The caller's own, so that the worker takes the other.
          while !isBegun.load(ordering: .acquiring) { usleep(50) }
        } else {
          isBegun.store(true, ordering: .releasing)
          usleep(5000)
          isDone.store(true, ordering: .releasing)
        }
      }
      let isOver = isDone.load(ordering: .acquiring)
      #expect(isOver)
    }
  }

  @Test func `A caller sleeps while a worker is long about its part`() {
    let pool = ThreadPool(threadCount: 2)
    /// How often this thread has slept of its own accord.
    func sleepCount() -> Int {
      var usage = rusage()
      let thisThread: Int32 = 1  // RUSAGE_THREAD, which only GNU's C has.
      getrusage(thisThread, &usage)
      return usage.ru_nvcsw
    }
    let before = sleepCount()
    for _ in 0..<20 {
      let isBegun = Atomic(false)
      pool.run(count: 2) { index, _ in
        if index == 0 {
          while !isBegun.load(ordering: .acquiring) {}
        } else {
          isBegun.store(true, ordering: .releasing)
          usleep(20_000)
        }
      }
    }
    // Not every time: on a busy machine the worker may be done before the caller comes to wait.
    #expect(sleepCount() >= before + 5)
  }

  @Test func `A refusal for want of a limit names the limits`() {
    let note = pool(wanted: 2, granted: 0).note
    #expect(note?.contains("memory for a stack") == true)
  }
}
