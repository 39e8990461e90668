import Kernels
import ModelFormat
import Synchronization
import TensorBasics

/// Memory of the steps over bundles of neurons, for chunks of up to `tokenCapacity` tokens.
final class NeuronWorkspace {
  /// What decides: gate (or up) before activation, or predicted scores
  /// [tokenCapacity, feedForwardLength].
  let decisions: UnsafeMutablePointer<Float>
  /// Activated neurons of a batch, a column a neuron in ascending order
  /// [tokenCapacity, feedForwardLength].
  let values: UnsafeMutablePointer<Float>
  /// Inner activations of a predictor [tokenCapacity, largest rank].
  let inner: UnsafeMutablePointer<Float>
  /// [tokenCapacity, hiddenSize]
  let output: UnsafeMutablePointer<Float>
  /// Ones [feedForwardLength].
  let ones: UnsafeMutablePointer<Float>
  /// Which bundles any token of the chunk needs [bundleCount], and their numbers in ascending order.
  let isNeeded: UnsafeMutablePointer<Atomic<Bool>>
  let needed: UnsafeMutablePointer<Int32>
  /// First byte of each bundle of a batch, and of its down part [bundleCount].
  let addresses: UnsafeMutablePointer<UnsafeRawPointer>
  let downAddresses: UnsafeMutablePointer<UnsafeRawPointer>
  /// Places in the batch in the order of their computation: those in memory first [bundleCount].
  let order: UnsafeMutablePointer<Int32>
  /// Int8 activations of each bundle of a batch [bundleCount], for bundles of several neurons.
  let blocks: UnsafeMutableRawPointer
  let blocksByteCount: Int

  private let workers: UnsafeMutableRawPointer
  private let workerByteCount: Int
  private let sizes: WorkerSizes
  private let memory: PartitionedBuffer

  /// What a worker computes a unit of neurons in.
  struct Worker {
    /// Sixteen interleaved rows.
    var group: UnsafeMutableRawPointer
    /// Addresses of sixteen rows.
    var rows: UnsafeMutablePointer<UnsafeRawPointer?>
    /// [tokenCapacity, neurons of a unit]
    var gate: UnsafeMutablePointer<Float>
    var up: UnsafeMutablePointer<Float>
  }

  /// - Throws: ``AllocationError``.
  init(
    _ configuration: DecoderConfiguration, _ layout: NeuronLayout, tokenCapacity: Int,
    threadCount: Int
  ) throws(AllocationError) {
    let sizes = Self.sizes(
      configuration, layout, tokenCapacity: tokenCapacity, threadCount: threadCount)
    let memory = try PartitionedBuffer(sizes)
    decisions = memory.pointer(0, as: Float.self)
    values = memory.pointer(1, as: Float.self)
    inner = memory.pointer(2, as: Float.self)
    output = memory.pointer(3, as: Float.self)
    ones = memory.pointer(4, as: Float.self)
    isNeeded = memory.pointer(5, as: Atomic<Bool>.self)
    needed = memory.pointer(6, as: Int32.self)
    addresses = memory.pointer(7, as: UnsafeRawPointer.self)
    downAddresses = memory.pointer(8, as: UnsafeRawPointer.self)
    order = memory.pointer(9, as: Int32.self)
    blocks = memory.address(10)
    workers = memory.address(11)
    self.memory = memory
    self.sizes = WorkerSizes(configuration, layout, tokenCapacity: tokenCapacity)
    workerByteCount = self.sizes.byteCount
    blocksByteCount = Self.blocksByteCount(layout, tokenCapacity: tokenCapacity)
    ones.update(repeating: 1, count: configuration.feedForwardLength)
  }

  /// Makes every bundle one that no token needs; while no other thread marks some.
  func clearNeeded(bundleCount: Int) {
    UnsafeMutableRawPointer(isNeeded).initializeMemory(
      as: UInt8.self, repeating: 0, count: bundleCount)
  }

  /// The memory of worker `index`.
  func worker(_ index: Int) -> Worker {
    let start = workers + index * workerByteCount
    return Worker(
      group: start,
      rows: (start + sizes.group).bindMemory(to: UnsafeRawPointer?.self, capacity: 16),
      gate: (start + sizes.group + sizes.rows).bindMemory(to: Float.self, capacity: sizes.tile / 4),
      up: (start + sizes.group + sizes.rows + sizes.tile)
        .bindMemory(to: Float.self, capacity: sizes.tile / 4))
  }

  /// Bytes that a workspace of that capacity takes.
  static func byteCount(
    _ configuration: DecoderConfiguration, _ layout: NeuronLayout, tokenCapacity: Int,
    threadCount: Int
  ) -> Int {
    PartitionedBuffer.byteCount(
      sizes(configuration, layout, tokenCapacity: tokenCapacity, threadCount: threadCount))
  }

  private struct WorkerSizes {
    var group: Int
    var rows: Int
    var tile: Int
    var byteCount: Int { group + rows + 2 * tile }

    init(_ configuration: DecoderConfiguration, _ layout: NeuronLayout, tokenCapacity: Int) {
      let parts = layout.layers.flatMap(\.parts)
      group = PartitionedBuffer.roundedUp(
        parts.map {
          MatrixProduct.scratchByteCount(
            type: $0.type, columnCount: configuration.hiddenSize)
        }.max() ?? 0)
      rows = PartitionedBuffer.roundedUp(
        RowGroup.rowCount * MemoryLayout<UnsafeRawPointer?>.stride)
      let neurons = max(RowGroup.rowCount, layout.layers.first?.neuronsPerBundle ?? 1)
      tile = PartitionedBuffer.roundedUp(tokenCapacity * neurons * 4)
    }
  }

  private static func blocksByteCount(_ layout: NeuronLayout, tokenCapacity: Int) -> Int {
    guard let neurons = layout.layers.first?.neuronsPerBundle, neurons > 1 else { return 0 }
    return PartitionedBuffer.roundedUp(
      ActivationBlocks.byteCount(tokenCapacity: tokenCapacity, columnCount: neurons))
  }

  private static func sizes(
    _ configuration: DecoderConfiguration, _ layout: NeuronLayout, tokenCapacity: Int,
    threadCount: Int
  ) -> [Int] {
    let bundleCount = layout.layers.first?.bundleCount ?? 0
    func words(_ count: Int) -> Int { PartitionedBuffer.roundedUp(4 * count) }
    let pointers = PartitionedBuffer.roundedUp(
      bundleCount * MemoryLayout<UnsafeRawPointer>.stride)
    return [
      words(tokenCapacity * configuration.feedForwardLength),
      words(tokenCapacity * configuration.feedForwardLength),
      words(tokenCapacity * (layout.predictor?.ranks.max() ?? 0)),
      words(tokenCapacity * configuration.hiddenSize),
      words(configuration.feedForwardLength),
      PartitionedBuffer.roundedUp(bundleCount),
      words(bundleCount),
      pointers,
      pointers,
      words(bundleCount),
      bundleCount * blocksByteCount(layout, tokenCapacity: tokenCapacity),
      threadCount
        * WorkerSizes(configuration, layout, tokenCapacity: tokenCapacity).byteCount,
    ]
  }
}
