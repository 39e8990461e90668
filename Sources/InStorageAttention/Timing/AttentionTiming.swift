/// One layer's decode attention in one drive.
public struct AttentionTiming: Sendable, Equatable {
  /// Attend commands of the layer: sequences × KV heads that the drive holds.
  public let commandCount: Int
  public let command: AttentionCommand
  /// From all queries in the drive to the last result.
  public let nanoseconds: Double
  /// Bytes read from flash.
  public let flashByteCount: Double
  /// How long planes and channels alone need for them.
  public let flashNanoseconds: Double

  /// Commands that are played event by event, at least; a layer with more takes proportionally longer.
  private static let playedCommandCount = 1024
  /// Pages that are played, at most, beyond two rounds of heads in flight.
  private static let playedPageCount = 1 << 18

  /// Plays the first commands of a layer, and scales to all of them.
  ///
  /// Commands of one layer and one context length are alike, and so is their flow once the pipeline is
  /// full; scaling counts the filling of the pipeline once per played stretch instead of once.
  ///
  /// - Throws: ``TimingError`` if the drive, the model or the counts are impossible, or the drive has no
  ///   engine.
  public init(
    model: ModelParameters, drive: DriveParameters, commandCount: Int, context: Int,
    mode: AttentionMode
  ) throws(TimingError) {
    try requireCount("commands", commandCount, upTo: 1 << 40)
    command = try AttentionCommand(model: model, drive: drive, context: context, mode: mode)
    guard let engine = drive.engine else { throw .noEngine }
    self.commandCount = commandCount
    let enough = max(
      2 * engine.headsInFlight,
      min(Self.playedCommandCount, Self.playedPageCount / max(command.pageCount, 1)))
    let played = min(commandCount, enough)
    var simulator = DriveSimulator(
      drive: drive, engine: engine, command: command, tokenByteCount: model.headTokenByteCount)
    nanoseconds =
      simulator.run(commandCount: played) * (Double(commandCount) / Double(played))
    flashByteCount = Double(commandCount) * Double(command.pageCount * drive.geometry.pageByteCount)
    flashNanoseconds = flashByteCount / drive.flashReadBytesPerSecond * 1e9
  }

  /// Flash bytes per second while the layer's attention is under way.
  public var flashBytesPerSecond: Double { flashByteCount / nanoseconds * 1e9 }
}
