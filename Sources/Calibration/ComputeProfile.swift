public import TensorBasics

/// What processors and memory gave when they were measured, with one number of threads.
public struct ComputeProfile: Sendable, Equatable {
  /// The processor's name.
  public var processor: String
  public var threadCount: Int
  /// The kernels' instruction set.
  public var instructionSet: String
  /// Plain reading of memory by all threads, bytes per second.
  public var memoryBytesPerSecond: Double
  /// What beginning and ending a parallel region takes.
  public var regionSeconds: Double
  public var products: [ProductRate]

  /// The speed of products with one type of weights.
  public struct ProductRate: Sendable, Equatable {
    public var type: ElementType
    public var layout: RowLayout
    /// One token: bytes of weights per second, from memory.
    public var decodeBytesPerSecond: Double
    /// Many tokens: multiplications and additions per second, from cache.
    public var prefillOperationsPerSecond: Double

    public init(
      type: ElementType, layout: RowLayout, decodeBytesPerSecond: Double,
      prefillOperationsPerSecond: Double
    ) {
      self.type = type
      self.layout = layout
      self.decodeBytesPerSecond = decodeBytesPerSecond
      self.prefillOperationsPerSecond = prefillOperationsPerSecond
    }
  }

  public init(
    processor: String, threadCount: Int, instructionSet: String, memoryBytesPerSecond: Double,
    regionSeconds: Double, products: [ProductRate]
  ) {
    self.processor = processor
    self.threadCount = threadCount
    self.instructionSet = instructionSet
    self.memoryBytesPerSecond = memoryBytesPerSecond
    self.regionSeconds = regionSeconds
    self.products = products
  }

  /// The rate of one kind of weights; nil if it was not measured.
  public func rate(_ type: ElementType, _ layout: RowLayout) -> ProductRate? {
    products.first { $0.type == type && $0.layout == layout }
  }

  /// This profile with the rates of an older one for what was not measured again.
  public func keepingOthers(of older: ComputeProfile?) -> ComputeProfile {
    var result = self
    for rate in older?.products ?? [] where self.rate(rate.type, rate.layout) == nil {
      result.products.append(rate)
    }
    return result
  }

  /// Whether every number is one that a machine can have; a cache may hold anything.
  var isPlausible: Bool {
    let rates =
      [memoryBytesPerSecond] + products.map(\.decodeBytesPerSecond)
      + products.map(\.prefillOperationsPerSecond)
    return (1...4096).contains(threadCount) && rates.allSatisfy { (1e3...1e16).contains($0) }
      && (0...1).contains(regionSeconds)
  }
}
