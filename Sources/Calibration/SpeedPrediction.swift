import KVCache
public import ModelFormat
public import Runtime
public import TensorBasics
import WeightLoader

/// What a token of each sequence costs under a memory plan, before any of it is done.
public struct TokenWork: Sendable {
  /// Weights of one kind.
  public struct Weights: Sendable, Hashable {
    public var type: ElementType
    /// How rows lie when they are multiplied.
    public var layout: RowLayout

    public init(type: ElementType, layout: RowLayout) {
      self.type = type
      self.layout = layout
    }
  }

  /// Sequences of which each sweep computes a token.
  public var sequenceCount = 1
  /// Drafts of each that it verifies.
  public var draftCount = 0
  /// Bytes of weights that a sweep reads from the drive.
  public var streamedByteCount = 0
  /// Bytes of keys and values of all sequences that a sweep reads from the drive.
  public var streamedKeyValueByteCount = 0
  /// Bytes multiplied, by kind.
  public var weightByteCounts: [Weights: Int] = [:]
  /// Multiplications and additions of one token, by kind.
  public var operationCounts: [Weights: Double] = [:]
  /// Keys and values that one token attends over.
  public var keyValueByteCount = 0
  /// Parallel regions.
  public var regionCount = 0
  /// Tokens of a prompt that share a sweep.
  public var chunkLength = 1

  public init() {}

  /// The kinds of weights that products with a model's matrices meet, pinned or streamed.
  public static func kinds(_ model: ModelDescription) -> [Weights] {
    var kinds: Set<Weights> = []
    for tensor in model.tensors where tensor.rowCount > 1 {
      kinds.insert(Weights(type: tensor.type, layout: tensor.layout))
      kinds.insert(Weights(type: tensor.type, layout: .interleaved))
    }
    return kinds.sorted {
      ($0.type.rawValue, $0.layout.rawValue) < ($1.type.rawValue, $1.layout.rawValue)
    }
  }

  /// The work of a token in the middle of `plan`'s context.
  public init(
    _ plan: MemoryPlan, model: ModelDescription, configuration: DecoderConfiguration
  ) {
    streamedByteCount = plan.residency.streamedByteCount
    chunkLength = plan.chunkLength
    for run in plan.residency.runs {
      for piece in plan.residency.pieces[run.pieces] {
        let tensor = model.tensors[piece.tensor]
        // Pinned rows are interleaved once; streamed ones each time.
        let kind = Weights(
          type: tensor.type, layout: run.isPinned ? .interleaved : piece.layout)
        weightByteCounts[kind, default: 0] += piece.byteCount
        operationCounts[kind, default: 0] += 2 * Double(piece.rowCount * tensor.columnCount)
      }
      // While the drive is behind, each read is a region of its own.
      if !run.isPinned { regionCount += 1 }
    }
    if let experts = configuration.experts {
      // As if every expert were as likely as another: a real router repeats itself and misses less.
      let missing = 1 - Double(plan.expertSlotCount) / Double(max(1, plan.expertCount))
      for tensor in model.tensors {
        guard let stack = tensor.stack else { continue }
        let byteCount = tensor.byteCount / stack.count * experts.expertsPerToken
        let kind = Weights(type: tensor.type, layout: .interleaved)
        weightByteCounts[kind, default: 0] += byteCount
        operationCounts[kind, default: 0] +=
          2 * Double(tensor.partRowCount * tensor.columnCount * experts.expertsPerToken)
        streamedByteCount += Int(missing * Double(byteCount))
      }
      regionCount += 3 * configuration.layers.count { $0.experts != nil }
    }
    let shape = KeyValueShape(
      configuration, contextLength: max(1, plan.contextLength / 2),
      type: plan.keyValues.shape.type)
    keyValueByteCount = shape.pageCount * shape.pageByteCount
    sequenceCount = plan.sequenceCount
    if plan.keyValues.hasTier {
      streamedKeyValueByteCount = max(
        0, sequenceCount * keyValueByteCount - plan.keyValues.retainedByteCount)
    }
    // Attention, four groups of products, and what lies between them.
    regionCount += 8 * configuration.layerCount
  }
}

/// Tokens per second that a plan will give on a measured machine.
///
/// Reads overlap the arithmetic, so a token takes the longer of the two; but while the processors
/// compute, the drive reads at its lower speed, and what it reads less is left for afterwards.
/// Submitting and reaping is the coordinator's work, and stands on the side of arithmetic.
public struct SpeedPrediction: Sendable, Equatable {
  /// What keeps a token from being faster.
  public enum Limit: String, Sendable {
    case drive
    case memory = "DRAM"
    case arithmetic
  }

  /// Of one sequence, while the others are decoded as well.
  public var decodeTokensPerSecond: Double
  /// Of all sequences together.
  public var totalTokensPerSecond: Double
  /// What a sweep takes.
  public var sweepSeconds: Double
  /// Of a prompt that fills its chunks.
  public var prefillTokensPerSecond: Double
  public var limit: Limit
  /// Reading a token's streamed weights, beside its arithmetic.
  public var driveSeconds: Double
  /// Everything else a token takes.
  public var computeSeconds: Double

  /// - Returns: nil if a kind of weights was not measured, or there is no work.
  public init?(_ work: TokenWork, drive: DriveProfile, compute: ComputeProfile) {
    var (products, fromMemory, operations, sweep) = (0.0, 0.0, 0.0, 0.0)
    let rowCount = Double(work.sequenceCount * (1 + work.draftCount))
    for (kind, byteCount) in work.weightByteCounts {
      guard let rate = compute.rate(kind.type, kind.layout) else { return nil }
      let seconds = Double(byteCount) / rate.decodeBytesPerSecond
      products += seconds
      // A product that runs near the speed of plain reading waits for memory.
      if rate.decodeBytesPerSecond >= Self.memoryShare * compute.memoryBytesPerSecond {
        fromMemory += seconds
      }
      let row = (work.operationCounts[kind] ?? 0) / rate.prefillOperationsPerSecond
      operations += row
      // Rows share the reading of weights until their arithmetic takes longer.
      sweep += rowCount == 1 ? seconds : max(seconds, row * rowCount)
    }
    // Drafts share the reading of keys and values.
    let keyValues =
      Double(work.sequenceCount * work.keyValueByteCount) / compute.memoryBytesPerSecond
    let streamed = Double(work.streamedByteCount + work.streamedKeyValueByteCount)
    let reading = streamed * drive.processorSecondsPerByte
    let regions = Double(work.regionCount) * compute.regionSeconds
    computeSeconds = sweep + keyValues + regions + reading
    let slowed = min(1, drive.bytesPerSecondWhileComputing / drive.bytesPerSecond)
    let alone = streamed / drive.bytesPerSecond
    // Reading is over before the arithmetic is, or goes on alone after it.
    driveSeconds = min(alone / max(slowed, 1e-9), alone + computeSeconds * (1 - slowed))
    let seconds = max(computeSeconds, driveSeconds)
    guard seconds > 0 else { return nil }
    decodeTokensPerSecond = 1 / seconds
    totalTokensPerSecond = Double(work.sequenceCount) / seconds
    sweepSeconds = seconds
    if driveSeconds >= computeSeconds {
      limit = .drive
    } else {
      limit = fromMemory + keyValues >= computeSeconds / 2 ? .memory : .arithmetic
    }
    let chunk = Double(max(1, work.chunkLength))
    let chunkCompute = max(operations * chunk, products) + regions + reading
    let chunkDrive = min(alone / max(slowed, 1e-9), alone + chunkCompute * (1 - slowed))
    let chunkSeconds = max(chunkDrive, chunkCompute)
    prefillTokensPerSecond = chunk / chunkSeconds
  }

  /// How many times faster answers are where drafts are right so often that a sweep gives so many tokens of each sequence, and
  /// verifies no others.
  ///
  /// - Parameters:
  ///   - plain: the work without what drafts them; nil = the same.
  ///   - draftSeconds: what drafting takes between two sweeps.
  /// - Returns: nil where nothing can be predicted.
  public static func speedUp(
    tokensPerSweep: Int, _ work: TokenWork, over plain: TokenWork? = nil, draftSeconds: Double = 0,
    drive: DriveProfile, compute: ComputeProfile
  ) -> Double? {
    var (plain, drafted) = (plain ?? work, work)
    (plain.draftCount, drafted.draftCount) = (0, tokensPerSweep - 1)
    guard let one = SpeedPrediction(plain, drive: drive, compute: compute),
      let all = SpeedPrediction(drafted, drive: drive, compute: compute)
    else { return nil }
    return Double(tokensPerSweep) * one.sweepSeconds / (all.sweepSeconds + draftSeconds)
  }

  /// Share of plain reading's speed from which a product is called limited by memory.
  private static let memoryShare = 0.8
}
