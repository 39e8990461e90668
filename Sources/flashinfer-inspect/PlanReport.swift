import BlockIO
import Calibration
import CommandLineSupport
import HostResources
import KVCache
import ModelFormat
import Runtime
import TensorBasics
import WeightLoader

/// What `--plan` prints: where the memory goes, and how fast a token will be.
struct PlanReport {
  let model: ModelSummary
  let sourceIdentity: ModelIdentity?
  let plan: MemoryPlan
  let promptLength: Int
  let drive: DriveProfile?
  let compute: ComputeProfile?
  let prediction: SpeedPrediction?
  /// What a draft model takes, and what a sweep would read without it; nil = there is none.
  let draft: Draft?
  /// How many times faster answers are where drafts are right so often that a sweep gives so many tokens.
  let draftSpeedUps: [(tokensPerSweep: Int, speedUp: Double)]

  /// A draft model's part in a plan.
  struct Draft {
    var path: String
    var byteCount: Int
    var streamedByteCountWithout: Int
    /// What it takes to read a token; nil = it is not predicted.
    var stepSeconds: Double?

    /// What drafting takes between two sweeps, about.
    var seconds: Double? { stepSeconds.map { Double(usualStepCount) * $0 } }
    private let usualStepCount: Int

    init(
      _ drafter: DraftModel, without plan: MemoryPlan, _ drive: DriveProfile?,
      _ compute: ComputeProfile?
    ) {
      let model = drafter.model
      path = model.source.path
      byteCount = drafter.byteCount
      streamedByteCountWithout = plan.residency.streamedByteCount
      usualStepCount = drafter.usualStepCount
      guard let drive, let compute else { return }
      let work = TokenWork(
        drafter.plan, model: model.source.description, configuration: model.configuration)
      stepSeconds = SpeedPrediction(work, drive: drive, compute: compute)?.sweepSeconds
    }
  }

  /// What is asked of a plan.
  struct Question {
    var resources: ResourceOptions
    var promptLength: Int?
    /// Sequences that are answered at the same time.
    var sequenceCount: Int
    /// Context where none was asked for: prompt and longest answer, as flashinfer-run reserves.
    var answerLength: Int
    /// Whether to measure anew and keep what is found.
    var calibrates: Bool
    /// What of that is kept.
    var spread: SpreadArguments
    /// Who chooses neurons, in a model that lies in bundles of them.
    var neurons: NeuronOptions
    /// Where drafts come from.
    var drafts: DraftArguments
  }

  /// Plans the model at `path`; reads its description and what makes its identity.
  init(_ path: String, _ question: Question) throws {
    // Budget and process as they are before a calibration's buffers.
    let resources = question.resources
    resources.warnBeyondLimits()
    let budget = resources.budget
    let model = try LanguageModel.open(
      path, mirrors: resources.mirror, backend: resources.io)
    let process = ProcessMemory.residentByteCount
    self.model = ModelSummary(path, model.source)
    sourceIdentity = model.source.description.sourceIdentity
    let cache = CalibrationCache.standard
    let file = model.source.largestFile
    if question.calibrates {
      (drive, compute) = try Self.calibrate(
        model.source, question, memoryByteCount: min(384 << 20, budget / 2), cache)
    } else {
      drive = cache.driveProfile(forFileAt: file, backend: resources.io)
      compute = cache.computeProfile(threadCount: resources.threadCount)
    }
    let most = resources.context ?? model.configuration.contextLength
    promptLength = question.promptLength ?? max(1, min(512, most / 2))
    let wanted = promptLength + question.answerLength
    let context = resources.context ?? min(model.configuration.contextLength, wanted)
    guard promptLength < context else {
      throw CommandError(
        .usage, "a prompt of \(promptLength) tokens needs a context longer than \(context)")
    }
    var request = MemoryPlan.Request(
      budgetByteCount: budget, contextLength: context, promptLength: promptLength,
      threadCount: resources.threadCount,
      preferredReadByteCount: resources.preferredReadByteCount(forFileAt: file))
    request.assumedProcessByteCount = process
    request.sequenceCount = question.sequenceCount
    request.neurons = question.neurons
    // As flashinfer-run has it.
    request.draftRowCount = question.drafts.draft == .off ? 0 : DraftChoice.usualRowCount
    let work: TokenWork
    guard let drafter = try question.drafts.openModel(for: model, request, resources) else {
      (plan, work) = try Self.plan(model, request)
      draft = nil
      (prediction, draftSpeedUps) = Self.predict(plan, work, drive, compute)
      return
    }
    let alone = try Self.plan(model, request)
    drafter.reserve(in: &request)
    (plan, work) = try Self.plan(model, request)
    DraftArguments.tell(drafter, without: alone.plan, with: plan)
    try question.drafts.expectRoom(in: plan)
    let draft = Draft(drafter, without: alone.plan, drive, compute)
    self.draft = draft
    (prediction, draftSpeedUps) = Self.predict(
      plan, work, over: alone.work, draftSeconds: draft.seconds, drive, compute)
  }

  private static func plan(
    _ model: LanguageModel, _ request: MemoryPlan.Request
  ) throws -> (plan: MemoryPlan, work: TokenWork) {
    let plan = try MemoryPlan.make(
      request, source: model.source, configuration: model.configuration)
    return (
      plan,
      TokenWork(plan, model: model.source.description, configuration: model.configuration)
    )
  }

  /// What is known of the speed, of drafts where it is known how long they take.
  private static func predict(
    _ plan: MemoryPlan, _ work: TokenWork, over plain: TokenWork? = nil,
    draftSeconds: Double? = 0, _ drive: DriveProfile?, _ compute: ComputeProfile?
  ) -> (SpeedPrediction?, [(tokensPerSweep: Int, speedUp: Double)]) {
    guard let drive, let compute else { return (nil, []) }
    let prediction = SpeedPrediction(work, drive: drive, compute: compute)
    guard let draftSeconds else { return (prediction, []) }
    let most = 1 + plan.draftRowCount / plan.sequenceCount
    let speedUps = tokensPerSweep.filter { $0 <= most }.compactMap { count in
      SpeedPrediction.speedUp(
        tokensPerSweep: count, work, over: plain, draftSeconds: draftSeconds, drive: drive,
        compute: compute
      ).map { (count, $0) }
    }
    return (prediction, speedUps)
  }

  /// Tokens a sweep for which it is said what drafts gain.
  private static let tokensPerSweep = [2, 4, 8, 16]

  /// About as long as it takes.
  private static let calibrationMilliseconds = 6000

  private static func calibrate(
    _ source: ModelSource, _ question: Question, memoryByteCount: Int, _ cache: CalibrationCache
  ) throws -> (DriveProfile, ComputeProfile) {
    let resources = question.resources
    let progress = Progress.begin(
      "calibrating drive and processor", total: calibrationMilliseconds, unit: .milliseconds)
    defer { progress.finish() }
    var drive = try DriveMeasurement(
      path: source.largestFile, backend: resources.io,
      memoryByteCount: memoryByteCount / 3,
      cancellation: Interruption.flag)
    var (profile, driveSpread) = try drive.shortProfile()
    let processors = try ComputeMeasurement(
      threadCount: resources.threadCount, memoryByteCount: memoryByteCount / 3 * 2)
    var kinds = TokenWork.kinds(source.description)
    let drafter: ModelDescription? =
      switch question.drafts.draft {
      case .auto, .off, .lookup: nil
      case .mtp: source.description.predictor
      // What is not to be read is refused later, with the reason.
      case .model(let path): try? ModelSource.describe(path)
      }
    for kind in drafter.map(TokenWork.kinds) ?? [] where !kinds.contains(kind) {
      kinds.append(kind)
    }
    let (compute, computeSpread) = processors.profile(kinds: kinds, seconds: 1.2)
    if let kind = kinds.first {
      profile.bytesPerSecondWhileComputing = try drive.bytesPerSecond(
        at: profile, whileComputing: processors, kind)
    }
    if Interruption.flag.isRaised { throw CommandError(.interrupted, "interrupted") }
    let whole = compute.keepingOthers(
      of: cache.computeProfile(threadCount: resources.threadCount))
    question.spread.keep("the drive", spread: driveSpread) { () throws(BlockIOError) in
      try cache.store(profile)
    }
    question.spread.keep("the processor", spread: computeSpread) { () throws(BlockIOError) in
      try cache.store(whole)
    }
    return (profile, whole)
  }

  /// The process beside what a draft model takes.
  var processByteCount: Int { plan.processByteCount - (draft?.byteCount ?? 0) }

  func printLines() {
    for (name, bytes) in [
      ("budget", plan.budgetByteCount), ("process and margin", processByteCount),
      ("keys and values", plan.keyValueByteCount), ("states", plan.stateByteCount),
      ("activations", plan.workspaceByteCount),
      ("pinned weights", plan.residency.pinnedByteCount),
      ("staging", plan.residency.stagingByteCount),
      ("streamed per token", plan.residency.streamedByteCount),
    ] where name != "states" || bytes > 0 { Terminal.print("\(name): \(ByteCount(bytes))\n") }
    if let slots = plan.expertSlots {
      let classes = slots.classes.map { item in
        (slots.classes.count > 1 ? "\(item.slotCount) of \(item.bundleCount) with " : "")
          + "\(ByteCount(item.slotByteCount)) each"
      }
      Terminal.print(
        "experts in memory: \(plan.expertSlotCount) of \(plan.expertCount), "
          + "\(classes.joined(separator: ", "))\n")
    }
    if let neurons = plan.neurons {
      Terminal.print(
        "bundles of neurons in memory: \(neurons.slotCount) of \(neurons.bundleCount), "
          + "\(ByteCount(neurons.slotByteCount)) each, chosen by \(neurons.selector.rawValue)\n")
    }
    Terminal.print(
      "context: \(plan.contextLength) tokens, prompt \(promptLength) of them, "
        + "in chunks of \(plan.chunkLength)\n")
    if let draft {
      let isUnknown = prediction != nil && draft.stepSeconds == nil
      Terminal.print(
        "draft model: \(ByteCount(draft.byteCount)) in memory; without it, "
          + "\(ByteCount(draft.streamedByteCountWithout)) would be streamed per token"
          + (isUnknown ? "; --calibrate measures how fast it is\n" : "\n"))
    }
    guard let prediction else {
      printWhatIsMissing()
      return
    }
    Terminal.print(
      (plan.sequenceCount == 1
        ? "predicted decode: \(Self.rate(prediction.decodeTokensPerSecond)), "
        : "predicted decode of \(plan.sequenceCount) sequences: "
          + "\(Self.rate(prediction.totalTokensPerSecond)), "
          + "\(Self.rate(prediction.decodeTokensPerSecond)) each, ")
        + "limit: \(prediction.limit.rawValue)\n"
        + "predicted prompt: \(Self.rate(prediction.prefillTokensPerSecond))\n")
    if !draftSpeedUps.isEmpty {
      let gains = draftSpeedUps.map { "\(($0.speedUp * 100).rounded() / 100)" }
      Terminal.print(
        "predicted with drafts: \(gains.joined(separator: " / ")) times as fast where a sweep gives "
          + "\(draftSpeedUps.map { "\($0.tokensPerSweep)" }.joined(separator: " / ")) tokens\n")
    }
    if let drive, let compute {
      Terminal.print(
        "calibration: drive \(Self.gigabytes(drive.bytesPerSecond)) in reads of "
          + "\(ByteCount(drive.blockByteCount)) × \(drive.queueDepth), "
          + "memory \(Self.gigabytes(compute.memoryBytesPerSecond))\n")
    }
  }

  /// Why nothing is predicted, and what is known all the same.
  private func printWhatIsMissing() {
    guard let drive else {
      Terminal.print(
        "no prediction: this machine is not calibrated; run with --calibrate\n")
      return
    }
    Terminal.print(
      "no prediction: the drive is measured (\(Self.gigabytes(drive.bytesPerSecond)) in reads of "
        + "\(ByteCount(drive.blockByteCount)) × \(drive.queueDepth)), but not the processor; "
        + "--calibrate measures both\n")
    let streamed = Double(plan.residency.streamedByteCount)
    guard streamed > 0 else { return }
    Terminal.print(
      "the drive alone allows at most \(Self.rate(drive.bytesPerSecond / streamed)) of decode\n")
  }

  private static func rate(_ value: Double) -> String {
    "\((value * 100).rounded() / 100) tokens/s"
  }

  private static func gigabytes(_ value: Double) -> String {
    "\((value / 1e7).rounded() / 100) GB/s"
  }
}
