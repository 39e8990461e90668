import Kernels
import TensorBasics

/// Blocks that a policy leaves out, and what follows for where rows lie.
///
/// After a prompt a policy plans the blocks of each layer: before the token where no queries are
/// needed, else when the layer's queries are there. Only rows with a planned block are read. Where the plan
/// is known beforehand the rows that stay in memory are those it names, as far as there is room; the
/// others leave, and are written first unless a file has them.
extension KeyValueStore {
  /// What a chunk is part of.
  public enum Phase: Sendable, Equatable {
    /// A prompt, and the position after its last token if that is known.
    case prefill(end: Int?)
    /// What follows a prompt, token by token.
    case decode
    /// What is stored only, without attention: nothing is read.
    case storeOnly
  }

  /// Positions at a prompt's end whose attention the policy wants to see, whatever chunks they are in; nil
  /// where it wants none, or they are not in the current chunk.
  public var observedPositions: Range<Int>? {
    guard let count = policy?.observedTokenCount, count > 0,
      case .prefill(let end?) = selection.phase, chunk.upperBound > end - count
    else { return nil }
    return max(0, end - count)..<end
  }

  /// Most tokens that the policy wants to see.
  public var observedTokenCount: Int { policy?.observedTokenCount ?? 0 }

  /// Plans the blocks of a layer where that takes its queries.
  ///
  /// - Parameter queries: [queryHeadCount, headDim], scaled and rotated.
  public func planBlocks(layer: Int, queries: UnsafePointer<Float>) throws(KeyValueError) {
    guard let policy, selection.isSelective, policy.usesQueries else { return }
    plan(layer, policy, queries)
    selection.queriedLayer = layer
    cursor = ReadCursor(layer: layer)
    try readAhead()
  }

  /// Tells the policy what blocks weigh for the tokens at a prompt's end.
  public func observe(_ weights: BlockWeights, layer: Int) {
    policy?.observe(weights, layer: layer)
  }

  /// Whether a row stays in memory while queries see it.
  func keeps(layer: Int, slab: Int) -> Bool {
    isWanted(layer: layer, slab: slab)
      && (!isPlanResident || poolSlots.count > plan.workingRowCount)
  }

  /// Begins a chunk of that phase: plans what can be planned without queries.
  func select(_ phase: Phase) throws(KeyValueError) {
    selection.phase = phase
    guard let policy else { return }
    let (isSelective, slabEnd) = (
      phase == .decode, chunk.lowerBound / KeyValueBlock.positionCount
    )
    let hasChanged =
      selection.isSelective != isSelective || isSelective && selection.slabEnd != slabEnd
    // The reads in flight were chosen by the previous plan.
    if hasChanged { try discardReads() }
    selection.isSelective = isSelective
    selection.slabEnd = slabEnd
    selection.queriedLayer = nil
    if selection.isPlannedAhead {
      for layer in 0..<shape.layerCount where hasChanged || shape.windows[layer] != nil {
        plan(layer, policy, nil)
      }
    }
    if hasChanged { try demote() }
  }

  /// Computes, once, what is needed to leave out blocks of a complete row, while it lies in memory.
  func summarise(layer: Int, slab: Int) {
    let row = row(layer, slab)
    guard let policy, !flags[row].contains(.isSummarised), let address = addresses[row]
    else { return }
    flags[row].insert(.isSummarised)
    blocks?.sum(row, address)
    guard policy.usesQueries else { return }
    for head in 0..<shape.keyValueHeadCount {
      let block = expandedBlock(
        layer: layer, head: head, slab: slab, expansion: summaryExpansion.address)
      if let block { policy.complete(layer: layer, head: head, slab: slab, block: block) }
    }
  }

  /// Counts what a token attended over in a layer.
  func countBlocks(layer: Int) {
    guard selection.phase == .decode else { return }
    let end = chunk.lowerBound / KeyValueBlock.positionCount
    let first = min(end, shape.firstVisibleSlab(layer: layer, position: chunk.lowerBound))
    let all = (end - first) * shape.keyValueHeadCount
    let attended = selection.isSelective ? selection.blockCounts[layer] : all
    moved.attendedBlockCount += attended
    moved.skippedBlockCount += all - attended
  }

  private func plan(
    _ layer: Int, _ policy: any KeyValuePolicy, _ queries: UnsafePointer<Float>?
  ) {
    let end = selection.slabEnd
    let first = min(end, shape.firstVisibleSlab(layer: layer, position: chunk.lowerBound))
    let blocks = selection.blocks(layer: layer, slabs: first..<end)
    blocks.clear()
    if first < end { policy.plan(layer: layer, queries: queries, into: blocks) }
    selection.close(layer: layer, slabs: first..<end)
  }

  /// Whether the rows that stay in memory are those that the policy planned: not all have room, and it is
  /// known which will be attended over.
  private var isPlanResident: Bool { plan.hasTier && selection.isPlannedAhead }

  /// Whether a row is to stay in memory as far as there is room.
  private func isWanted(layer: Int, slab: Int) -> Bool {
    isPlanResident
      ? selection.includes(row(layer, slab)) : plan.keeps(layer: layer, slab: slab)
  }

  /// Evicts rows that are not to stay in memory.
  private func demote() throws(KeyValueError) {
    cursor = ReadCursor()
    guard plan.hasTier, let files else { return }
    for slab in 0..<chunk.lowerBound / KeyValueBlock.positionCount {
      for layer in 0..<shape.layerCount {
        let row = row(layer, slab)
        guard let address = addresses[row], !flags[row].contains(.isBeingWritten) else { continue }
        if isWanted(layer: layer, slab: slab), isInPool(row) { continue }
        if flags[row].contains(.isOnFile) {
          drop(row)
        } else if files.writes, writeFailure == nil {
          try write(row, at: address, files, layer: layer, isLeaving: true)
        }
      }
    }
  }
}

/// The blocks that a policy planned, of every layer.
final class BlockSelection {
  /// Whether blocks may be left out.
  var isSelective = false
  var phase = KeyValueStore.Phase.prefill(end: nil)
  /// Slabs that were complete when blocks were planned; later ones are attended over.
  var slabEnd = 0
  /// Where plans take queries: the layer that has one.
  var queriedLayer: Int?
  /// Blocks planned of each layer.
  private(set) var blockCounts: [Int]

  private let usesQueries: Bool
  private let shape: KeyValueShape
  /// [slabCount, layerCount, keyValueHeadCount], as rows are numbered.
  private let isBlockPlanned: UnsafeMutablePointer<Bool>
  /// [rowCount]
  private let isRowPlanned: UnsafeMutablePointer<Bool>

  /// - Parameter usesQueries: whether plans take a layer's queries.
  init(_ shape: KeyValueShape, usesQueries: Bool) {
    self.shape = shape
    self.usesQueries = usesQueries
    blockCounts = Array(repeating: 0, count: shape.layerCount)
    isBlockPlanned = .allocate(capacity: shape.rowCount * shape.keyValueHeadCount)
    isBlockPlanned.initialize(repeating: false, count: shape.rowCount * shape.keyValueHeadCount)
    isRowPlanned = .allocate(capacity: shape.rowCount)
    isRowPlanned.initialize(repeating: false, count: shape.rowCount)
  }

  deinit {
    isBlockPlanned.deallocate()
    isRowPlanned.deallocate()
  }

  /// Memory of a selection.
  static func byteCount(_ shape: KeyValueShape) -> Int {
    shape.rowCount * (shape.keyValueHeadCount + 1)
  }

  /// Whether blocks may be left out, and which is known of all layers before the token.
  var isPlannedAhead: Bool { isSelective && !usesQueries }

  /// Whether any block of a row is attended over.
  func includes(_ row: Int) -> Bool {
    !isSelective || row >= slabEnd * shape.layerCount || isRowPlanned[row]
  }

  /// Whether a row's block of one head is attended over.
  func includes(_ row: Int, head: Int) -> Bool {
    !isSelective || row >= slabEnd * shape.layerCount
      || isBlockPlanned[row * shape.keyValueHeadCount + head]
  }

  /// Whether it is known what will be read of a layer, in the current sweep or in the next.
  func isPlanned(layer: Int, isNext: Bool) -> Bool {
    guard phase != .storeOnly else { return false }
    guard isSelective, usesQueries else { return true }
    return layer == queriedLayer && !isNext
  }

  /// A layer's blocks, for a policy to fill.
  func blocks(layer: Int, slabs: Range<Int>) -> BlockPlan {
    BlockPlan(
      slabs: slabs, keyValueHeadCount: shape.keyValueHeadCount,
      isPlanned: isBlockPlanned + layer * shape.keyValueHeadCount,
      stride: shape.layerCount * shape.keyValueHeadCount)
  }

  /// Ends the planning of a layer.
  func close(layer: Int, slabs: Range<Int>) {
    var count = 0
    for slab in slabs {
      let row = slab * shape.layerCount + layer
      var planned = 0
      for head in 0..<shape.keyValueHeadCount
      where isBlockPlanned[row * shape.keyValueHeadCount + head] {
        planned += 1
      }
      isRowPlanned[row] = planned > 0
      count += planned
    }
    blockCounts[layer] = count
  }
}
