extension DriveParameters {
  /// The drive that arXiv 2409.04992 evaluates: NVMeVirt's timing with the latencies of an OpenSSD, an engine
  /// on a Zynq-7045.
  ///
  /// *Input*: printed in the paper. *Hardware*: a data sheet's or a standard's number. *Constrained*: chosen
  /// once so that one published figure comes out, and then used for all others. *Assumed*: nothing published
  /// depends on it noticeably. `docs/in-storage.md` says which figures support each reading.
  public static let paper = DriveParameters(
    geometry: FlashGeometry(
      // Input, §V-B.
      channelCount: 8,
      // Assumed: 4 dies of 4 planes; only planes ÷ time of a page matters.
      planesPerChannel: 16,
      // Input: 2 TB (Samsung 980 Pro); §VI-F counts in TiB. With the next number.
      blocksPerPlane: 4096,
      pagesPerBlock: 1024,  // Assumed; only erasures depend on it.
      pageByteCount: 4096),  // Input, §IV: 16 tokens of one head.
    // Constrained by Table III, decode reads at 7.66 GB/s; TLC has 45 to 80 µs.
    readNanoseconds: 65_000,
    retriesPerRead: 0,  // Input, §VI-F: fresh flash; 0.003 with relaxed retention.
    programNanoseconds: 357_000,  // Constrained by Table III, prefill writes at 3.78 GB/s.
    pagesPerProgram: 4,  // Hardware: a TLC plane programs 16 KiB.
    eraseNanoseconds: 3_500_000,  // Hardware: 3.5 ms, usual for TLC.
    eraseLimit: 3000,  // Input, §VI-F.
    channelBytesPerSecond: 1.4e9,  // Input, §V-B.
    // Hardware: DDR3-1600, 64 bit, on boards with a Zynq-7045.
    memoryBytesPerSecond: 12.8e9,
    groupBufferByteCount: 2e9,  // Input, §V-A: DRAM of the OpenSSD.
    commandNanoseconds: 1000,  // Assumed: 285 cycles of the engine.
    linkBytesPerSecond: 7e9,  // Input, §V-B: PCIe 4.0 ×4.
    linkNanoseconds: 1000,  // Hardware: about 1 µs for a PCIe round trip with DMA.
    engine: EngineParameters(
      kernelCount: 2,  // Input, §IV: two identical attention kernels.
      operationsPerSecond: 13.3e9,  // Input, Table I, virtual; per kernel.
      scoresPerSecond: 15.1e6,  // Input, Table I, virtual, one operation per score; per kernel.
      selectedScoresPerSecond: 285e6,  // Hardware: one score per cycle at 285 MHz.
      filterBytesPerSecond: 1.79e9,  // Input, Table I, virtual; per channel.
      headsInFlight: 8))  // Assumed: enough to hide sensing.

  /// A drive of 2026 with an engine in its controller; its flash has numbers that are usual by then.
  public static let year2026 = DriveParameters(
    geometry: FlashGeometry(
      channelCount: 16,  // controllers of PCIe 5.0 and 6.0 data-centre drives.
      planesPerChannel: 24,  // 4 dies of 6 planes.
      blocksPerPlane: 2500, pagesPerBlock: 1024,  // About 4 TB.
      pageByteCount: 4096),
    readNanoseconds: 40_000,  // 40 µs, TLC of more than 230 layers.
    retriesPerRead: 0,
    programNanoseconds: 400_000, pagesPerProgram: 4, eraseNanoseconds: 3_500_000,
    eraseLimit: 3000,
    channelBytesPerSecond: 3.6e9,  // ONFI 5.1, 3600 MT/s.
    memoryBytesPerSecond: 102.4e9,  // two channels of LPDDR5X-6400, 64 bit each.
    groupBufferByteCount: 4e9,  // 1 GB of DRAM per TB.
    commandNanoseconds: 500,  // Assumed.
    linkBytesPerSecond: 14e9,  // PCIe 5.0 ×4.
    linkNanoseconds: 1000,
    engine: EngineParameters(
      kernelCount: 8,  // Assumed, and so are the rates: 64 multipliers a kernel at 1 GHz,
      operationsPerSecond: 128e9, scoresPerSecond: 1e9,  // one exponential per cycle,
      // and a filter as fast as its channel.
      selectedScoresPerSecond: 1e9, filterBytesPerSecond: 4e9,
      headsInFlight: 64))

  /// A plain NVMe drive of 2026: the flash and the link of ``year2026`` without an engine.
  public static let plainNVMe: DriveParameters = {
    var drive = year2026
    drive.engine = nil
    return drive
  }()
}
