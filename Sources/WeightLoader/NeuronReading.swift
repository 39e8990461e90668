public import ModelFormat
public import TensorBasics

/// How bundles of neurons are read and kept.
public struct NeuronReading: Sendable, Equatable {
  /// What stays in memory when a token is done.
  public enum Retention: Sendable {
    /// The bundles that were used last: the window of "LLM in a flash" (arXiv:2312.11514, §3.1.2), as
    /// many tokens long as memory allows.
    case recent
    /// As many bundles as there is room for, always the same ones: where every token needs all, they
    /// are scanned cyclically, and for a cyclic scan nothing is better.
    case fixed
    /// Nothing; to measure what a window saves.
    case none
  }

  /// Whether the deciding part is read too: where nothing else says how active a neuron is.
  public var includesDecidingPart: Bool
  public var retention: Retention
  /// Reads each part of a bundle by itself; to measure what bundling saves.
  public var readsPartsApart: Bool

  public init(
    includesDecidingPart: Bool, retention: Retention = .recent, readsPartsApart: Bool = false
  ) {
    self.includesDecidingPart = includesDecidingPart
    self.retention = retention
    self.readsPartsApart = readsPartsApart
  }

  /// Bytes of a bundle that are needed.
  public func contentByteCount(_ bundles: NeuronBundles) -> Int {
    includesDecidingPart ? bundles.byteCount : bundles.prefixByteCount
  }

  /// Bytes that reading a bundle brings: whole blocks of the drive.
  public func readByteCount(_ bundles: NeuronBundles) -> Int {
    AlignedBuffer.roundedUp(contentByteCount(bundles))
  }

  /// Whether bundles stay where the drive put them; where the drive's blocks would waste more than an
  /// eighth of memory they are copied together.
  public func keepsPadding(_ layout: NeuronLayout) -> Bool {
    let read = layout.layers.reduce(0) { $0 + readByteCount($1) }
    let content = layout.layers.reduce(0) { $0 + contentByteCount($1) }
    return read - content <= content / 8
  }

  /// Memory of one bundle of any layer.
  public func slotByteCount(_ layout: NeuronLayout) -> Int {
    keepsPadding(layout)
      ? layout.layers.map(readByteCount).max() ?? 0
      : ((layout.layers.map(contentByteCount).max() ?? 0) + 63) & ~63
  }

  /// Memory that a window takes besides its slots: buffers that bundles are copied from, and bookkeeping.
  public func fixedByteCount(_ layout: NeuronLayout, slotCount: Int) -> Int {
    guard let first = layout.layers.first else { return 0 }
    let staging =
      keepsPadding(layout) ? 0 : Self.stagedReadCount * stagedReadByteCount(layout)
    let keyCount = layout.layers.count * first.bundleCount
    return AlignedBuffer.roundedUp(staging)
      + AlignedBuffer.roundedUp(
        keyCount * (NeuronWindow.keyByteCount + DecayedFrequency.keyByteCount)
          + slotCount * (NeuronWindow.slotBookByteCount + DecayedFrequency.slotByteCount)
          + DecayTuner.byteCount(keyCount: keyCount, slotCount: slotCount)
          + first.bundleCount * NeuronWindow.requestBookByteCount)
  }

  /// Longest read of neighbouring bundles that is copied from.
  func stagedReadByteCount(_ layout: NeuronLayout) -> Int {
    max(layout.layers.map(readByteCount).max() ?? 0, 16 << 10)
  }

  /// Reads under way that are copied from.
  static let stagedReadCount = 256
  /// Longest read of neighbouring bundles into their slots.
  static let longestReadByteCount = 1 << 20
}

/// Counters of a window of neurons.
public struct NeuronStatistics: Counters, Sendable {
  public init() {}

  /// Bundles that tokens, or chunks of tokens, needed.
  public var uses = 0
  /// Of those, bundles that were in memory.
  public var hits = 0
  /// Bundles that were read.
  public var reads = 0
  /// Of those, bundles read ahead of being needed, and how many of them were needed.
  public var readsAhead = 0
  public var readsAheadUsed = 0
  /// Reads submitted, and bytes that they bring.
  public var requests = 0
  public var bytesRead = 0
  public var evictions = 0
  /// Sum over evictions of the tokens since the bundle's last use: ÷ ``evictions`` = the window's length.
  public var evictedAges = 0
  /// Time to look bundles up, give them places, plan their reads, and copy.
  public var managementNanoseconds = 0
  /// Time to compare bundles that came for the first time with their checksums.
  public var checkNanoseconds = 0

  public static let counters: [any WritableKeyPath<Self, Int> & Sendable] = [
    \.uses, \.hits, \.reads, \.readsAhead, \.readsAheadUsed, \.requests, \.bytesRead, \.evictions,
    \.evictedAges, \.managementNanoseconds, \.checkNanoseconds,
  ]
}
