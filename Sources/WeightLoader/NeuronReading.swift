public import ModelFormat
import TensorBasics

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

  /// Bytes that are wanted of a bundle.
  public func contentByteCount(_ bundles: NeuronBundles) -> Int {
    includesDecidingPart ? bundles.byteCount : bundles.prefixByteCount
  }

  /// Bytes that reading a bundle brings: whole blocks of the drive.
  public func readByteCount(_ bundles: NeuronBundles) -> Int {
    AlignedBuffer.roundedUp(contentByteCount(bundles))
  }

  /// Whether bundles stay where the drive put them; where the drive's blocks would waste more than an
  /// eighth of memory they are copied together.
  public func keepsPadding(_ bundles: NeuronBundles) -> Bool {
    let content = contentByteCount(bundles)
    return readByteCount(bundles) - content <= content / 8
  }

  /// Memory of one bundle.
  public func slotByteCount(_ bundles: NeuronBundles) -> Int {
    keepsPadding(bundles) ? readByteCount(bundles) : (contentByteCount(bundles) + 63) & ~63
  }

  /// Memory that a window takes beside its slots: what bundles are copied from, and the books.
  public func fixedByteCount(_ layout: NeuronLayout, slotCount: Int) -> Int {
    guard let first = layout.layers.first else { return 0 }
    let staging =
      keepsPadding(first) ? 0 : Self.stagedReadCount * stagedReadByteCount(first)
    let keyCount = layout.layers.count * first.bundleCount
    return AlignedBuffer.roundedUp(staging)
      + AlignedBuffer.roundedUp(
        keyCount * NeuronWindow.keyByteCount + slotCount * NeuronWindow.slotBookByteCount
          + first.bundleCount * NeuronWindow.requestBookByteCount)
  }

  /// Longest read of neighbouring bundles that is copied from.
  func stagedReadByteCount(_ bundles: NeuronBundles) -> Int {
    max(readByteCount(bundles), 64 << 10)
  }

  /// Reads under way that are copied from.
  static let stagedReadCount = 64
  /// Longest read of neighbouring bundles into their slots.
  static let longestReadByteCount = 1 << 20
}

/// What a window of neurons did.
public struct NeuronStatistics: Sendable {
  /// Bundles that tokens, or chunks of tokens, needed.
  public var uses = 0
  /// Of those, bundles that were in memory.
  public var hits = 0
  /// Bundles that were read: ``uses`` − ``hits``.
  public var reads: Int { uses - hits }
  /// Reads submitted, and bytes that they bring.
  public var requests = 0
  public var bytesRead = 0
  public var evictions = 0
  /// Sum over evictions of the tokens since the bundle's last use: ÷ ``evictions`` = the window's length.
  public var evictedAges = 0
  /// Time to look bundles up, give them places, plan their reads, and copy.
  public var managementNanoseconds = 0

  public static func - (left: NeuronStatistics, right: NeuronStatistics) -> NeuronStatistics {
    var result = left
    result.uses -= right.uses
    result.hits -= right.hits
    result.requests -= right.requests
    result.bytesRead -= right.bytesRead
    result.evictions -= right.evictions
    result.evictedAges -= right.evictedAges
    result.managementNanoseconds -= right.managementNanoseconds
    return result
  }
}
