/// End-to-end time of generating: prompts, then one step per token of all sequences together.
///
/// A step goes layer by layer: the processor's products, then attention over the keys and values, wherever
/// they are. Attention of a layer is played on the drive's clock (``AttentionTiming``) at three context
/// lengths, the first, the middle and the last, and integrated over the output by Simpson's rule.
public struct SystemModel: Sendable {
  public var system: SystemParameters
  public var drive: DriveParameters

  public init(system: SystemParameters, drive: DriveParameters) {
    self.system = system
    self.drive = drive
  }

  /// - Throws: ``TimingError`` if something cannot be, lacks an engine or does not fit.
  public func run(
    _ workload: SystemWorkload, _ placement: KeyValuePlacement, _ mode: AttentionMode
  ) throws(TimingError) -> SystemTiming {
    try system.validate()
    try workload.validate()
    try drive.validate(for: workload.model)
    var timing = SystemTiming()
    timing.prefillSeconds = try prefillSeconds(workload, placement, mode)
    let last = max(workload.outputLength - 1, 0)
    let points: [(context: Int, weight: Double)] = [
      (workload.context(0), 1 / 6), (workload.context(last / 2), 4 / 6),
      (workload.context(last), 1 / 6),
    ]
    for point in points {
      let step = try step(workload, placement, mode, context: point.context)
      let weight = point.weight * Double(workload.outputLength)
      timing.decodeSeconds += weight * step.seconds
      timing.keyValueSeconds += weight * step.keyValueSeconds
      timing.attentionSeconds += weight * step.attentionSeconds
      timing.busByteCount += weight * step.busByteCount
      timing.flashReadByteCount += weight * step.flashReadByteCount
    }
    timing.tokensPerSecond =
      Double(workload.batch * workload.outputLength)
      / (timing.prefillSeconds + timing.decodeSeconds)
    try addWrites(workload, placement, mode, &timing)
    return timing
  }

  /// One step of all sequences.
  struct Step {
    var seconds = 0.0
    var keyValueSeconds = 0.0
    var attentionSeconds = 0.0
    var busByteCount = 0.0
    var flashReadByteCount = 0.0
  }

  func step(
    _ workload: SystemWorkload, _ placement: KeyValuePlacement, _ mode: AttentionMode, context: Int
  ) throws(TimingError) -> Step {
    switch placement {
    case .inStorage(let driveCount):
      try inStorageStep(workload, driveCount, mode, context)
    case .hostStorage(let driveCount):
      try hostStorageStep(workload, driveCount, mode, context)
    case .hostMemory:
      hostMemoryStep(workload, mode, context)
    case .recomputation:
      recomputationStep(workload, context)
    }
  }

  private func inStorageStep(
    _ workload: SystemWorkload, _ driveCount: Int, _ mode: AttentionMode, _ context: Int
  ) throws(TimingError) -> Step {
    try requireCount("drives", driveCount, upTo: 1 << 20)
    let model = workload.model
    let layers = Double(model.layerCount)
    let batch = Double(workload.batch)
    let commands = commandCount(workload, driveCount)
    let attention = try AttentionTiming(
      model: model, drive: drive, commandCount: commands, context: context, mode: mode)
    let share = Double(commands) / Double(workload.batch * model.keyValueHeadCount)
    let bus = batch * model.layerBusByteCount
    let busSeconds =
      max(bus * share / drive.linkBytesPerSecond, bus / totalLinkBytesPerSecond)
      + 2 * drive.linkNanoseconds / 1e9
    let append = try WriteTiming(
      drive: drive, hostByteCount: batch * model.layerTokenByteCount * share,
      storedFraction: mode.storedFraction, isStream: false)
    // Planes that program do not read; that is all of an append that attention notices.
    let program = append.flashByteCount / programBytesPerSecond
    let host = batch * Double(model.keyValueHeadCount) * system.commandNanoseconds / 1e9
    let drives = attention.nanoseconds / 1e9 + program
    let inDrives = system.overlapsCommands ? max(drives, host) : drives + host
    var step = Step()
    step.attentionSeconds = layers * drives
    step.keyValueSeconds = layers * attention.flashNanoseconds / 1e9
    step.seconds = productSeconds(workload) + layers * (inDrives + busSeconds)
    step.busByteCount = layers * bus
    step.flashReadByteCount = layers * attention.flashByteCount / share
    return step
  }

  private func hostStorageStep(
    _ workload: SystemWorkload, _ driveCount: Int, _ mode: AttentionMode, _ context: Int
  ) throws(TimingError) -> Step {
    try requireCount("drives", driveCount, upTo: 1 << 20)
    let stored = Double(workload.batch) * Double(context) * workload.model.tokenByteCount
    let bytes = stored * fileShare(mode)
    let cached = min(1, system.fileCacheByteCount / stored)
    let rate = min(
      system.fileBytesPerSecond, Double(driveCount) * drive.hostReadBytesPerSecond,
      totalLinkBytesPerSecond)
    var step = Step()
    step.flashReadByteCount = bytes * (1 - cached)
    step.keyValueSeconds =
      max(step.flashReadByteCount / rate, bytes / totalLinkBytesPerSecond)
    step.attentionSeconds = step.keyValueSeconds
    let products = productSeconds(workload) + attentionSeconds(workload, context, mode)
    // Dense reads are known before their queries are, so products hide behind them.
    step.seconds =
      mode == .dense ? max(step.keyValueSeconds, products) : step.keyValueSeconds + products
    step.busByteCount = bytes
    return step
  }

  private func hostMemoryStep(
    _ workload: SystemWorkload, _ mode: AttentionMode, _ context: Int
  ) -> Step {
    let model = workload.model
    let weights = system.streamsWeights ? model.weightByteCount : 0
    let stored = Double(workload.batch) * Double(context) * model.tokenByteCount
    let moved = stored * entryShare(mode)
    var step = Step()
    step.busByteCount = moved + weights
    step.keyValueSeconds = copySeconds(moved)
    if !fitsHostMemory(workload) {
      // A cyclic scan over more than memory finds nothing there: each byte goes out to the swap file
      // before it comes in again.
      step.keyValueSeconds += 2 * (moved + weights) / system.fileBytesPerSecond
    }
    step.attentionSeconds = step.keyValueSeconds
    step.seconds =
      step.keyValueSeconds + productSeconds(workload)
      + attentionSeconds(workload, context, mode) + weights / system.linkBytesPerSecond
    return step
  }

  private func recomputationStep(_ workload: SystemWorkload, _ context: Int) -> Step {
    var step = Step()
    step.seconds = prefillOperationSeconds(workload, context)
    return step
  }
}
