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
  /// - Throws: ``AllocationError``.
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

  /// Measures memory, regions and the products of every type; about 2 s.
  ///
  /// - Parameter types: weights to measure, in both layouts.
  public func profile(types: [ElementType] = ElementType.allCases) -> ComputeProfile {
    let bytes = UnsafeRawBufferPointer(weights.bytes)
    _ = MemoryBandwidth.bytesPerSecond(reading: bytes, passCount: 1, pool: pool)
    let memory = MemoryBandwidth.bytesPerSecond(reading: bytes, passCount: 12, pool: pool)
    var products: [ComputeProfile.ProductRate] = []
    for type in types {
      for layout in [RowLayout.interleaved, .rowMajor] {
        products.append(
          ComputeProfile.ProductRate(
            type: type, layout: layout, decodeBytesPerSecond: decodeRate(type, layout),
            prefillOperationsPerSecond: prefillRate(type, layout)))
      }
    }
    return ComputeProfile(
      processor: Self.processorName, threadCount: pool.threadCount,
      instructionSet: Self.instructionSetName, memoryBytesPerSecond: memory,
      regionSeconds: regionSeconds(), products: products)
  }

  static var instructionSetName: String { InstructionSet.best.rawValue }

  /// This machine's processor, as the system names it.
  static var processorName: String {
    let line = SystemFile.lines("/proc/cpuinfo").first { $0.hasPrefix("model name") }
    guard let line, let colon = line.firstIndex(of: ":") else { return "unknown" }
    return String(line[colon...].dropFirst().drop { $0 == " " })
  }

  private func regionSeconds() -> Double {
    let count = 500
    let start = monotonicNanoseconds()
    for _ in 0..<count { pool.run(count: pool.threadCount) { _, _ in } }
    return Double(monotonicNanoseconds() - start) / 1e9 / Double(count)
  }

  /// Bytes of weights per second with one token: regions of 4 MiB through all the memory.
  private func decodeRate(_ type: ElementType, _ layout: RowLayout) -> Double {
    let groupByteCount = RowGroup.byteCount(type, columnCount: Self.columnCount)
    let groupCount = weights.byteCount / groupByteCount
    let product = makeProduct(type, layout, groupCount: groupCount, tokenCount: 1)
    let step = max(1, (4 << 20) / groupByteCount)
    let start = monotonicNanoseconds()
    var (done, first) = (0, 0)
    while monotonicNanoseconds() - start < 30_000_000 {
      let end = min(first + step, groupCount)
      product.groups = first..<end
      pool.run(count: product.grainCount, product)
      done += end - first
      first = end == groupCount ? 0 : end
    }
    return Double(done * groupByteCount) * 1e9 / Double(monotonicNanoseconds() - start)
  }

  /// Operations per second with many tokens.
  private func prefillRate(_ type: ElementType, _ layout: RowLayout) -> Double {
    let groupByteCount = RowGroup.byteCount(type, columnCount: Self.columnCount)
    let groupCount = min(Self.prefillGroupCount, weights.byteCount / groupByteCount)
    let product = makeProduct(type, layout, groupCount: groupCount, tokenCount: Self.tokenCount)
    product.groups = 0..<groupCount
    let start = monotonicNanoseconds()
    var runs = 0
    while runs == 0 || monotonicNanoseconds() - start < 20_000_000 {
      pool.run(count: product.grainCount, product)
      runs += 1
    }
    let operations = 2 * groupCount * 16 * Self.columnCount * Self.tokenCount * runs
    return Double(operations) * 1e9 / Double(monotonicNanoseconds() - start)
  }

  private func makeProduct(
    _ type: ElementType, _ layout: RowLayout, groupCount: Int, tokenCount: Int
  ) -> ProductRegion {
    let values = activations.address.assumingMemoryBound(to: Float.self)
    let count = Self.tokenCount * Self.columnCount
    let blocks = ActivationBlocks(
      memory: activations.address + count * 4, tokenCapacity: Self.tokenCount,
      columnCount: Self.columnCount)
    blocks.quantise(values, stride: Self.columnCount, tokens: 0..<tokenCount)
    let rowCount = groupCount * RowGroup.rowCount
    return ProductRegion(
      weights: MatrixOperand(
        address: weights.address, type: type, layout: layout, rowCount: rowCount,
        columnCount: Self.columnCount),
      activations: Activations(
        values: values, stride: Self.columnCount, blocks: type.isQuantised ? blocks : nil,
        tokenCount: tokenCount),
      output: output.address.assumingMemoryBound(to: Float.self), outputStride: rowCount,
      scratch: scratch.address, scratchByteCount: Self.scratchByteCount)
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
  private let grain: Int
  /// What the next run multiplies.
  var groups = 0..<0

  init(
    weights: MatrixOperand, activations: Activations, output: UnsafeMutablePointer<Float>,
    outputStride: Int, scratch: UnsafeMutableRawPointer, scratchByteCount: Int
  ) {
    self.weights = weights
    self.activations = activations
    self.output = output
    self.outputStride = outputStride
    self.scratch = scratch
    self.scratchByteCount = scratchByteCount
    let groupByteCount = RowGroup.byteCount(weights.type, columnCount: weights.columnCount)
    grain = max(1, (48 << 10) / groupByteCount)
  }

  var grainCount: Int { (groups.count + grain - 1) / grain }

  func perform(index: Int, worker: Int) {
    let first = groups.lowerBound + index * grain
    MatrixProduct.multiply(
      weights, groups: first..<min(first + grain, groups.upperBound), by: activations,
      into: output, outputStride: outputStride, scratch: scratch + worker * scratchByteCount)
  }
}
