extension SystemModel {
  /// Attend commands of a layer of the drive that has most: whole KV heads as long as there are enough,
  /// then KV heads of single sequences.
  func commandCount(_ workload: SystemWorkload, _ driveCount: Int) -> Int {
    let heads = workload.model.keyValueHeadCount
    return driveCount <= heads
      ? (heads + driveCount - 1) / driveCount * workload.batch
      : (heads * workload.batch + driveCount - 1) / driveCount
  }

  /// Of all keys and values, what sparse attention on a processor takes: keys by channel, then keys and
  /// values by token (arXiv 2312.04985, §4).
  func entryShare(_ mode: AttentionMode) -> Double {
    mode.storesKeysTwice ? 1.5 * mode.entryFraction : 1
  }

  /// Of all keys and values, what a host reads from drives for that.
  func fileShare(_ mode: AttentionMode) -> Double {
    mode.storesKeysTwice && system.readsWholePages ? 1.5 * mode.pageFraction : entryShare(mode)
  }

  /// Whether host memory holds the keys and values of the whole run, and the weights where it must.
  public func fitsHostMemory(_ workload: SystemWorkload) -> Bool {
    let weights = system.streamsWeights ? workload.model.weightByteCount : 0
    return workload.finalByteCount + weights <= system.hostMemoryByteCount
  }

  /// The links of all processors together.
  var totalLinkBytesPerSecond: Double {
    Double(system.processorCount) * system.linkBytesPerSecond
  }

  /// What planes and channels of one drive program.
  var programBytesPerSecond: Double {
    let unit = Double(drive.pagesPerProgram * drive.geometry.pageByteCount)
    let transfer = Double(drive.pagesPerProgram) * drive.channelNanoseconds
    let planes = Double(drive.geometry.planesPerChannel)
    let perChannel = min(unit / transfer, planes * unit / (drive.programNanoseconds + transfer))
    return Double(drive.geometry.channelCount) * perChannel * 1e9
  }

  /// Device DRAM of one drive for tokens that do not fill a page: half a page of keys and half a page of
  /// values on average, per head.
  ///
  /// The second copy of the keys waits for hundreds of tokens per page; DRAM for those would be many times
  /// what the paper's drive has, so they are read back and turned once their pages by token are there. That
  /// is one page read per page written, against a thousand that attention reads.
  func groupBufferByteCount(_ workload: SystemWorkload, _ driveCount: Int) -> Double {
    Double(commandCount(workload, driveCount)) * Double(workload.model.layerCount)
      * Double(drive.geometry.pageByteCount)
  }

  /// Products of a step: reading the weights, or arithmetic.
  func productSeconds(_ workload: SystemWorkload) -> Double {
    let processors = Double(system.processorCount)
    let operations = 2 * workload.model.weightCount * Double(workload.batch)
    return max(
      workload.model.weightByteCount / (processors * system.memoryBytesPerSecond),
      operations / (processors * system.operationsPerSecond * system.productEfficiency))
  }

  /// Keys and values from host memory to the processor.
  func copySeconds(_ byteCount: Double) -> Double {
    system.copyBytesPerSecond.map { byteCount / $0 } ?? 0
  }

  /// Attention of a step on the processor, once keys and values are there: reading them.
  func attentionSeconds(_ workload: SystemWorkload, _ context: Int, _ mode: AttentionMode) -> Double
  {
    Double(workload.batch) * Double(context) * workload.model.tokenByteCount * entryShare(mode)
      / (Double(system.processorCount) * system.memoryBytesPerSecond)
  }

  /// Products and attention of `length` tokens of every sequence at once.
  func prefillOperationSeconds(_ workload: SystemWorkload, _ length: Int) -> Double {
    let model = workload.model
    let tokens = Double(length)
    // Scores and sums over half the square, each a product and a sum per element.
    let attention =
      2 * tokens * tokens
      * Double(model.layerCount * model.queryHeadCount * model.headDim)
    let operations = Double(workload.batch) * (2 * model.weightCount * tokens + attention)
    return operations
      / (Double(system.processorCount) * system.operationsPerSecond * system.productEfficiency)
  }

  /// Prompts: a layer's keys and values are written while the next layer computes.
  func prefillSeconds(
    _ workload: SystemWorkload, _ placement: KeyValuePlacement, _ mode: AttentionMode
  ) throws(TimingError) -> Double {
    let layers = Double(workload.model.layerCount)
    let compute = prefillOperationSeconds(workload, workload.promptLength) / layers
    let write = try prefillWriteSeconds(workload, placement, mode)
    return compute + (layers - 1) * max(compute, write) + write
  }

  /// Writing one layer of all prompts.
  private func prefillWriteSeconds(
    _ workload: SystemWorkload, _ placement: KeyValuePlacement, _ mode: AttentionMode
  ) throws(TimingError) -> Double {
    let model = workload.model
    let bytes =
      Double(workload.batch * workload.promptLength) * model.layerTokenByteCount
    switch placement {
    case .inStorage(let driveCount):
      try requireCount("drives", driveCount, upTo: 1 << 20)
      let share =
        Double(commandCount(workload, driveCount))
        / Double(workload.batch * model.keyValueHeadCount)
      let write = try WriteTiming(
        drive: drive, hostByteCount: bytes * share, storedFraction: mode.storedFraction,
        isStream: true)
      return max(write.nanoseconds / 1e9, bytes / totalLinkBytesPerSecond)
    case .hostStorage(let driveCount):
      try requireCount("drives", driveCount, upTo: 1 << 20)
      let write = try WriteTiming(
        drive: drive, hostByteCount: bytes / Double(driveCount),
        storedFraction: mode.storedFraction, isStream: true)
      return max(
        write.nanoseconds / 1e9, bytes * mode.storedFraction / system.fileBytesPerSecond)
    case .hostMemory:
      return copySeconds(bytes)
    case .recomputation:
      return 0
    }
  }

  /// Flash written in a run, the DRAM that gathers it, and what erasing it takes later.
  ///
  /// The host reclaims whole blocks of ended sequences, so nothing valid is moved, and drives erase while
  /// they are idle (§IV-C); a run therefore pays nothing for it.
  func addWrites(
    _ workload: SystemWorkload, _ placement: KeyValuePlacement, _ mode: AttentionMode,
    _ timing: inout SystemTiming
  ) throws(TimingError) {
    let driveCount: Int
    switch placement {
    case .inStorage(let count):
      driveCount = count
      timing.groupBufferByteCount = groupBufferByteCount(workload, count)
    case .hostStorage(let count): driveCount = count
    case .hostMemory, .recomputation: return
    }
    timing.flashWriteByteCount = workload.finalByteCount * mode.storedFraction
    let capacity = Double(driveCount) * drive.capacityByteCount
    guard timing.flashWriteByteCount <= capacity else {
      throw .driveFull(
        neededByteCount: timing.flashWriteByteCount, capacityByteCount: capacity)
    }
    let geometry = drive.geometry
    let block = Double(geometry.pagesPerBlock) * Double(geometry.pageByteCount)
    let planes = Double(driveCount * geometry.channelCount * geometry.planesPerChannel)
    timing.eraseSeconds =
      timing.flashWriteByteCount / block / planes * drive.eraseNanoseconds / 1e9
  }
}
