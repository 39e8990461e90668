/// Every published figure that the model speaks of, in the order of `docs/in-storage.md`.
public struct PaperFigures {
  public let figures: [PublishedFigure]

  private let model: SystemModel
  private static let sparse = AttentionMode.sparse(compression: 0.125)

  /// - Throws: ``TimingError`` if the parameters are impossible.
  public init(system: SystemParameters = .paper, drive: DriveParameters = .paper)
    throws(TimingError)
  {
    model = SystemModel(system: system, drive: drive)
    figures =
      Self.units(drive) + (try Self.volumes(drive)) + Self.endurance(drive)
      + (try Self.scaling(model)) + (try Self.shares(model)) + (try Self.ratios(model))
      + (try Self.otherModels(model))
  }

  /// How many figures of a level are no inputs, how many of them lie within `bound`, and the largest error.
  ///
  /// Errors are shares of what was published; the largest keeps its sign.
  public func summary(
    of level: PublishedFigure.Level, within bound: Double
  ) -> (count: Int, nearCount: Int, furthest: Double) {
    let errors = figures.filter { $0.level == level && $0.kind != .input }.map(\.error)
    return (
      errors.count, errors.count { $0.magnitude <= bound },
      errors.max { $0.magnitude < $1.magnitude } ?? 0
    )
  }

  private static func opt13B(_ batch: Int) -> SystemWorkload {
    SystemWorkload(model: .opt13B, batch: batch, promptLength: 1024, outputLength: 1024)
  }

  /// Table I: the units of the real engine, whose rates are inputs, and how the emulated ones differ.
  private static func units(_ drive: DriveParameters) -> [PublishedFigure] {
    let matrixVector = 12.7e9
    let softmax = 14.2e6
    let filter = 1.85e9
    guard let engine = drive.engine else { return [] }
    let head = ModelParameters.opt13B
    let operations = 2 * Double(16 * head.headDim)
    return [
      PublishedFigure(
        "matrix-vector unit, real, GFLOP/s", .input, .device, 12.7, matrixVector / 1e9),
      PublishedFigure("softmax unit, real, MFLOP/s", .input, .device, 14.2, softmax / 1e6),
      PublishedFigure("filter unit, real, GB/s", .input, .device, 1.85, filter / 1e9),
      PublishedFigure(
        "matrix-vector unit, virtual, GFLOP/s", .input, .device, 13.3,
        engine.operationsPerSecond / 1e9),
      PublishedFigure(
        "softmax unit, virtual, MFLOP/s", .input, .device, 15.1, engine.scoresPerSecond / 1e6),
      PublishedFigure(
        "filter unit, virtual, GB/s", .input, .device, 1.79, engine.filterBytesPerSecond / 1e9),
      PublishedFigure(
        "matrix-vector unit, 16 tokens of a head, µs", .predicted, .device, 0.32,
        operations / matrixVector * 1e6),
      PublishedFigure(
        "softmax unit, 2,048 tokens of a head, µs", .constrained, .device, 164,
        2048 / softmax * 1e6),
      PublishedFigure(
        "filter unit, 16 pages, µs", .constrained, .device, 37,
        16 * Double(drive.geometry.pageByteCount) / engine.filterBytesPerSecond * 1e6),
      PublishedFigure(
        "accuracy of emulated matrix-vector unit", .input, .device, 0.955,
        matrixVector / engine.operationsPerSecond),
      PublishedFigure(
        "accuracy of emulated softmax unit", .input, .device, 0.94,
        softmax / engine.scoresPerSecond),
      PublishedFigure(
        "accuracy of emulated filter", .input, .device, 0.968,
        engine.filterBytesPerSecond / filter),
      PublishedFigure(
        "bandwidth of all channels, GB/s", .input, .device, 11.2,
        Double(drive.geometry.channelCount) * drive.channelBytesPerSecond / 1e9),
      PublishedFigure(
        "bandwidth of the link, GB/s", .input, .device, 7, drive.linkBytesPerSecond / 1e9),
    ]
  }

  /// Table III: one layer of OPT-13B at batch 64, 1,024 tokens each way, with SparF at 1/8.
  private static func volumes(_ drive: DriveParameters) throws(TimingError) -> [PublishedFigure] {
    let model = ModelParameters.opt13B
    let workload = opt13B(64)
    let batch = Double(workload.batch)
    let prompt = batch * Double(workload.promptLength) * model.layerTokenByteCount
    let output = batch * Double(workload.outputLength) * model.layerTokenByteCount
    let prefill = try WriteTiming(
      drive: drive, hostByteCount: prompt, storedFraction: sparse.storedFraction, isStream: true)
    let append = try WriteTiming(
      drive: drive, hostByteCount: output, storedFraction: sparse.storedFraction, isStream: false)
    let read = try reads(drive, workload)
    return [
      PublishedFigure(
        "prefill writes of a layer, GB", .predicted, .device, 1.34, prefill.hostByteCount / 1e9),
      PublishedFigure(
        "prefill writes, GB/s", .constrained, .device, 3.78, prefill.hostBytesPerSecond / 1e9),
      PublishedFigure(
        "decode reads of a layer, GB", .constrained, .device, 1085.65, read.byteCount / 1e9),
      PublishedFigure(
        "decode reads, GB/s", .constrained, .device, 7.66, read.byteCount / read.seconds / 1e9),
      PublishedFigure(
        "decode writes of a layer, GB", .predicted, .device, 1.93, append.flashByteCount / 1e9),
      PublishedFigure(
        "decode writes, GB/s", .constrained, .device, 2.15, append.hostBytesPerSecond / 1e9),
      PublishedFigure(
        "decode reads ÷ prefill writes", .predicted, .device, 810,
        read.byteCount / prefill.hostByteCount),
      PublishedFigure(
        "decode reads ÷ decode writes", .predicted, .device, 560,
        read.byteCount / append.flashByteCount),
      PublishedFigure("copies of keys and values", .input, .device, 1.5, sparse.storedFraction),
      PublishedFigure(
        "bus bytes, host ÷ in-storage, at 1,536 tokens", .predicted, .device, 768,
        1536 * model.layerTokenByteCount / model.layerBusByteCount),
    ]
  }

  /// Flash reads of all decode steps of one layer, by Simpson's rule over the context.
  private static func reads(_ drive: DriveParameters, _ workload: SystemWorkload)
    throws(TimingError) -> (byteCount: Double, seconds: Double)
  {
    var byteCount = 0.0
    var seconds = 0.0
    for (index, weight) in [(0, 1.0 / 6), (511, 4.0 / 6), (1023, 1.0 / 6)] {
      let layer = try AttentionTiming(
        model: workload.model, drive: drive,
        commandCount: workload.batch * workload.model.keyValueHeadCount,
        context: workload.context(index), mode: sparse)
      byteCount += weight * Double(workload.outputLength) * layer.flashByteCount
      seconds += weight * Double(workload.outputLength) * layer.nanoseconds / 1e9
    }
    return (byteCount, seconds)
  }

  /// §VI-F: four drives of 2 TB.
  private static func endurance(_ drive: DriveParameters) -> [PublishedFigure] {
    let token = ModelParameters.opt13B.tokenByteCount
    return [
      PublishedFigure(
        "keys and values of a token, MiB", .predicted, .device, 0.78, token / Double(1 << 20)),
      PublishedFigure(
        "tokens that four drives endure, 10⁹", .constrained, .device, 32.263877,
        4 * drive.capacityByteCount * drive.eraseLimit / token / 1e9),
    ]
  }

  /// Fig. 14 and 20a at batch 256: sparse against dense, 20 drives against one; §VI-F: retries.
  private static func scaling(_ model: SystemModel) throws(TimingError) -> [PublishedFigure] {
    let workload = opt13B(256)
    let dense = try model.run(workload, .inStorage(driveCount: 1), .dense)
    let sparsely = try model.run(workload, .inStorage(driveCount: 1), sparse)
    let denseArray = try model.run(workload, .inStorage(driveCount: 20), .dense)
    let sparseArray = try model.run(workload, .inStorage(driveCount: 20), sparse)
    var relaxed = model
    relaxed.drive.retriesPerRead = 0.003
    let retried = try relaxed.run(workload, .inStorage(driveCount: 1), sparse)
    return [
      PublishedFigure(
        "sparse ÷ dense, batch 256", .constrained, .device, 2.08,
        sparsely.tokensPerSecond / dense.tokensPerSecond),
      PublishedFigure(
        "20 drives ÷ 1, dense", .constrained, .device, 8.99,
        denseArray.tokensPerSecond / dense.tokensPerSecond),
      PublishedFigure(
        "20 drives ÷ 1, sparse", .constrained, .device, 7.29,
        sparseArray.tokensPerSecond / sparsely.tokensPerSecond),
      PublishedFigure(
        "throughput left with retries (at least)", .predicted, .device, 0.9953,
        retried.tokensPerSecond / sparsely.tokensPerSecond),
    ]
  }

  /// Fig. 18 and 19: keys' and values' share of decoding at batch 64, in percent, and what in-storage
  /// attention saves of it.
  private static func shares(_ model: SystemModel) throws(TimingError) -> [PublishedFigure] {
    let workload = opt13B(64)
    let host = try model.run(workload, .hostStorage(driveCount: 1), .dense)
    let one = try model.run(workload, .inStorage(driveCount: 1), .dense)
    let two = try model.run(workload, .inStorage(driveCount: 2), .dense)
    func percent(_ placement: KeyValuePlacement) throws(TimingError) -> Double {
      100 * (try model.run(workload, placement, sparse)).keyValueShare
    }
    return [
      PublishedFigure(
        "KV share, FlexGen, %", .predicted, .system, 98.9, 100 * host.keyValueShare),
      PublishedFigure(
        "KV share, InstA, 1 drive, %", .constrained, .system, 80.7, 100 * one.keyValueShare),
      PublishedFigure(
        "KV share, InstA, 2 drives, %", .constrained, .system, 76.4, 100 * two.keyValueShare),
      PublishedFigure(
        "KV share, FlexGen-SparQ, %", .predicted, .system, 92.4,
        try percent(.hostStorage(driveCount: 1))),
      PublishedFigure(
        "KV share, InstA-SparF, 1 drive, %", .predicted, .system, 82.3,
        try percent(.inStorage(driveCount: 1))),
      PublishedFigure(
        "KV share, InstA-SparF, 2 drives, %", .predicted, .system, 74.0,
        try percent(.inStorage(driveCount: 2))),
      PublishedFigure(
        "KV time saved, InstA, 1 drive, %", .predicted, .system, 88.1,
        100 * (1 - one.keyValueSeconds / host.keyValueSeconds)),
      PublishedFigure(
        "KV time saved, InstA, 2 drives, %", .predicted, .system, 94.0,
        100 * (1 - two.keyValueSeconds / host.keyValueSeconds)),
    ]
  }

  /// Fig. 14 and 15: OPT-13B against the baselines.
  private static func ratios(_ model: SystemModel) throws(TimingError) -> [PublishedFigure] {
    func rate(_ batch: Int, _ placement: KeyValuePlacement, _ mode: AttentionMode)
      throws(TimingError) -> Double
    {
      try model.run(opt13B(batch), placement, mode).tokensPerSecond
    }
    let one = KeyValuePlacement.inStorage(driveCount: 1)
    let two = KeyValuePlacement.inStorage(driveCount: 2)
    let flexGen = try rate(32, .hostStorage(driveCount: 1), .dense)
    let sparF = try rate(256, one, sparse)
    let deepSpeed = try rate(16, .hostMemory, .dense)
    return [
      PublishedFigure(
        "InstA ÷ FlexGen, batch 64", .constrained, .system, 6.85,
        try rate(64, one, .dense) / rate(64, .hostStorage(driveCount: 1), .dense)),
      PublishedFigure(
        "InstA-SparF (256) ÷ FlexGen (best, 32)", .predicted, .system, 11.1, sparF / flexGen),
      PublishedFigure(
        "InstA-SparF ÷ recomputation, batch 256", .predicted, .system, 1.713,
        try sparF / rate(256, .recomputation, .dense)),
      PublishedFigure(
        "InstA (256) ÷ DeepSpeed (best, 16)", .constrained, .system, 1.046,
        try rate(256, one, .dense) / deepSpeed),
      PublishedFigure(
        "DeepSpeed, batch 16 ÷ 32", .constrained, .system, 32.6,
        try deepSpeed / rate(32, .hostMemory, .dense)),
      PublishedFigure(
        "InstA, 2 drives (256) ÷ FlexGen (32)", .constrained, .system, 10.5,
        try rate(256, two, .dense) / rate(32, .hostStorage(driveCount: 2), .dense)),
      PublishedFigure(
        "InstA-SparF, 2 drives (256) ÷ FlexGen-SparQ (32)", .constrained, .system, 3.11,
        try rate(256, two, sparse) / rate(32, .hostStorage(driveCount: 2), sparse)),
    ]
  }

  /// Fig. 16 and 17. The paper does not say at which batch; FlexGen is taken at 16, where these models' keys
  /// and values are as large as OPT-13B's at its best batch.
  private static func otherModels(_ model: SystemModel) throws(TimingError) -> [PublishedFigure] {
    var pair = model
    pair.system.processorCount = 2
    let opt = SystemWorkload(model: .opt30B, batch: 16, promptLength: 1024, outputLength: 1024)
    let llama = SystemWorkload(
      model: .llama2With13B, batch: 16, promptLength: 2048, outputLength: 2048)
    func ratio(_ model: SystemModel, _ workload: SystemWorkload, _ mode: AttentionMode)
      throws(TimingError) -> Double
    {
      var largest = workload
      largest.batch = 256
      return try model.run(largest, .inStorage(driveCount: 1), mode).tokensPerSecond
        / model.run(workload, .hostStorage(driveCount: 1), .dense).tokensPerSecond
    }
    let flexGen = try model.run(llama, .hostStorage(driveCount: 1), .dense).tokensPerSecond
    return [
      PublishedFigure(
        "OPT-30B, InstA ÷ FlexGen", .constrained, .system, 4.09, try ratio(pair, opt, .dense)),
      PublishedFigure(
        "OPT-30B, InstA-SparF ÷ FlexGen", .constrained, .system, 9.39, try ratio(pair, opt, sparse)),
      PublishedFigure(
        "Llama-2-13B, InstA ÷ FlexGen", .constrained, .system, 5.68, try ratio(model, llama, .dense)
      ),
      PublishedFigure(
        "Llama-2-13B, InstA-SparF ÷ FlexGen", .constrained, .system, 12.48,
        try ratio(model, llama, sparse)),
      PublishedFigure(
        "Llama-2-13B, recomputation ÷ FlexGen", .predicted, .system, 9.26,
        try model.run(llama, .recomputation, .dense).tokensPerSecond / flexGen),
    ]
  }
}
