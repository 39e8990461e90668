/// The flash of a drive: channels, each with planes of erase blocks of pages.
public struct FlashGeometry: Sendable, Equatable {
  public var channelCount: Int
  /// Planes of all dies of a channel.
  public var planesPerChannel: Int
  public var blocksPerPlane: Int
  public var pagesPerBlock: Int
  public var pageByteCount: Int

  public init(
    channelCount: Int, planesPerChannel: Int, blocksPerPlane: Int, pagesPerBlock: Int,
    pageByteCount: Int
  ) {
    self.channelCount = channelCount
    self.planesPerChannel = planesPerChannel
    self.blocksPerPlane = blocksPerPlane
    self.pagesPerBlock = pagesPerBlock
    self.pageByteCount = pageByteCount
  }

  public var pageCount: Int { channelCount * planesPerChannel * blocksPerPlane * pagesPerBlock }
}
