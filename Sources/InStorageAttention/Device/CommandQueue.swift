import BlockIO
import HostResources

/// The queue between the host and a drive's thread: commands are done in order, one at a time.
///
/// One thread submits and waits. After a command failed, later ones fail with the same error.
final class CommandQueue: BackgroundWork, @unchecked Sendable {
  // Safety: ring, counters and failure are touched with `monitor` held; `thread` by the submitting thread
  // alone; `controller` by the drive's thread, and by the submitting one while no command is pending.

  /// Commands that can be pending.
  static let capacity = 64

  private let configuration: DriveConfiguration
  private let monitor = Monitor()
  private var ring: [DriveCommand?] = Array(repeating: nil, count: CommandQueue.capacity)
  private var submittedCount = 0
  private var doneCount = 0
  private var failure: DriveError?
  private var isStopping = false
  private var thread: BackgroundThread?
  private var controller: DriveController?

  init(_ configuration: DriveConfiguration) throws(ThreadError) {
    self.configuration = configuration
    thread = try BackgroundThread(self)
  }

  /// Ends the thread after the current command.
  func stop() {
    monitor.locked { isStopping = true }
    monitor.wakeAll()
    thread?.join()
  }

  /// Queues a command, waiting for room.
  func submit(_ command: DriveCommand) {
    monitor.locked {
      while submittedCount - doneCount == Self.capacity { monitor.sleep() }
      ring[submittedCount % Self.capacity] = command
      submittedCount += 1
    }
    monitor.wakeAll()
  }

  /// Waits until every command is done.
  func wait() throws(DriveError) {
    let failure = monitor.locked {
      while doneCount < submittedCount { monitor.sleep() }
      return self.failure
    }
    if let failure { throw failure }
  }

  /// Waits until every command is done, then looks into the drive.
  func inspect<Result>(_ look: (DriveController?) -> Result) -> Result {
    monitor.locked { while doneCount < submittedCount { monitor.sleep() } }
    return look(controller)
  }

  // MARK: The drive's thread

  func run() {
    var hasFailed = false
    while let command = next() {
      var failure: DriveError?
      if !hasFailed {
        do throws(DriveError) { try perform(command) } catch { failure = error }
      }
      hasFailed = hasFailed || failure != nil
      monitor.locked {
        if let failure { self.failure = failure }
        doneCount += 1
      }
      monitor.wakeAll()
    }
  }

  private func next() -> DriveCommand? {
    monitor.locked {
      while true {
        if isStopping { return nil }
        if doneCount < submittedCount { return ring[doneCount % Self.capacity] }
        monitor.sleep()
      }
    }
  }

  private func perform(_ command: DriveCommand) throws(DriveError) {
    if case .configure(let contents) = command {
      controller = try DriveController(configuration, contents)
      return
    }
    guard let controller else { throw .impossible("a drive must be configured first") }
    switch command {
    case .configure: break
    case .append(let layer, let position, let tokenCount, let payload):
      try controller.append(
        layer: layer, position: position, tokenCount: tokenCount, payload: payload)
    case .fold(let layer, let visible, let queries, let partials, let continues):
      try controller.fold(
        layer: layer, visible: visible, queries: queries, partials: partials, continues: continues)
    case .reclaim(let layer, let position): controller.reclaim(layer: layer, before: position)
    case .reclaimAll: controller.reclaimAll()
    }
  }
}
