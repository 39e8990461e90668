import Kernels
import TensorBasics

/// Blocks that a policy leaves out, and what follows for where pages lie.
///
/// After a prompt a policy plans the blocks of each layer: before the token where no queries are
/// needed, else when the layer's queries are there. Only pages with a planned block are read. Where the plan
/// is known beforehand the pages that stay in memory are those it names, as far as there is room; the
/// others leave, and are written first unless a file has them.
extension KeyValueStore {
  /// Positions at a prompt's end whose attention the policy observes, whatever chunks they are in.
  ///
  /// Nil if it observes none, or they are not in the current chunk.
  public var observedPositions: Range<Int>? {
    guard let count = policy?.observedTokenCount, count > 0,
      let end = selection.promptEnd, chunk.upperBound > end - count
    else { return nil }
    return max(0, end - count)..<end
  }

  /// Most tokens that the policy wants to see.
  public var observedTokenCount: Int { policy?.observedTokenCount ?? 0 }

  /// Plans the blocks of a layer where that takes its queries.
  ///
  /// - Parameter queries: [queryHeadCount, headDim], scaled and rotated.
  package func planBlocks(layer: Int, queries: UnsafePointer<Float>) throws(KeyValueError) {
    guard let policy, selection.isSelective, policy.usesQueries else { return }
    plan(layer, policy, queries)
    selection.queriedLayer = layer
    try readAhead()
  }

  /// Tells the policy what blocks weigh for the tokens at a prompt's end.
  public func observe(_ weights: BlockWeights, layer: Int) {
    policy?.observe(weights, layer: layer)
  }

  /// Begins a chunk: plans what can be planned without queries.
  ///
  /// - Parameters:
  ///   - kind: nil if the chunk is only stored.
  ///   - promptEnd: as that of ``begin(_:_:promptEnd:tentativeCount:)``.
  func select(_ kind: RowKind?, promptEnd: Int?) throws(KeyValueError) {
    selection.kind = kind
    selection.promptEnd = kind == .read ? promptEnd : nil
    guard let policy else { return }
    let (isSelective, pageGroupEnd) = (
      kind == .answer, chunk.lowerBound / KeyValueBlock.positionCount
    )
    let hasChanged =
      selection.isSelective != isSelective || isSelective && selection.pageGroupEnd != pageGroupEnd
    // The reads in flight were chosen by the previous plan.
    if hasChanged { try pool.restartReading() }
    selection.isSelective = isSelective
    selection.pageGroupEnd = pageGroupEnd
    selection.queriedLayer = nil
    if selection.isPlannedAhead {
      for layer in 0..<shape.layerCount where hasChanged || shape.windows[layer] != nil {
        plan(layer, policy, nil)
      }
    }
    if hasChanged { try demote() }
    if let end = selection.promptEnd, policy.observedTokenCount > 0, end != observedEnd {
      observedEnd = end
      observationCount += 1
    }
  }

  /// Computes, once, what is needed to leave out blocks of a complete page, while it lies in memory.
  func summarise(layer: Int, pageGroup: Int) {
    let page = page(layer, pageGroup)
    guard let policy, !isSummarised[page], let address = address(layer, pageGroup) else { return }
    isSummarised[page] = true
    blocks?.sum(page, address)
    guard policy.usesQueries else { return }
    for head in 0..<shape.keyValueHeadCount {
      let block = expandedBlock(
        layer: layer, head: head, pageGroup: pageGroup, expansion: summaryExpansion.address)
      if let block { policy.complete(layer: layer, head: head, pageGroup: pageGroup, block: block) }
    }
  }

  /// Counts what a token attended over in a layer.
  func countBlocks(layer: Int) {
    guard selection.kind == .answer else { return }
    let end = chunk.lowerBound / KeyValueBlock.positionCount
    let first = min(end, shape.firstVisiblePageGroup(layer: layer, position: chunk.lowerBound))
    let all = (end - first) * shape.keyValueHeadCount
    let attended = selection.isSelective ? selection.blockCounts[layer] : all
    counted.attendedBlockCount += attended
    counted.skippedBlockCount += all - attended
  }

  private func plan(
    _ layer: Int, _ policy: any KeyValuePolicy, _ queries: UnsafePointer<Float>?
  ) {
    let end = selection.pageGroupEnd
    let first = min(end, shape.firstVisiblePageGroup(layer: layer, position: chunk.lowerBound))
    let blocks = selection.blocks(layer: layer, pageGroups: first..<end)
    blocks.clear()
    if first < end { policy.plan(layer: layer, queries: queries, into: blocks) }
    selection.close(layer: layer, pageGroups: first..<end)
  }

  /// Whether the pages that stay in memory are those that the policy planned: not all have room, and it is
  /// known which will be attended over.
  private var isPlanResident: Bool { plan.hasTier && selection.isPlannedAhead }

  /// Whether a page is to stay in memory as far as there is room.
  func isWanted(layer: Int, pageGroup: Int) -> Bool {
    !isPlanResident || selection.includes(page(layer, pageGroup))
  }

  /// Evicts pages that are not to stay in memory.
  private func demote() throws(KeyValueError) {
    guard plan.hasTier else { return }
    for pageGroup in 0..<firstOpenPageGroup {
      for layer in 0..<shape.layerCount where !isWanted(layer: layer, pageGroup: pageGroup) {
        guard pageNumbers[page(layer, pageGroup)] >= 0 else { continue }
        let number = pageNumber(layer, pageGroup)
        let known = pool.pages[number]
        guard known.address != nil, !known.flags.contains(.isBeingWritten) else { continue }
        if known.flags.contains(.isOnFile) {
          pool.evict(number)
        } else if pool.canSpill {
          try pool.write(number, isLeaving: true)
        }
      }
    }
  }
}

/// The blocks that a policy planned, of every layer.
final class BlockSelection {
  /// Whether blocks may be left out.
  var isSelective = false
  /// What the chunk's rows are; nil if it is only stored, so that nothing is read for it.
  var kind: RowKind? = .read
  /// Where the prompt ends that the chunk is part of, if that is known.
  var promptEnd: Int?
  /// Page groups that were complete when blocks were planned; later ones are attended over.
  var pageGroupEnd = 0
  /// Where plans take queries: the layer that has one.
  var queriedLayer: Int?
  /// Blocks planned of each layer.
  private(set) var blockCounts: [Int]

  private let usesQueries: Bool
  private let shape: KeyValueShape
  /// [pageGroupCount, layerCount, keyValueHeadCount], as pages are numbered.
  private let isBlockPlanned: UnsafeMutablePointer<Bool>
  /// [pageCount]
  private let isPagePlanned: UnsafeMutablePointer<Bool>

  /// - Parameter usesQueries: whether plans take a layer's queries.
  init(_ shape: KeyValueShape, usesQueries: Bool) {
    self.shape = shape
    self.usesQueries = usesQueries
    blockCounts = Array(repeating: 0, count: shape.layerCount)
    isBlockPlanned = .allocate(capacity: shape.pageCount * shape.keyValueHeadCount)
    isBlockPlanned.initialize(repeating: false, count: shape.pageCount * shape.keyValueHeadCount)
    isPagePlanned = .allocate(capacity: shape.pageCount)
    isPagePlanned.initialize(repeating: false, count: shape.pageCount)
  }

  deinit {
    isBlockPlanned.deallocate()
    isPagePlanned.deallocate()
  }

  /// Memory of a selection.
  static func byteCount(_ shape: KeyValueShape) -> Int {
    shape.pageCount * (shape.keyValueHeadCount + 1)
  }

  /// Whether blocks may be left out, and which is known of all layers before the token.
  var isPlannedAhead: Bool { isSelective && !usesQueries }

  /// Whether any block of a page is attended over.
  func includes(_ page: Int) -> Bool {
    !isSelective || page >= pageGroupEnd * shape.layerCount || isPagePlanned[page]
  }

  /// Whether a page's block of one head is attended over.
  func includes(_ page: Int, head: Int) -> Bool {
    !isSelective || page >= pageGroupEnd * shape.layerCount
      || isBlockPlanned[page * shape.keyValueHeadCount + head]
  }

  /// Whether it is known what will be read of a layer, in the current sweep or in the next.
  func isPlanned(layer: Int, isNext: Bool) -> Bool {
    guard kind != nil else { return false }
    guard isSelective, usesQueries else { return true }
    return layer == queriedLayer && !isNext
  }

  /// A layer's blocks, for a policy to fill.
  func blocks(layer: Int, pageGroups: Range<Int>) -> BlockPlan {
    BlockPlan(
      pageGroups: pageGroups, keyValueHeadCount: shape.keyValueHeadCount,
      isPlanned: isBlockPlanned + layer * shape.keyValueHeadCount,
      stride: shape.layerCount * shape.keyValueHeadCount)
  }

  /// Ends the planning of a layer.
  func close(layer: Int, pageGroups: Range<Int>) {
    var count = 0
    for pageGroup in pageGroups {
      let page = pageGroup * shape.layerCount + layer
      var planned = 0
      for head in 0..<shape.keyValueHeadCount
      where isBlockPlanned[page * shape.keyValueHeadCount + head] {
        planned += 1
      }
      isPagePlanned[page] = planned > 0
      count += planned
    }
    blockCounts[layer] = count
  }
}
