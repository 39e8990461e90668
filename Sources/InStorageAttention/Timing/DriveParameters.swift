/// Every number of a simulated drive. Presets, with a source for each number, are in
/// `DriveParameters+Presets.swift`.
public struct DriveParameters: Sendable, Equatable {
  public var geometry: FlashGeometry
  /// tR: from command to page register.
  public var readNanoseconds: Double
  /// Extra senses of a page per page read, on average.
  public var retriesPerRead: Double
  /// tPROG: page register to cells.
  public var programNanoseconds: Double
  /// Pages that one plane programs at once.
  public var pagesPerProgram: Int
  /// tBERS of one block.
  public var eraseNanoseconds: Double
  /// Erasures that a block stands.
  public var eraseLimit: Double
  /// Page register to controller, one channel.
  public var channelBytesPerSecond: Double
  /// Device DRAM, reading and writing together.
  public var memoryBytesPerSecond: Double
  /// Device DRAM for tokens that do not fill a page yet (the group buffer).
  public var groupBufferByteCount: Double
  /// Firmware on the drive per command, one after the other.
  public var commandNanoseconds: Double
  /// The drive's own PCIe link, one direction.
  public var linkBytesPerSecond: Double
  /// From one end of the link to the other.
  public var linkNanoseconds: Double
  /// None: a drive that only stores.
  public var engine: EngineParameters?

  /// A page read and nothing else, by how much it occupies its plane.
  var planeNanoseconds: Double {
    readNanoseconds * (1 + retriesPerRead) + channelNanoseconds
  }

  /// One page over its channel.
  var channelNanoseconds: Double {
    Double(geometry.pageByteCount) / channelBytesPerSecond * 1e9
  }

  /// The most that planes and channels deliver.
  public var flashReadBytesPerSecond: Double {
    let page = Double(geometry.pageByteCount)
    let planes = Double(geometry.channelCount * geometry.planesPerChannel)
    return min(
      Double(geometry.channelCount) * channelBytesPerSecond, planes * page / planeNanoseconds * 1e9)
  }

  /// The most that leaves the drive; pages go into its DRAM and out again, wherever they are bound.
  public var hostReadBytesPerSecond: Double {
    min(linkBytesPerSecond, flashReadBytesPerSecond, memoryBytesPerSecond / 2)
  }

  public var capacityByteCount: Double {
    Double(geometry.channelCount * geometry.planesPerChannel) * Double(geometry.blocksPerPlane)
      * Double(geometry.pagesPerBlock) * Double(geometry.pageByteCount)
  }

  /// - Throws: ``TimingError`` naming what makes the drive impossible.
  public func validate(for model: ModelParameters) throws(TimingError) {
    try requireCount("channels", geometry.channelCount, upTo: 4096)
    try requireCount("planes per channel", geometry.planesPerChannel, upTo: 4096)
    try requireCount("blocks per plane", geometry.blocksPerPlane, upTo: 1 << 30)
    try requireCount("pages per block", geometry.pagesPerBlock, upTo: 1 << 30)
    try requireCount("bytes of a page", geometry.pageByteCount, upTo: 1 << 24)
    try requireCount("pages per program", pagesPerProgram, upTo: 4096)
    try requirePositive("channel bandwidth", channelBytesPerSecond)
    try requirePositive("device memory bandwidth", memoryBytesPerSecond)
    try requirePositive("group buffer", groupBufferByteCount)
    try requirePositive("link bandwidth", linkBytesPerSecond)
    try requirePositive("program time", programNanoseconds)
    try requireNotNegative("read time", readNanoseconds)
    try requireNotNegative("retries per read", retriesPerRead)
    try requireNotNegative("erase time", eraseNanoseconds)
    try requireNotNegative("command time", commandNanoseconds)
    try requireNotNegative("link latency", linkNanoseconds)
    try engine?.validate()
    try model.validate()
    guard geometry.pageByteCount >= model.headTokenByteCount else {
      throw .pageTooSmall(
        pageByteCount: geometry.pageByteCount, tokenByteCount: model.headTokenByteCount)
    }
  }
}

/// The attention engine of a drive: kernels, each with a matrix-vector and a softmax unit, and a filter in
/// each channel's flash controller.
public struct EngineParameters: Sendable, Equatable {
  /// Attention kernels; a head's attention runs on one of them.
  public var kernelCount: Int
  /// Matrix-vector unit of one kernel, multiplications and additions counted apart.
  public var operationsPerSecond: Double
  /// Softmax unit of one kernel.
  public var scoresPerSecond: Double
  /// Selection of the largest (argtopk) of one kernel.
  public var selectedScoresPerSecond: Double
  /// Filter in the flash controller of one channel.
  public var filterBytesPerSecond: Double
  /// Heads whose attention may be under way at a time.
  public var headsInFlight: Int

  public init(
    kernelCount: Int, operationsPerSecond: Double, scoresPerSecond: Double,
    selectedScoresPerSecond: Double, filterBytesPerSecond: Double, headsInFlight: Int
  ) {
    self.kernelCount = kernelCount
    self.operationsPerSecond = operationsPerSecond
    self.scoresPerSecond = scoresPerSecond
    self.selectedScoresPerSecond = selectedScoresPerSecond
    self.filterBytesPerSecond = filterBytesPerSecond
    self.headsInFlight = headsInFlight
  }

  func validate() throws(TimingError) {
    try requireCount("attention kernels", kernelCount, upTo: 4096)
    try requirePositive("matrix-vector rate", operationsPerSecond)
    try requirePositive("softmax rate", scoresPerSecond)
    try requirePositive("selection rate", selectedScoresPerSecond)
    try requirePositive("filter rate", filterBytesPerSecond)
    try requireCount("heads in flight", headsInFlight, upTo: 4096)
  }
}
