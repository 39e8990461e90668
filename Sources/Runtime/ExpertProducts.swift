import Kernels
import ModelFormat
import TensorBasics
import WeightLoader

/// The arithmetic of a layer's experts that are in memory together, each with the rows that chose it.
///
/// All of them share four regions: their rows are gathered, multiplied by gate and up, activated, and multiplied
/// by down, whose bias is added with the weights. A row's results depend on nothing but the row and the expert, so which experts come together
/// changes no bit.
final class ExpertProducts: ParallelRegion {
  private let experts: ExpertConfiguration
  private let width: Int
  private let activation: DecoderConfiguration.Activation
  private let linear: LinearExecutor
  private let pool: ThreadPool
  private let clock: StepClock
  private let memory: ExpertWorkspace

  /// An expert of the group.
  private struct Member {
    var expert: Int
    /// Which of ``ExpertWorkspace/rows`` are its.
    var rows: Range<Int>
    /// The first of them in gate and up, and in blocks.
    var firstRow: Int
    var firstBlockRow: Int
    /// Index of its first tile in a region.
    var firstTile: Int
    var input: Activations
    /// All rows chose it, so its input is theirs as it lies.
    var isWhole: Bool
  }
  private let members: UnsafeMutableBufferPointer<Member>
  private var memberCount = 0
  private var rowCount = 0
  private var tileCount = 0
  private let products: UnsafeMutableBufferPointer<BundleProduct>

  // What the current region does.
  private enum Phase { case gather, activate }
  private var phase = Phase.gather
  private var biases: DecoderWeights.Experts.Biases?
  private var x = Activations(
    values: UnsafePointer(bitPattern: 64)!, stride: 0, blocks: nil, tokenCount: 0)

  init(
    _ configuration: DecoderConfiguration, _ experts: ExpertConfiguration,
    memory: ExpertWorkspace, linear: LinearExecutor, pool: ThreadPool, clock: StepClock
  ) {
    self.experts = experts
    width = configuration.hiddenSize
    activation = configuration.activation
    self.memory = memory
    self.linear = linear
    self.pool = pool
    self.clock = clock
    members = .allocate(capacity: experts.expertCount)
    products = .allocate(capacity: 2 * experts.expertCount)
  }

  deinit {
    members.deallocate()
    products.deallocate()
  }

  /// Computes the first `count` of ``ExpertWorkspace/group``, which are held and in memory; their outputs lie
  /// in ``ExpertWorkspace/rows``.
  func compute(
    _ layer: DecoderWeights.Experts, count: Int, _ x: Activations
  ) throws(LoaderError) {
    let family = layer.family
    self.x = x
    biases = layer.biases
    gather(count)
    let length = experts.feedForwardLength
    for (index, member) in members[..<memberCount].enumerated() {
      products[2 * index] = BundleProduct(
        family: family, bundle: member.expert, part: 0, activations: member.input,
        output: memory.gate + member.firstRow * length, outputStride: length)
      products[2 * index + 1] = BundleProduct(
        family: family, bundle: member.expert, part: 1, activations: member.input,
        output: memory.up + member.firstRow * length, outputStride: length)
    }
    try multiply(2 * memberCount)
    run(.activate, as: .elementwise)
    for (index, member) in members[..<memberCount].enumerated() {
      products[index] = BundleProduct(
        family: family, bundle: member.expert, part: 2,
        activations: activations(
          memory.gate + member.firstRow * length, columnCount: length, member.rows.count,
          firstBlockRow: member.firstBlockRow),
        output: memory.rows + member.rows.lowerBound * width, outputStride: width)
    }
    try multiply(memberCount)
  }

  private func multiply(_ count: Int) throws(LoaderError) {
    try linear.multiply(UnsafeBufferPointer(start: products.baseAddress, count: count))
  }

  /// Makes the group's members, with the rows of each in one place.
  private func gather(_ count: Int) {
    (memberCount, rowCount, tileCount) = (count, 0, 0)
    var blockRowCount = 0
    var areWhole = true
    for index in 0..<count {
      let expert = Int(memory.group[index])
      let rows = memory.rows(of: expert)
      let isWhole = rows.count == x.tokenCount
      areWhole = areWhole && isWhole
      members[index] = Member(
        expert: expert, rows: rows, firstRow: rowCount, firstBlockRow: blockRowCount,
        firstTile: tileCount,
        input: isWhole
          ? x
          : activations(
            memory.rows + rows.lowerBound * width, columnCount: width, rows.count,
            firstBlockRow: blockRowCount),
        isWhole: isWhole)
      rowCount += rows.count
      blockRowCount += ActivationBlocks.rowCount(tokenCount: rows.count)
      tileCount += (rows.count + Self.tileRowCount - 1) / Self.tileRowCount
    }
    if !areWhole { run(.gather, as: .products) }
  }

  /// Rows that one worker takes at a time; int8 blocks are made of so many.
  private static let tileRowCount = ActivationBlocks.tokenMultiple

  /// `count` rows of x, with memory for int8 blocks where columns are whole blocks.
  private func activations(
    _ x: UnsafePointer<Float>, columnCount: Int, _ count: Int, firstBlockRow: Int
  ) -> Activations {
    Activations(
      values: x, stride: columnCount,
      blocks: columnCount % 32 != 0
        ? nil
        : ActivationBlocks(
          memory: memory.blocks + firstBlockRow * memory.blockRowByteCount,
          columnCount: columnCount),
      tokenCount: count)
  }

  /// Does something to all tiles; a token's few rows are not worth a region.
  private func run(_ phase: Phase, as part: TimeBreakdown.Part) {
    self.phase = phase
    clock.measure(part) {
      if rowCount <= experts.expertsPerToken {
        for tile in 0..<tileCount { perform(index: tile, worker: 0) }
      } else {
        pool.run(count: tileCount, self)
      }
    }
  }

  func perform(index: Int, worker: Int) {
    var (low, high) = (0, memberCount)
    while high - low > 1 {
      let middle = (low + high) / 2
      if members[middle].firstTile <= index { low = middle } else { high = middle }
    }
    let member = members[low]
    let first = (index - member.firstTile) * Self.tileRowCount
    let tile = first..<min(first + Self.tileRowCount, member.rows.count)
    switch phase {
    case .gather: if !member.isWhole { gather(member, tile) }
    case .activate: activate(member, tile)
    }
  }

  /// Copies a tile's rows from where they lie in the sweep.
  private func gather(_ member: Member, _ tile: Range<Int>) {
    let rows = memory.rows + member.rows.lowerBound * width
    for row in tile {
      let token = memory.token(ofRow: member.rows.lowerBound + row)
      (rows + row * width).update(from: x.values + token * x.stride, count: width)
    }
    member.input.blocks?.quantise(rows, stride: width, tokens: tile)
  }

  /// gate = activation(gate) * up, biases added first
  private func activate(_ member: Member, _ tile: Range<Int>) {
    let length = experts.feedForwardLength
    let gate = memory.gate + member.firstRow * length
    let up = memory.up + member.firstRow * length
    for row in tile {
      if let biases {
        VectorOps.add(gate + row * length, biases.gate + member.expert * length, count: length)
        VectorOps.add(up + row * length, biases.up + member.expert * length, count: length)
      }
      activation.gate(gate + row * length, by: up + row * length, count: length)
    }
    activations(
      gate, columnCount: length, member.rows.count, firstBlockRow: member.firstBlockRow
    ).blocks?.quantise(gate, stride: length, tokens: tile)
  }
}
