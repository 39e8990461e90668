/// Keys and values on their way into a drive's flash.
public struct WriteTiming: Sendable, Equatable {
  /// Bytes that the host sent.
  public let hostByteCount: Double
  /// Bytes that were programmed.
  public let flashByteCount: Double
  public let nanoseconds: Double

  public var hostBytesPerSecond: Double { hostByteCount / nanoseconds * 1e9 }
  public var flashBytesPerSecond: Double { flashByteCount / nanoseconds * 1e9 }

  /// Programs that are played event by event, at most; more take proportionally longer.
  private static let playedProgramCount = 1 << 13

  /// - Parameters:
  ///   - hostByteCount: keys and values, each once.
  ///   - storedFraction: bytes to program per byte from the host, 1.5 with a second copy of the keys.
  ///   - isStream: link, DRAM and flash work at the same time, as on a prompt's keys and values. Otherwise
  ///     tokens are gathered in DRAM first, because a page must be full before it can be programmed.
  public init(
    drive: DriveParameters, hostByteCount: Double, storedFraction: Double, isStream: Bool
  ) throws(TimingError) {
    try requirePositive("bytes to write", hostByteCount)
    let geometry = drive.geometry
    self.hostByteCount = hostByteCount
    flashByteCount = hostByteCount * storedFraction
    let unit = Double(drive.pagesPerProgram * geometry.pageByteCount)
    let linkUnit = unit / storedFraction / drive.linkBytesPerSecond * 1e9
    let memoryIn = unit / storedFraction / drive.memoryBytesPerSecond * 1e9
    let memoryOut = unit / drive.memoryBytesPerSecond * 1e9
    let count = max(1, Int((flashByteCount / unit).rounded(.up)))
    let played = min(count, Self.playedProgramCount)
    var planes = [Double](repeating: 0, count: geometry.channelCount * geometry.planesPerChannel)
    var channels = [Double](repeating: 0, count: geometry.channelCount)
    var link = 0.0
    var memory = isStream ? 0 : Double(played) * (linkUnit + memoryIn)
    var last = 0.0
    for index in 0..<played {
      if isStream {
        link += linkUnit
        memory = max(memory, link) + memoryIn
      }
      memory += memoryOut
      let channel = index % geometry.channelCount
      let plane =
        channel * geometry.planesPerChannel + index / geometry.channelCount
        % geometry.planesPerChannel
      channels[channel] =
        max(channels[channel], memory, planes[plane])
        + Double(drive.pagesPerProgram) * drive.channelNanoseconds
      planes[plane] = channels[channel] + drive.programNanoseconds
      last = max(last, planes[plane])
    }
    nanoseconds = last * (flashByteCount / (Double(played) * unit)) + drive.linkNanoseconds
  }
}
