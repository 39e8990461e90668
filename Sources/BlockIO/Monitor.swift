import Glibc

/// A lock with a condition that threads sleep on.
package final class Monitor: @unchecked Sendable {
  // Safety: both are made for use by several threads, and never move.
  private let lock: Lock
  private var mutex: UnsafeMutablePointer<pthread_mutex_t> { lock.mutex }
  private let changed = UnsafeMutablePointer<pthread_cond_t>.allocate(capacity: 1)

  private final class Lock {
    let mutex = UnsafeMutablePointer<pthread_mutex_t>.allocate(capacity: 1)

    init() { pthread_mutex_init(mutex, nil) }

    deinit {
      pthread_mutex_destroy(mutex)
      mutex.deallocate()
    }
  }

  package convenience init() { self.init(Lock()) }

  /// Another condition under the same lock.
  package convenience init(sharingLockOf other: Monitor) { self.init(other.lock) }

  private init(_ lock: Lock) {
    self.lock = lock
    var attributes = pthread_condattr_t()
    pthread_condattr_init(&attributes)
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC)
    pthread_cond_init(changed, &attributes)
    pthread_condattr_destroy(&attributes)
  }

  deinit {
    pthread_cond_destroy(changed)
    changed.deallocate()
  }

  /// Runs `body` with the lock held.
  package func locked<Result, Failure: Error>(
    _ body: () throws(Failure) -> Result
  ) throws(Failure) -> Result {
    pthread_mutex_lock(mutex)
    defer { pthread_mutex_unlock(mutex) }
    return try body()
  }

  /// Releases the lock, sleeps until another thread wakes this one, and takes the lock again; only inside
  /// ``locked(_:)``. It may wake for no reason.
  package func sleep() { pthread_cond_wait(changed, mutex) }

  /// As ``sleep()``, but no longer than until `nanoseconds` on the monotonic clock; false then.
  package func sleep(untilNanoseconds nanoseconds: Int) -> Bool {
    var time = timespec(
      tv_sec: nanoseconds / 1_000_000_000, tv_nsec: nanoseconds % 1_000_000_000)
    return pthread_cond_timedwait(changed, mutex, &time) != ETIMEDOUT
  }

  package func wakeOne() { pthread_cond_signal(changed) }

  package func wakeAll() { pthread_cond_broadcast(changed) }
}
