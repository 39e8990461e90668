import Dispatch
import Synchronization

/// Does asynchronous work while the calling thread, which is none of Swift's, waits for its end.
func waiting(_ work: @escaping @Sendable () async throws -> Void) throws {
  let end = DispatchSemaphore(value: 0)
  let failure = Mutex<(any Error)?>(nil)
  Task {
    do { try await work() } catch { failure.withLock { $0 = error } }
    end.signal()
  }
  end.wait()
  if let error = failure.withLock({ $0 }) { throw error }
}
