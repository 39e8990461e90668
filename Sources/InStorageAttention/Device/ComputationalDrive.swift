import BlockIO
import TensorBasics

/// A computational storage drive: a drive with an engine that attends over the keys and values it holds.
///
/// Queries and outputs cross the bus, and keys and values only once (InstInfer, arXiv:2409.04992).
///
/// This is a functional model. It really stores and computes, with a thread, memory and flash file of its
/// own, and is reached through commands alone; what they move over the bus is counted. It keeps no time:
/// ``DriveStatistics/operations`` is what a model of the time needs. Destroying a drive ends its thread after
/// the current command and takes a temporary flash file with it.
///
/// One thread uses a drive.
public final class ComputationalDrive {
  public let configuration: DriveConfiguration
  public let contents: DriveContents
  private let queue: CommandQueue
  private var traffic = BusTraffic()

  /// Starts a drive and configures it.
  ///
  /// - Throws: ``DriveError`` if it cannot be, or not hold a context of these contents in its memory.
  public init(
    _ configuration: DriveConfiguration, _ contents: DriveContents
  ) throws(DriveError) {
    try configuration.check(contents)
    self.configuration = configuration
    self.contents = contents
    do { queue = try CommandQueue(configuration) } catch { throw .thread(error) }
    submit(.configure(contents))
    try wait()
  }

  deinit { queue.stop() }

  /// Queues a command; memory that it names is the drive's until ``wait()`` returns.
  public func submit(_ command: DriveCommand) {
    traffic += command.traffic(contents)
    queue.submit(command)
  }

  /// Waits until every command is done.
  ///
  /// - Throws: the first command's error that failed, from then on.
  public func wait() throws(DriveError) { try queue.wait() }

  /// What the drive did so far, when every command is done. Reading it is not counted.
  public var statistics: DriveStatistics {
    var result = DriveStatistics()
    result.bus = traffic
    queue.inspect { controller in
      guard let controller else { return }
      result.operations = controller.operations
      result.flash = controller.translation.flash.counts
      result.usedPageCount = controller.translation.usedPageCount
      result.pageCount = controller.geometry.pageCount
      let erases = controller.translation.eraseRange
      result.leastEraseCount = erases.lowerBound
      result.mostEraseCount = erases.upperBound
      result.retiredBlockCount = controller.translation.retiredBlockCount
      result.memoryByteCount = controller.memoryByteCount
    }
    return result
  }

  /// Memory that a drive takes for these contents.
  public static func memoryByteCount(
    _ configuration: DriveConfiguration, _ contents: DriveContents
  ) throws(DriveError) -> Int {
    try configuration.check(contents)
    return DriveController.memoryByteCount(configuration, contents)
  }

  /// Pages that a context of these contents fills.
  public static func pageCount(
    _ contents: DriveContents, engine: AttentionEngineKind, pageByteCount: Int
  ) -> Int {
    PageLayout(contents, pageByteCount: pageByteCount, hasChannelPages: engine.isSparse)
      .logicalPageCount
  }
}
