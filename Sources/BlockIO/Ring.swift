import CLinuxURing
import Glibc
import TensorBasics

/// An io_uring: a queue of reads to the kernel and a queue of results back.
///
/// The only type that sees liburing. Results of calls are counts or negated error numbers, as the
/// kernel gives them.
struct Ring: ~Copyable {
  private let ring: UnsafeMutablePointer<io_uring>
  /// Whether the kernel may still use it after its owner is gone; it is then not destroyed.
  var isAbandoned = false

  /// One result.
  struct Event {
    let slot: Int
    /// Bytes read, or a negated error number.
    let result: Int
  }

  /// Sets up a ring for at least `entryCount` reads.
  ///
  /// Results are posted when this process enters the kernel (COOP_TASKRUN), which saves interrupts;
  /// kernels before 5.19 do without.
  init(entryCount: Int) throws(BlockIOError) {
    let refusal = FaultPlan.refusal(of: .makeRing)
    guard refusal == 0 else {
      throw BlockIOError(.setUpRing, reason: .system(errno: refusal))
    }
    let ring = UnsafeMutablePointer<io_uring>.allocate(capacity: 1)
    ring.initialize(to: io_uring())
    var status = io_uring_queue_init(
      UInt32(entryCount), ring, IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG)
    if status == -EINVAL { status = io_uring_queue_init(UInt32(entryCount), ring, 0) }
    if status == 0, !Self.canRead(ring) {
      io_uring_queue_exit(ring)
      status = -ENOSYS
    }
    guard status == 0 else {
      ring.deallocate()
      throw BlockIOError(.setUpRing, reason: .system(errno: -status))
    }
    self.ring = ring
  }

  deinit {
    guard !isAbandoned else { return }
    io_uring_queue_exit(ring)
    ring.deallocate()
  }

  /// Kernel 5.5 has rings without the read operation.
  private static func canRead(_ ring: UnsafeMutablePointer<io_uring>) -> Bool {
    guard let probe = io_uring_get_probe_ring(ring) else { return false }
    defer { io_uring_free_probe(probe) }
    return io_uring_opcode_supported(probe, Int32(IORING_OP_READ.rawValue)) != 0
  }

  // MARK: Registration

  /// Registers descriptors, so that reads name them by index and the kernel need not look them up.
  borrowing func register(descriptors: [Int32]) -> Int32 {
    let refusal = FaultPlan.refusal(of: .registerFiles)
    guard refusal == 0 else { return -refusal }
    return io_uring_register_files(ring, descriptors, UInt32(descriptors.count))
  }

  /// Makes an empty table for `count` registered buffers.
  borrowing func reserveBuffers(count: Int) -> Int32 {
    let refusal = FaultPlan.refusal(of: .registerMemory)
    return refusal == 0 ? io_uring_register_buffers_sparse(ring, UInt32(count)) : -refusal
  }

  /// Pins `region` as registered buffer `index`.
  borrowing func register(buffer region: UnsafeMutableRawBufferPointer, at index: Int) -> Int32 {
    let refusal = FaultPlan.refusal(of: .registerMemory)
    guard refusal == 0 else { return -refusal }
    var vector = iovec(iov_base: region.baseAddress, iov_len: region.count)
    var tag: UInt64 = 0
    return io_uring_register_buffers_update_tag(ring, UInt32(index), &vector, &tag, 1)
  }

  /// Unregisters buffer `index`.
  borrowing func unregister(bufferAt index: Int) -> Int32 {
    register(buffer: UnsafeMutableRawBufferPointer(start: nil, count: 0), at: index)
  }

  // MARK: Reads

  /// What to read with: a descriptor, or the index of a registered one.
  enum Source {
    case descriptor(Int32)
    case registered(index: Int)
  }

  /// Queues a read into `bytes`, which lie in registered buffer `bufferIndex` if that is given.
  ///
  /// - Returns: false if the queue is full.
  borrowing func queueRead(
    _ source: Source, offset: Int, into bytes: UnsafeMutableRawBufferPointer, bufferIndex: Int?,
    slot: Int
  ) -> Bool {
    guard let entry = io_uring_get_sqe(ring) else { return false }
    let (file, flags): (Int32, UInt32) =
      switch source {
      case .descriptor(let descriptor): (descriptor, 0)
      case .registered(let index): (Int32(index), 1 << UInt32(IOSQE_FIXED_FILE_BIT))
      }
    let (count, position) = (UInt32(bytes.count), UInt64(offset))
    if let bufferIndex {
      io_uring_prep_read_fixed(
        entry, file, bytes.baseAddress, count, position, Int32(bufferIndex))
    } else {
      io_uring_prep_read(entry, file, bytes.baseAddress, count, position)
    }
    io_uring_sqe_set_flags(entry, flags)
    io_uring_sqe_set_data64(entry, UInt64(slot))
    return true
  }

  /// Reads queued here that the kernel has not taken yet.
  var unsubmittedCount: Int { Int(io_uring_sq_ready(ring)) }

  /// Hands queued reads to the kernel.
  borrowing func submit() -> Int32 {
    let refusal = FaultPlan.refusal(of: .submitReads)
    return refusal == 0 ? io_uring_submit(ring) : -refusal
  }

  /// Takes one result, without waiting.
  borrowing func nextEvent() -> Event? {
    var entry: UnsafeMutablePointer<io_uring_cqe>?
    guard io_uring_peek_cqe(ring, &entry) == 0, let entry else { return nil }
    let refusal = FaultPlan.refusal(of: .completeRead)
    let result = refusal == 0 ? entry.pointee.res : -refusal
    let event = Event(slot: Int(entry.pointee.user_data), result: Int(result))
    io_uring_cqe_seen(ring, entry)
    return event
  }

  /// Sleeps until there is a result, a signal (`-EINTR`) or the time is over (`-ETIME`).
  borrowing func wait(nanoseconds: Int?) -> Int32 {
    let refusal = FaultPlan.refusal(of: .awaitReads)
    guard refusal == 0 else { return -refusal }
    var entry: UnsafeMutablePointer<io_uring_cqe>?
    guard let nanoseconds else { return io_uring_wait_cqes(ring, &entry, 1, nil, nil) }
    var time = __kernel_timespec(
      tv_sec: Int64(nanoseconds / 1_000_000_000), tv_nsec: Int64(nanoseconds % 1_000_000_000))
    return io_uring_wait_cqes(ring, &entry, 1, &time, nil)
  }
}
