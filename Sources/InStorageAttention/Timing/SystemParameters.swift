/// Every number of the machine around the drives; one drive's own are in ``DriveParameters``.
public struct SystemParameters: Sendable, Equatable {
  /// Processors that hold the weights and compute all but the attention of offloaded layers (GPUs, or one
  /// CPU); they share layers evenly.
  public var processorCount: Int
  /// Peak of one processor.
  public var operationsPerSecond: Double
  /// Share of the peak that large products reach.
  public var productEfficiency: Double
  /// Memory of one processor: bandwidth and size.
  public var memoryBytesPerSecond: Double
  public var memoryByteCount: Double
  /// Between host memory and one processor, one direction.
  public var linkBytesPerSecond: Double
  /// Host memory that programs can use.
  public var hostMemoryByteCount: Double
  /// Host work per attend command: one KV head of one sequence and layer.
  public var commandNanoseconds: Double
  /// Whether that work happens while drives are computing, or before they begin.
  public var overlapsCommands: Bool
  /// What programs on the host get out of files, however many drives there are.
  public var fileBytesPerSecond: Double
  /// Whether a host that wants single entries of a file must read the pages around them.
  public var readsWholePages: Bool
  /// Memory in which the system keeps pages of such files.
  public var fileCacheByteCount: Double
  /// Keys and values from host memory to where attention is computed; none if the processor computes in
  /// host memory.
  public var copyBytesPerSecond: Double?
  /// Whether weights lie in host memory, and are sent for every step, when keys and values do.
  public var streamsWeights: Bool

  /// - Throws: ``TimingError/outOfRange(parameter:value:)`` for the first number that cannot be.
  public func validate() throws(TimingError) {
    try requireCount("processors", processorCount, upTo: 1 << 20)
    try requirePositive("processor rate", operationsPerSecond)
    try requirePositive("product efficiency", productEfficiency)
    try requirePositive("processor memory bandwidth", memoryBytesPerSecond)
    try requirePositive("processor memory", memoryByteCount)
    try requirePositive("host link bandwidth", linkBytesPerSecond)
    try requirePositive("host memory", hostMemoryByteCount)
    try requireNotNegative("host time per command", commandNanoseconds)
    try requirePositive("file bandwidth", fileBytesPerSecond)
    try requireNotNegative("file cache", fileCacheByteCount)
    if let copyBytesPerSecond { try requirePositive("copy bandwidth", copyBytesPerSecond) }
  }

  /// The testbed of arXiv 2409.04992, §VI-A, and its baselines. The words are those of
  /// ``DriveParameters/paper``.
  public static let paper = SystemParameters(
    processorCount: 1,  // Input.
    operationsPerSecond: 155e12,  // Hardware: RTX A6000, f16 with f32 sums, dense.
    productEfficiency: 0.6,  // Assumed.
    memoryBytesPerSecond: 768e9,  // Hardware: RTX A6000.
    memoryByteCount: 48e9,  // Input.
    linkBytesPerSecond: 32e9,  // Input, §VI-C: PCIe 4.0 ×16.
    hostMemoryByteCount: 72e9,  // Input: batch 16 fits in 96 GB, batch 32 does not.
    commandNanoseconds: 6750,  // Constrained by Fig. 18: what of a step one and two drives leave.
    overlapsCommands: false,  // Fig. 18: the rest of a step is not hidden.
    fileBytesPerSecond: 0.74e9,  // Constrained by Fig. 14: InstA is 6.85 × FlexGen at batch 64.
    readsWholePages: false,  // Fig. 15 and 19: FlexGen-SparQ moves entries.
    fileCacheByteCount: 13e9,  // Constrained by Fig. 15: FlexGen at batch 32 against 64.
    copyBytesPerSecond: 7.8e9,  // Constrained by Fig. 14: InstA is 1.046 × DeepSpeed.
    streamsWeights: true)  // ZeRO-Inference keeps weights in host memory.

  /// A machine of 2026 that spares no software effort: direct reads, commands queued while drives compute.
  public static let year2026 = SystemParameters(
    processorCount: 1,
    operationsPerSecond: 200e12, productEfficiency: 0.6,  // A 48 GB card, f16.
    memoryBytesPerSecond: 1344e9, memoryByteCount: 48e9,  // GDDR7, 384 bit.
    linkBytesPerSecond: 64e9,  // PCIe 5.0 ×16.
    hostMemoryByteCount: 128e9,
    commandNanoseconds: 500,  // One submission of several through a ring.
    overlapsCommands: true,
    fileBytesPerSecond: 64e9,  // Direct reads: links limit, not the file system.
    readsWholePages: true,  // A drive reads 4 KiB, a head's token has 256 bytes.
    fileCacheByteCount: 0,  // Direct reads do not go through the page cache.
    copyBytesPerSecond: 50e9,  // Pinned memory over PCIe 5.0 ×16.
    streamsWeights: false)

  /// A laptop of 2026 whose CPU computes.
  public static let laptop2026 = SystemParameters(
    processorCount: 1,
    operationsPerSecond: 2e12, productEfficiency: 0.6,  // 8 cores of 64 operations a cycle.
    memoryBytesPerSecond: 120e9, memoryByteCount: 32e9,  // LPDDR5X-7500, 128 bit.
    linkBytesPerSecond: 120e9,  // Its memory is the host's.
    hostMemoryByteCount: 12e9,  // What the weights of an 8B model in 16 bits leave.
    commandNanoseconds: 500,
    overlapsCommands: true,
    fileBytesPerSecond: 64e9,
    readsWholePages: true,
    fileCacheByteCount: 0,
    copyBytesPerSecond: nil,
    streamsWeights: false)
}
