import Synchronization

/// Memory that is never given back to the system, because the kernel may still write to it.
///
/// A device that can no longer learn whether its reads have ended puts their destinations here, and
/// ``AlignedBuffer`` leaves what overlaps them mapped. That costs memory, until the process ends, where
/// giving it back could cost somebody else's data.
package enum AbandonedMemory {
  private static let isEmpty = Atomic(true)
  private static let ranges = Mutex<[Range<UInt>]>([])

  /// Keeps `region` mapped for as long as the process lives.
  package static func keep(_ region: UnsafeMutableRawBufferPointer) {
    guard let range = range(UnsafeRawBufferPointer(region)) else { return }
    ranges.withLock { $0.append(range) }
    isEmpty.store(false, ordering: .releasing)
  }

  /// Whether any byte of `region` must stay mapped.
  package static func overlaps(_ region: UnsafeRawBufferPointer) -> Bool {
    guard !isEmpty.load(ordering: .acquiring), let range = range(region) else { return false }
    return ranges.withLock { $0.contains { $0.overlaps(range) } }
  }

  private static func range(_ region: UnsafeRawBufferPointer) -> Range<UInt>? {
    guard let start = region.baseAddress.map({ UInt(bitPattern: $0) }), !region.isEmpty else {
      return nil
    }
    return start..<start + UInt(region.count)
  }
}
