import BlockIO
import Grammar
import HostResources
public import KVCache
import Kernels
public import ModelFormat
import TensorBasics
public import WeightLoader

/// Where a memory budget goes: a promise on the process's peak resident set.
public struct MemoryPlan: Sendable {
  /// The promise.
  public let budgetByteCount: Int
  /// The process itself with tokenizer and description, as measured before planning, and a margin for
  /// code that has not run yet.
  public let processByteCount: Int
  /// How the memory of all sequences' keys and values is divided.
  public let keyValues: KeyValuePlan
  /// Sequences that may be open at the same time.
  public var sequenceCount: Int { keyValues.sequenceCount }
  /// Memory of the keys and values of all sequences.
  public var keyValueByteCount: Int { keyValues.byteCount }
  /// Memory of the states of all sequences, in layers that have them in place of keys and values, and of copies.
  public var stateByteCount: Int {
    (sequenceCount + savedStateCount) * keyValues.shape.stateByteCount
  }
  /// Copies of a sequence's states that there is room for, from which sequences go on that are cut.
  public let savedStateCount: Int
  /// Activations of a chunk, logits, scratch of the workers.
  public let workspaceByteCount: Int
  /// Norms and biases, and buffers for embedding rows.
  public let vectorByteCount: Int
  /// Tokens of a prompt that pass through the model at once.
  public let chunkLength: Int
  /// Most rows of a sweep, of all sequences together.
  public let rowCapacity: Int
  /// Rows of logits computed at once.
  public let logitRowCount: Int
  /// Most drafted tokens that a sweep verifies, of all sequences together.
  public let draftRowCount: Int
  /// Most branches of trees of drafts in a sweep, of all sequences together; see ``KVCache/KeyValueBranches``.
  let draftBranchCount: Int
  /// Most rows of a sweep that belong to sequences with drafts, where each has one that is certain.
  var verifiedRowCapacity: Int { draftRowCount > 0 ? sequenceCount + draftRowCount : 0 }
  /// Positions of each sequence's context.
  public let contextLength: Int
  /// What stays and what is streamed.
  public let residency: ResidencyPlan
  /// Room for experts; nil for a model without.
  public let expertSlots: BundleSlots?
  /// Experts that there is room for, of all layers together.
  public var expertSlotCount: Int { expertSlots?.slotCount ?? 0 }
  /// Experts of all layers.
  public let expertCount: Int
  /// Bundles of neurons that there is room for, of all layers together; nil for a model without.
  public let neurons: NeuronPlan?

  /// How bundles of neurons are chosen, read and kept.
  public struct NeuronPlan: Sendable {
    public let selector: NeuronSelector
    public let reading: NeuronReading
    public let slotCount: Int
    /// Bundles of all layers.
    public let bundleCount: Int
    public let slotByteCount: Int
  }

  /// What the caller asks for.
  public struct Request: Sendable {
    /// Bound on the peak resident set, in bytes.
    public var budgetByteCount: Int
    public var contextLength: Int
    /// Sequences that may be open at the same time, each with a context of that length.
    public var sequenceCount = 1
    /// Tokens of the prompt: a chunk need not be longer.
    public var promptLength: Int
    public var threadCount: Int
    /// Rows of logits computed at once; more than 1 only to score a text.
    public var logitRowCount: Int
    /// Most drafted tokens that a sweep is to verify, of all sequences together.
    ///
    /// They are fewer where memory is scarce, and none where rows cannot be drafts: `KeyValuePolicyChoice.takesDrafts`.
    public var draftRowCount = 0
    /// The longest chunk of a prompt; nil = as long as gains anything. A dense model's 512 tokens keep
    /// the arithmetic units busier than any drive, experts have few tokens each and need longer chunks.
    public var maximumChunkLength: Int?
    /// Part of the budget that the caller needs for itself, beside what it holds already.
    public var callerByteCount: Int
    /// Bytes of one read where memory allows, as measured for the drive.
    public var preferredReadByteCount: Int
    /// Bound on the weights that stay in memory, bundles apart; nil = what the budget leaves. To measure
    /// what keeping them saves.
    public var pinnedByteCount: Int?
    /// How bundles of neurons are treated, in a model that has them.
    public var neurons = NeuronOptions()
    /// When an image's bytes are compared with its checksums.
    public var verification = Verification.first
    /// How keys and values are stored, where they go and come from.
    public var keyValues = KeyValueOptions()
    /// Whether answers may be given grammars: an engine then has memory for their masks.
    public var usesGrammars = false
    /// That memory, beside what the vocabulary takes: where a grammar needs more for a mask its answer is refused.
    public var maskByteCount = MemoryPlan.usualMaskByteCount
    /// Whether all keys and values must have room in memory; a session sets it where attention is computed
    /// elsewhere, because nothing would pass rows that are read from a file.
    var keepsAllKeyValues = false
    /// What the process is taken to hold and to have held; nil = what it does. Tests fix it, because
    /// others run beside them.
    package var assumedProcessByteCount: Int?
    /// The least memory of keys and values that is lent to weights. Tests lower it, because their models are small.
    package var leastLoanByteCount = 4 << 20
    /// Tokens after which, and after twice as many and so on, a store keeps the states of layers that have some, and what
    /// these may take for each byte of keys and values. Tests change both.
    package var stateDistance = 4096
    package var stateShare = 1

    /// Whether rows may be drafts: what is attended over must not depend on queries, and must be the host's.
    fileprivate var takesDrafts: Bool {
      keyValues.policy.takesDrafts && !keepsAllKeyValues
    }

    public init(
      budgetByteCount: Int, contextLength: Int, promptLength: Int, threadCount: Int,
      logitRowCount: Int = 1, maximumChunkLength: Int? = nil,
      callerByteCount: Int = 0,
      preferredReadByteCount: Int = MemoryPlan.defaultReadByteCount
    ) {
      self.preferredReadByteCount = preferredReadByteCount
      self.callerByteCount = callerByteCount
      self.budgetByteCount = budgetByteCount
      self.contextLength = contextLength
      self.promptLength = promptLength
      self.threadCount = threadCount
      self.logitRowCount = logitRowCount
      self.maximumChunkLength = maximumChunkLength
    }
  }

  /// Code pages, stacks and allocator slack that come after planning.
  private static let marginByteCount = 3 << 20
  /// Bytes of weights for each byte of what lists them: half a KiB for a piece of 1 MiB.
  private static let weightsPerListedByte = 2048
  /// At most this share of what is left goes to a chunk's activations.
  private static let chunkShare = 6
  /// At most this share of what is left when everything has the least that works goes to drafts.
  private static let draftShare = 16
  /// Branches of a sweep that are of use.
  private static let mostDraftBranches = 6

  /// Memory of grammars' masks with which no grammar is refused that can be compiled, but for those made to cost.
  public static let usualMaskByteCount = TokenMasks.usualByteCount + TokenMasks.momentByteCount

  /// Bytes of one read where nothing was measured.
  public static let defaultReadByteCount = 1 << 20

  /// Plans without reading or allocating anything, as a session of the same request would.
  ///
  /// - Throws: as ``Session/init(_:_:_:cancellation:decodeAttention:)``.
  public static func make(
    _ request: Request, source: ModelSource, configuration: DecoderConfiguration
  ) throws(RuntimeError) -> MemoryPlan {
    let selector = try NeuronSelector.resolve(
      request.neurons.selector, for: source, configuration)
    return try make(
      request, source: source, configuration: configuration, selector: selector,
      order: try DecoderWeights.order(
        source: source, configuration: configuration, selector: selector))
  }

  /// Refuses a budget below the least that works.
  ///
  /// - Parameter least: what is planned takes at least.
  private static func checkBudget(
    _ request: Request, _ least: (Request) -> Int
  ) throws(RuntimeError) {
    // What the process once held counts too: a peak cannot be taken back.
    func minimum(sequenceCount: Int) -> Int {
      var other = request
      other.sequenceCount = sequenceCount
      return max(
        least(other), request.assumedProcessByteCount ?? ProcessMemory.peakResidentByteCount)
    }
    let needed = minimum(sequenceCount: request.sequenceCount)
    guard request.budgetByteCount < needed else { return }
    var (fitting, tooMany) = (0, request.sequenceCount)
    while tooMany - fitting > 1 {
      let middle = (fitting + tooMany) / 2
      if minimum(sequenceCount: middle) <= request.budgetByteCount {
        fitting = middle
      } else {
        tooMany = middle
      }
    }
    throw .budgetTooSmall(
      budget: ByteCount(request.budgetByteCount),
      minimum: ByteCount(roundedMinimum(needed)), fitting: fitting > 0 ? fitting : nil)
  }

  /// Divides `request`'s budget.
  ///
  /// - Throws: ``RuntimeError/budgetTooSmall(budget:minimum:fitting:)``,
  ///   ``RuntimeError/keyValueBudgetTooSmall(budget:needed:)``,
  ///   ``RuntimeError/notRunnable(path:reason:)`` where positions are learned and too few.
  ///
  /// Unless the caller bounds them, keys and values take as much as lets all weights stay, and otherwise
  /// half of what weights and they can share.
  static func make(
    _ request: Request, source: ModelSource, configuration: DecoderConfiguration,
    selector: NeuronSelector?, order: StreamOrder
  ) throws(RuntimeError) -> MemoryPlan {
    do throws(RuntimeError) {
      return try divide(
        request, source: source, configuration: configuration, selector: selector, order: order)
    } catch {
      // A budget that is enough without drafts is enough.
      guard case .budgetTooSmall = error, request.draftRowCount > 0 else { throw error }
      var request = request
      request.draftRowCount = 0
      return try divide(
        request, source: source, configuration: configuration, selector: selector, order: order)
    }
  }

  private static func divide(
    _ request: Request, source: ModelSource, configuration: DecoderConfiguration,
    selector: NeuronSelector?, order: StreamOrder
  ) throws(RuntimeError) -> MemoryPlan {
    try checkPositions(request, source, configuration)
    let neurons = source.description.neurons.flatMap { layout in
      selector.map { NeuronDemand(layout, request.neurons.reading($0), $0) }
    }
    let families = try DecoderWeights.families(source: source, configuration: configuration)
    func makeFixed(_ request: Request) -> Fixed {
      Fixed(request, source, configuration, order, neurons, families)
    }
    var fixed = makeFixed(request)
    let options = readOptions(request)
    let expertsAtOnce = configuration.experts?.expertsPerToken ?? 0
    let leastSlots =
      expertsAtOnce * (fixed.families.map(\.slotByteCount).max() ?? 0)
      + (neurons?.leastByteCount ?? 0)
    func weightMinimum(_ options: ResidencyPlan.Options) -> Int {
      leastSlots
        + ResidencyPlan.minimumByteCount(
          model: source.description, order: order, options: options,
          alignment: source.readAlignment)
    }
    let smallest = ResidencyPlan.Options(readByteCount: 64 << 10, stagingByteCount: 0)
    try checkBudget(request) {
      let fixed = makeFixed($0)
      return fixed.byteCount + weightMinimum(smallest) + fixed.leastWorkspaceByteCount
    }
    let limit = try fixed.setDraftsAndKeyValueBudget(weightMinimum: weightMinimum(smallest))
    let left = request.budgetByteCount - fixed.byteCount
    let chosen =
      left < weightMinimum(options) + fixed.leastWorkspaceByteCount ? smallest : options
    let forChunk = max(
      fixed.leastWorkspaceByteCount,
      min(left / chunkShare, left - weightMinimum(chosen)))
    let rowCapacity = fixed.longestChunk(max(limit, request.sequenceCount), within: forChunk)
    let chunkLength = min(limit, rowCapacity)
    let workspace = fixed.workspaceByteCount(chunkLength: rowCapacity)
    let keyValues = fixed.keyValuePlan(chunkLength: chunkLength)
    let draftRowCount = fixed.draftRowCount(chunkLength: chunkLength, rowCapacity: rowCapacity)
    let borrowable = request.pinnedByteCount == nil ? keyValues.retainedByteCount : 0
    do throws(LoaderError) {
      // What every token needs comes first: a byte of it saves a byte of each token, an expert's fewer.
      let residency = try ResidencyPlan.make(
        model: source.description, order: order,
        budget: min(
          left - workspace - leastSlots,
          request.pinnedByteCount.map { $0 + chosen.stagingByteCount } ?? .max),
        options: chosen, alignment: source.readAlignment,
        borrowable: borrowable)
      let slots = BundleSlots(
        fixed.families, within: left - workspace - residency.byteCount, heldAtOnce: expertsAtOnce,
        borrowable: borrowable - residency.borrowableByteCount)
      let windowByteCount = min(
        left - workspace - residency.byteCount, request.neurons.windowByteCount ?? .max)
      return MemoryPlan(
        budgetByteCount: request.budgetByteCount, processByteCount: fixed.processByteCount,
        keyValues: keyValues, savedStateCount: fixed.savedStateCount,
        workspaceByteCount: workspace, vectorByteCount: fixed.vectorByteCount,
        chunkLength: chunkLength, rowCapacity: rowCapacity,
        logitRowCount: fixed.logitRowCount,
        draftRowCount: draftRowCount,
        draftBranchCount: min(fixed.draftBranchCount, Fixed.branchCount(ofDrafts: draftRowCount)),
        contextLength: request.contextLength, residency: residency,
        expertSlots: fixed.families.isEmpty ? nil : slots,
        expertCount: fixed.families.reduce(0) { $0 + $1.bundleCount },
        neurons: neurons?.plan(within: windowByteCount))
    } catch { throw RuntimeError(error) }
  }

  /// Learned positions end where their table does.
  private static func checkPositions(
    _ request: Request, _ source: ModelSource, _ configuration: DecoderConfiguration
  ) throws(RuntimeError) {
    guard configuration.positionOffset != nil,
      request.contextLength > configuration.contextLength
    else { return }
    throw .notRunnable(
      path: source.path,
      reason: "the model has \(configuration.contextLength) positions, too few for a context of "
        + "\(request.contextLength)")
  }

  /// What bundles of neurons want of the budget.
  private struct NeuronDemand {
    let layout: NeuronLayout
    let reading: NeuronReading
    let selector: NeuronSelector
    let slotByteCount: Int
    let bundleCount: Int

    init(_ layout: NeuronLayout, _ reading: NeuronReading, _ selector: NeuronSelector) {
      self.layout = layout
      self.reading = reading
      self.selector = selector
      slotByteCount = reading.slotByteCount(layout)
      bundleCount = layout.layers.reduce(0) { $0 + $1.bundleCount }
    }

    /// Bundles that a step should find room for; with fewer it takes several turns.
    private static let leastSlotCount = 64

    var leastByteCount: Int { min(bundleCount, Self.leastSlotCount) * slotByteCount }

    /// Staging, and the books of as many slots as there are bundles.
    var fixedByteCount: Int { reading.fixedByteCount(layout, slotCount: bundleCount) }

    func plan(within byteCount: Int) -> NeuronPlan {
      let slotCount = max(
        min(bundleCount, Self.leastSlotCount), min(bundleCount, byteCount / slotByteCount))
      return NeuronPlan(
        selector: selector, reading: reading, slotCount: slotCount, bundleCount: bundleCount,
        slotByteCount: slotByteCount)
    }
  }

  /// `minimum` with room for what differs from one start of the process to the next, in quarters of
  /// a MiB, so that the number people read is the number that works.
  private static func roundedMinimum(_ minimum: Int) -> Int {
    let (slack, quarter) = (384 << 10, 256 << 10)
    return (minimum + slack + quarter - 1) / quarter * quarter
  }

  /// Reads of the preferred size and a ring of an eighth of the budget, both smaller where memory is:
  /// the ring has room for sixteen reads.
  private static func readOptions(_ request: Request) -> ResidencyPlan.Options {
    let preferred = min(max(request.preferredReadByteCount, 64 << 10), 8 << 20)
    let most = max(32 << 20, 16 * preferred)
    let staging = min(most, max(2 << 20, request.budgetByteCount / 8))
    return ResidencyPlan.Options(
      readByteCount: min(preferred, max(128 << 10, staging / 16)), stagingByteCount: staging)
  }

  /// The parts of the budget that do not depend on how it is divided.
  private struct Fixed {
    let request: Request
    let configuration: DecoderConfiguration
    let processByteCount: Int
    let keyValueShape: KeyValueShape
    /// Bound on the memory of all sequences' keys and values; the least that works before it is set.
    private var keyValueByteCount: Int
    /// Whether some keys and values do not stay in memory, or need not before their memory is set.
    private var hasTier: Bool
    /// All weights, staging apart.
    let weightByteCount: Int
    let vectorByteCount: Int
    let scratchByteCount: Int
    let neurons: NeuronDemand?
    /// The experts of each layer.
    let families: [BundleFamily]

    /// Most drafted tokens of a sweep; 0 until what else is needed is known.
    var draftRowCount = 0
    /// Most branches of trees of drafts in a sweep; 0 until it is known which keys and values stay in memory.
    private(set) var draftBranchCount = 0
    /// Most rows whose logits are computed at once: those that were asked for, or one for each sequence and each draft.
    var logitRowCount: Int {
      max(request.logitRowCount, request.sequenceCount + draftRowCount)
    }

    /// Copies of states; 0 until what else is needed is known.
    private(set) var savedStateCount = 0

    var byteCount: Int {
      processByteCount + keyValueByteCount + vectorByteCount + scratchByteCount
        + (request.sequenceCount + savedStateCount) * keyValueShape.stateByteCount
    }

    init(
      _ request: Request, _ source: ModelSource, _ configuration: DecoderConfiguration,
      _ order: StreamOrder, _ neurons: NeuronDemand?, _ families: [BundleFamily]
    ) {
      self.neurons = neurons
      self.request = request
      self.families = families
      self.configuration = configuration
      let tensors = source.description.tensors
      weightByteCount = tensors.reduce(0) { $0 + AlignedBuffer.roundedUp($1.byteCount) }
      processByteCount =
        (request.assumedProcessByteCount ?? ProcessMemory.residentByteCount)
        + MemoryPlan.marginByteCount + weightByteCount / MemoryPlan.weightsPerListedByte
        + request.callerByteCount
      keyValueShape = KeyValueShape(
        configuration, contextLength: request.contextLength, type: request.keyValues.type)
      keyValueByteCount =
        request.keepsAllKeyValues
        ? KeyValuePlan.residentByteCount(
          keyValueShape, sequenceCount: request.sequenceCount,
          chunkLength: Self.chunkLimit(request, configuration))
        : KeyValuePlan.minimumByteCount(
          keyValueShape, sequenceCount: request.sequenceCount, chunkLength: 1)
      hasTier =
        keyValueByteCount
        < KeyValuePlan.residentByteCount(
          keyValueShape, sequenceCount: request.sequenceCount,
          chunkLength: Self.chunkLimit(request, configuration))
      let tables = tensors.filter { DecoderConfiguration.tableNames.contains($0.name) }
      vectorByteCount = AlignedBuffer.roundedUp(
        WeightStream.rowBufferByteCount(tables, in: source.description))
      var pieces = [Range<Int>](repeating: 0..<0, count: tensors.count)
      for tensor in order.segments.joined() { pieces[tensor] = 0..<1 }
      scratchByteCount =
        AlignedBuffer.roundedUp(
          request.threadCount * LinearExecutor.scratchByteCount(source.description, pieces))
        + AttentionStep.byteCount(
          AttentionShape.all(configuration), cache: keyValueShape,
          tokenCapacity: request.sequenceCount, threadCount: request.threadCount)
        + (neurons?.fixedByteCount ?? 0)
        + (request.draftRowCount > 0
          ? DraftMemory.byteCount(vocabularyCount: configuration.vocabularyCount)
            + request.sequenceCount
            * SequenceDrafts.byteCount(contextLength: request.contextLength) : 0)
        + KeyValuePlan.bookByteCount(keyValueShape, sequenceCount: request.sequenceCount)
        + request.sequenceCount * request.keyValues.policy.byteCount(keyValueShape)
        + AttentionObservation.byteCount(
          AttentionShape.all(configuration), keyValueShape,
          tokenCount: request.keyValues.policy.observedTokenCount,
          threadCount: request.threadCount)
    }

    /// The longest chunk that gains anything.
    private static func chunkLimit(
      _ request: Request, _ configuration: DecoderConfiguration
    ) -> Int {
      min(
        request.maximumChunkLength ?? (configuration.experts == nil ? 512 : 2048),
        max(1, request.promptLength, request.takesDrafts ? 1 + request.draftRowCount : 1))
    }

    /// Fixes how many drafts there may be, and the memory of keys and values.
    ///
    /// - Parameter weightMinimum: what weights need.
    /// - Returns: the longest chunk that keys and values allow.
    mutating func setDraftsAndKeyValueBudget(weightMinimum: Int) throws(RuntimeError) -> Int {
      setDraftRowCount(weightMinimum: weightMinimum)
      setSavedStateCount(weightMinimum: weightMinimum)
      // These have what keys and values leave.
      defer { setDraftBranchCount(weightMinimum: weightMinimum) }
      return try setKeyValueBudget(weightMinimum: weightMinimum)
    }

    /// Fixes how many drafts there may be: as many as were asked for and whose logits and rows fit their share of what is
    /// left where weights have `weightMinimum`, and everything else its least.
    private mutating func setDraftRowCount(weightMinimum: Int) {
      let least = leastWorkspaceByteCount
      let spare = request.budgetByteCount - byteCount - weightMinimum - least
      draftRowCount = request.takesDrafts ? request.draftRowCount : 0
      while draftRowCount > 0 {
        let needed = workspaceByteCount(chunkLength: request.sequenceCount + draftRowCount)
        if needed - least <= spare / MemoryPlan.draftShare { break }
        draftRowCount -= 1
      }
    }

    /// Fixes how many copies of states there are: one for each sequence, as far as they fit a share of what is left.
    private mutating func setSavedStateCount(weightMinimum: Int) {
      guard keyValueShape.hasStates else { return }
      let spare = request.budgetByteCount - byteCount - weightMinimum - leastWorkspaceByteCount
      savedStateCount = min(
        request.sequenceCount,
        max(0, spare / MemoryPlan.draftShare / keyValueShape.stateByteCount))
    }

    /// Fixes how many branches drafts may have: none where keys and values do not all stay in memory or layers have states,
    /// otherwise as many as fit a share of what is left, and at most one for every three drafts.
    private mutating func setDraftBranchCount(weightMinimum: Int) {
      let spare = request.budgetByteCount - byteCount - weightMinimum - leastWorkspaceByteCount
      draftBranchCount =
        hasTier || keyValueShape.hasStates ? 0 : Self.branchCount(ofDrafts: draftRowCount)
      while draftBranchCount > 0, branchByteCount > spare / MemoryPlan.draftShare {
        draftBranchCount -= 1
      }
    }

    /// Drafts of a sweep with so many rows of one sequence, and of all.
    func draftRowCount(chunkLength: Int, rowCapacity: Int) -> Int {
      min(draftRowCount, chunkLength - 1, rowCapacity - request.sequenceCount)
    }

    static func branchCount(ofDrafts draftRowCount: Int) -> Int {
      min(MemoryPlan.mostDraftBranches, draftRowCount / 3)
    }

    private var branchByteCount: Int {
      KeyValueBranches.byteCount(keyValueShape, capacity: draftBranchCount)
    }

    /// Fixes the memory of keys and values; the budget holds the least that works.
    ///
    /// - Parameter weightMinimum: what weights need.
    /// - Returns: the longest chunk that their memory allows.
    private mutating func setKeyValueBudget(weightMinimum: Int) throws(RuntimeError) -> Int {
      let limit = Self.chunkLimit(request, configuration)
      let (least, count) = (keyValueByteCount, request.sequenceCount)
      let left = request.budgetByteCount - byteCount + least
      let most = left - weightMinimum - leastWorkspaceByteCount
      let bound = request.keyValues.budgetByteCount
      if let bound, bound < least {
        // So that the number people read is the number that works.
        let unit = least < 1 << 20 ? 1 << 10 : 256 << 10
        throw .keyValueBudgetTooSmall(
          budget: ByteCount(bound), needed: ByteCount((least + unit - 1) / unit * unit))
      }
      let resident = KeyValuePlan.residentByteCount(
        keyValueShape, sequenceCount: count, chunkLength: limit)
      let besideWeights =
        left - weightByteCount - workspaceByteCount(chunkLength: limit)
      // So many sequences that nothing is left for a prompt would read it token by token.
      let forChunk = min(
        KeyValuePlan.minimumByteCount(keyValueShape, sequenceCount: count, chunkLength: limit),
        least + least / 8)
      keyValueByteCount = min(
        resident, max(least, min(most, bound ?? max(left / 2, besideWeights, forChunk))))
      hasTier = keyValueByteCount < resident
      return KeyValuePlan.longestChunk(
        limit, keyValueShape, sequenceCount: count, budgetByteCount: keyValueByteCount)
    }

    /// Which keys and values stay in memory where chunks are that long.
    func keyValuePlan(chunkLength: Int) -> KeyValuePlan {
      let plan = KeyValuePlan(
        keyValueShape, sequenceCount: request.sequenceCount,
        budgetByteCount: keyValueByteCount, chunkLength: chunkLength)
      guard let plan else { preconditionFailure("the chunk was chosen for this memory") }
      return plan
    }

    /// Memory of the workspace with a row for each sequence.
    var leastWorkspaceByteCount: Int { workspaceByteCount(chunkLength: request.sequenceCount) }

    func workspaceByteCount(chunkLength: Int) -> Int {
      DecoderWorkspace.byteCount(
        configuration, tokenCapacity: chunkLength, logitRowCapacity: logitRowCount,
        hasNeurons: neurons != nil)
        + Batch.byteCount(rowCapacity: chunkLength) + branchByteCount
        + (configuration.scans.isEmpty
          ? 0
          : ScanStep.byteCount(
            configuration, tokenCapacity: chunkLength,
            verifiedRowCapacity: draftRowCount > 0 ? request.sequenceCount + draftRowCount : 0,
            threadCount: request.threadCount))
        + (hasTier
          ? ChunkAttention.partialByteCount(
            AttentionShape.all(configuration), chunkLength: chunkLength) : 0)
        + (configuration.experts.map {
          ExpertWorkspace.byteCount(configuration, $0, tokenCapacity: chunkLength)
            + ExpertPrefetcher.byteCount(configuration, $0, tokenCapacity: chunkLength)
        } ?? 0)
        + (neurons.map {
          NeuronWorkspace.byteCount(
            configuration, $0.layout, tokenCapacity: chunkLength,
            threadCount: request.threadCount)
            + NeuronPrefetcher.byteCount(configuration, $0.layout)
        } ?? 0)
    }

    /// The longest chunk up to `limit` whose workspace fits `byteCount`; at least 1.
    func longestChunk(_ limit: Int, within byteCount: Int) -> Int {
      var (low, high) = (request.sequenceCount, limit)
      while low < high {
        let middle = (low + high + 1) / 2
        if workspaceByteCount(chunkLength: middle) <= byteCount {
          low = middle
        } else {
          high = middle - 1
        }
      }
      return low
    }
  }
}
