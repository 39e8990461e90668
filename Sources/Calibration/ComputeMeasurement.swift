import HostResources
import Kernels
public import TensorBasics

/// Measures the arithmetic of decoding and prompts, with the kernels that do it.
public final class ComputeMeasurement {
  private let pool: ThreadPool
  /// Weights: bytes whose scales are ordinary numbers in every type.
  private let weights: AlignedBuffer
  private let output: AlignedBuffer
  private let activations: AlignedBuffer
  private let scratch: AlignedBuffer

  private static let columnCount = 4096
  /// Tokens of a prompt's product.
  private static let tokenCount = 64
  private static let prefillGroupCount = 64

  /// - Parameter memoryByteCount: for weights; far more than the caches hold measures memory.
  /// - Throws: `AllocationError`.
  public init(threadCount: Int, memoryByteCount: Int = 64 << 20) throws(AllocationError) {
    pool = ThreadPool(threadCount: threadCount)
    weights = try AlignedBuffer(
      byteCount: max(memoryByteCount, 4 << 20), prefersHugePages: true)
    // The byte 0x22 makes normal numbers of f16, bf16 and f32, and quants that are not all zero.
    weights.bytes.initializeMemory(as: UInt8.self, repeating: 0x22)
    let smallestGroup = 16 * Self.columnCount / 4
    let rows = max(
      weights.byteCount / smallestGroup * 16, Self.prefillGroupCount * 16 * Self.tokenCount)
    output = try AlignedBuffer(byteCount: rows * 4)
    let floats = Self.tokenCount * Self.columnCount * 4
    activations = try AlignedBuffer(
      byteCount: floats
        + ActivationBlocks.byteCount(
          tokenCapacity: Self.tokenCount, columnCount: Self.columnCount))
    activations.bytes[..<floats].initializeMemory(as: Float.self, repeating: 0.5)
    scratch = try AlignedBuffer(byteCount: threadCount * Self.scratchByteCount)
  }

  private static let scratchByteCount = 16 * columnCount * 4

  /// Something to compute beside other work: products of one token with 2 MiB of weights each.
  ///
  /// - Returns: what does the next product; it lives as long as this measurement does.
  func steadyWork(_ kind: TokenWork.Weights) -> () -> Void {
    let groupByteCount = RowGroup.byteCount(kind.type, columnCount: Self.columnCount)
    let groupCount = weights.byteCount / groupByteCount
    let product = makeProduct(kind, groupCount: groupCount, tokenCount: 1)
    let step = min(groupCount, max(1, (2 << 20) / groupByteCount))
    var first = 0
    return { [pool] in
      if first + step > groupCount { first = 0 }
      product.groups = first..<first + step
      pool.run(count: product.grainCount, product)
      first += step
    }
  }

  /// Each rate is measured so many times; the median counts.
  private static let passCount = 5

  /// Measures memory, regions and products.
  ///
  /// - Parameters:
  ///   - kinds: weights to measure.
  ///   - seconds: for all products together. A share of a second each: on a shared machine speed
  ///     changes from one tenth of a second to the next.
  /// - Returns: the profile, and how far the middle half of a rate's measurements lie apart at most, over their
  ///   median.
  public func profile(
    kinds: [TokenWork.Weights], seconds: Double
  ) -> (ComputeProfile, spread: Double) {
    let bytes = UnsafeRawBufferPointer(weights.bytes)
    _ = MemoryBandwidth.bytesPerSecond(reading: bytes, passCount: 1, pool: pool)
    func repeated(_ measure: () -> Double) -> RepeatedRate {
      RepeatedRate((0..<Self.passCount).map { _ in measure() })
    }
    let memory = repeated {
      MemoryBandwidth.bytesPerSecond(reading: bytes, passCount: 5, pool: pool)
    }
    var spread = memory.spread
    var products: [ComputeProfile.ProductRate] = []
    let share = seconds / Double(max(1, kinds.count) * Self.passCount)
    for kind in kinds {
      let decode = repeated { decodeRate(kind, seconds: share * 0.7) }
      let prefill = repeated { prefillRate(kind, seconds: share * 0.3) }
      spread = max(spread, decode.spread, prefill.spread)
      products.append(
        ComputeProfile.ProductRate(
          type: kind.type, layout: kind.layout, decodeBytesPerSecond: decode.median,
          prefillOperationsPerSecond: prefill.median))
    }
    let profile = ComputeProfile(
      processor: Machine.processorName(), threadCount: pool.threadCount,
      instructionSet: Self.instructionSetName, memoryBytesPerSecond: memory.median,
      regionSeconds: regionSeconds(), products: products)
    return (profile, spread)
  }

  static var instructionSetName: String { InstructionSet.best.rawValue }

  /// The median of many empty regions: on a shared machine a few of them wait for a processor.
  private func regionSeconds() -> Double {
    let times = (0..<500).map { _ in
      let start = monotonicNanoseconds()
      pool.run(count: pool.threadCount) { _, _ in }
      return monotonicNanoseconds() - start
    }
    return Double(times.sorted()[times.count / 2]) / 1e9
  }

  /// Bytes of weights per second with one token: regions of 16 MiB, as large models have, through all the
  /// memory.
  private func decodeRate(_ kind: TokenWork.Weights, seconds: Double) -> Double {
    let groupByteCount = RowGroup.byteCount(kind.type, columnCount: Self.columnCount)
    let groupCount = weights.byteCount / groupByteCount
    let product = makeProduct(kind, groupCount: groupCount, tokenCount: 1)
    let step = max(1, min(groupCount, (16 << 20) / groupByteCount))
    let start = monotonicNanoseconds()
    var (done, first) = (0, 0)
    while monotonicNanoseconds() - start < Int(seconds * 1e9) {
      let end = min(first + step, groupCount)
      product.groups = first..<end
      pool.run(count: product.grainCount, product)
      done += end - first
      first = end == groupCount ? 0 : end
    }
    return Double(done * groupByteCount) * 1e9 / Double(monotonicNanoseconds() - start)
  }

  /// Operations per second with many tokens.
  private func prefillRate(_ kind: TokenWork.Weights, seconds: Double) -> Double {
    let groupByteCount = RowGroup.byteCount(kind.type, columnCount: Self.columnCount)
    let groupCount = min(Self.prefillGroupCount, weights.byteCount / groupByteCount)
    let product = makeProduct(kind, groupCount: groupCount, tokenCount: Self.tokenCount)
    product.groups = 0..<groupCount
    let start = monotonicNanoseconds()
    var runs = 0
    while runs == 0 || monotonicNanoseconds() - start < Int(seconds * 1e9) {
      pool.run(count: product.grainCount, product)
      runs += 1
    }
    let operations = 2 * groupCount * 16 * Self.columnCount * Self.tokenCount * runs
    return Double(operations) * 1e9 / Double(monotonicNanoseconds() - start)
  }

  private func makeProduct(
    _ kind: TokenWork.Weights, groupCount: Int, tokenCount: Int
  ) -> ProductRegion {
    let values = activations.address.assumingMemoryBound(to: Float.self)
    let count = Self.tokenCount * Self.columnCount
    let blocks = ActivationBlocks(
      memory: activations.address + count * 4, columnCount: Self.columnCount)
    blocks.quantise(values, stride: Self.columnCount, tokens: 0..<tokenCount)
    let rowCount = groupCount * RowGroup.rowCount
    return ProductRegion(
      weights: MatrixOperand(
        address: weights.address, type: kind.type, layout: kind.layout, rowCount: rowCount,
        columnCount: Self.columnCount),
      activations: Activations(
        values: values, stride: Self.columnCount, blocks: kind.type.isQuantised ? blocks : nil,
        tokenCount: tokenCount),
      output: output.address.assumingMemoryBound(to: Float.self), outputStride: rowCount,
      scratch: scratch.address, scratchByteCount: Self.scratchByteCount,
      threadCount: pool.threadCount)
  }
}

/// A product cut into grains as decoding cuts it.
private final class ProductRegion: ParallelRegion {
  private let weights: MatrixOperand
  private let activations: Activations
  private let output: UnsafeMutablePointer<Float>
  private let outputStride: Int
  private let scratch: UnsafeMutableRawPointer
  private let scratchByteCount: Int
  private let threadCount: Int
  /// What the next run multiplies.
  var groups = 0..<0

  init(
    weights: MatrixOperand, activations: Activations, output: UnsafeMutablePointer<Float>,
    outputStride: Int, scratch: UnsafeMutableRawPointer, scratchByteCount: Int, threadCount: Int
  ) {
    self.weights = weights
    self.activations = activations
    self.output = output
    self.outputStride = outputStride
    self.scratch = scratch
    self.scratchByteCount = scratchByteCount
    self.threadCount = threadCount
  }

  /// Row groups that a worker takes at a time, as decoding chooses them.
  private var grain: Int {
    let groupByteCount = weights.rows.groupByteCount
    let byteCount = min(128 << 10, groups.count * groupByteCount / (16 * threadCount))
    return activations.tokenCount > 1 ? 1 : max(1, byteCount / groupByteCount)
  }

  var grainCount: Int { (groups.count + grain - 1) / grain }

  func perform(index: Int, worker: Int) {
    let grain = grain
    let first = groups.lowerBound + index * grain
    MatrixProduct.multiply(
      weights, groups: first..<min(first + grain, groups.upperBound), by: activations,
      into: output, outputStride: outputStride, scratch: scratch + worker * scratchByteCount)
  }
}
