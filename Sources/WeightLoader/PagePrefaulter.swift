import Glibc
import HostResources
import Synchronization
import TensorBasics

/// Commits the pages of memory on a thread of its own, front to back.
///
/// A read into memory that was never touched first clears its pages, in the thread that submits it; for
/// pinned weights that is gigabytes, and the drive waits. This clears pages ahead of the reads, at 10 GB/s
/// on a machine's own memory; in a virtual machine whose host must find the memory first, at 0.4 GB/s.
final class PagePrefaulter {
  private let shared: Shared
  private var thread: BackgroundThread?

  /// Starts on `memory`, which must stay until ``stop()``. If no thread can be started, pages are
  /// committed by whichever thread touches them, as usual.
  init(_ memory: UnsafeMutableRawBufferPointer) {
    shared = Shared(memory)
    guard memory.count >= Self.smallest else {
      shared.populated.store(.max, ordering: .relaxed)
      return
    }
    thread = try? BackgroundThread(shared)
    if thread == nil { shared.populated.store(.max, ordering: .relaxed) }
  }

  /// Ends the thread; the memory may go away afterwards.
  func stop() {
    shared.isStopped.store(true, ordering: .relaxed)
    thread?.join()
    thread = nil
  }

  /// Bytes from the front that are committed; all of them if no thread is running.
  var populatedByteCount: Int { shared.populated.load(ordering: .relaxed) }

  /// Whether to stop for as long as others need the processors, where committing is slow: memory that the
  /// host must find first costs processor time in plenty.
  var yields: Bool {
    get { shared.yields.load(ordering: .relaxed) }
    set { shared.yields.store(newValue, ordering: .relaxed) }
  }

  /// Below this size, the thread costs more than it saves.
  private static let smallest = 32 << 20

  private final class Shared: BackgroundWork, @unchecked Sendable {
    // Safety: the memory's address and length alone are used, and bytes are only ever read from it here.
    private let memory: UnsafeMutableRawBufferPointer
    let isStopped = Atomic<Bool>(false)
    let populated = Atomic<Int>(0)
    let yields = Atomic<Bool>(false)
    private static let step = 8 << 20
    /// Bytes per second below which committing is slow.
    private static let slow = 2e9

    init(_ memory: UnsafeMutableRawBufferPointer) { self.memory = memory }

    func run() {
      var offset = 0
      while offset < memory.count, !isStopped.load(ordering: .relaxed) {
        let count = min(Self.step, memory.count - offset)
        let start = monotonicNanoseconds()
        // Before Linux 5.14 this is refused, and pages come as they are touched.
        guard madvise(memory.baseAddress! + offset, count, MADV_POPULATE_WRITE) == 0 else { break }
        offset += count
        populated.store(offset, ordering: .relaxed)
        let speed = Double(count) * 1e9 / Double(max(1, monotonicNanoseconds() - start))
        while speed < Self.slow, yields.load(ordering: .relaxed),
          !isStopped.load(ordering: .relaxed)
        { usleep(2000) }
      }
      populated.store(.max, ordering: .relaxed)
    }
  }
}
