import Glibc
import TensorBasics

/// The memory regions a ring holds pinned, so that reads into them need not pin and unpin pages.
struct RegisteredBuffers {
  /// The regions in the used entries of the ring's table; nil for an entry that is free again.
  private var table: [UnsafeMutableRawBufferPointer?] = []
  private var hasTable = false
  private var gaveUp = false

  /// Room for regions; one of a device's few staging areas may take several.
  private static let tableCount = 64
  /// The kernel's limit for one registered buffer.
  private static let maximumByteCount = 1 << 30
  /// Below this, registering is not worth a table entry.
  private static let minimumByteCount = 1 << 20

  /// Registers as much of `region`, from its start, as the system permits.
  ///
  /// - Returns: a line for people where that is not all of it, once.
  mutating func add(
    _ region: UnsafeMutableRawBufferPointer, to ring: borrowing Ring
  ) -> String? {
    guard !gaveUp, !region.isEmpty else { return nil }
    if !hasTable {
      let status = ring.reserveBuffers(count: Self.tableCount)
      guard status == 0 else {
        gaveUp = true
        return "io_uring cannot register memory here (\(Self.text(-status))): reading without that"
      }
      hasTable = true
    }
    var done = 0
    var limit = Self.maximumByteCount
    while done < region.count {
      let free = table.firstIndex { $0 == nil } ?? table.count
      guard free < Self.tableCount else { return nil }
      let part = UnsafeMutableRawBufferPointer(
        rebasing: region[done..<(done + min(limit, region.count - done))])
      let status = ring.register(buffer: part, at: free)
      if status >= 0 {
        if free < table.count { table[free] = part } else { table.append(part) }
        done += part.count
        continue
      }
      limit = part.count / 2 & ~(AlignedBuffer.pageByteCount - 1)
      guard limit >= Self.minimumByteCount else {
        gaveUp = true
        return
          "\(ByteCount(done)) of \(ByteCount(region.count)) of staging memory could be registered "
          + "with io_uring (\(Self.text(-status))); the rest is read into without that"
      }
    }
    return nil
  }

  /// Unregisters everything in `region`.
  mutating func remove(_ region: UnsafeMutableRawBufferPointer, from ring: borrowing Ring) {
    for (index, part) in table.enumerated() {
      guard let part, Self.holds(region, part) else { continue }
      // An entry that the kernel will not release is not used again: it refers to pages that are gone.
      table[index] =
        ring.unregister(bufferAt: index) >= 0
        ? nil : UnsafeMutableRawBufferPointer(start: nil, count: 0)
    }
  }

  /// The registered buffer that holds all of `bytes`.
  func index(containing bytes: UnsafeMutableRawBufferPointer) -> Int? {
    table.firstIndex { $0.map { Self.holds($0, bytes) } ?? false }
  }

  private static func holds(
    _ region: UnsafeMutableRawBufferPointer, _ part: UnsafeMutableRawBufferPointer
  ) -> Bool {
    guard let first = region.baseAddress, let start = part.baseAddress else { return false }
    return start >= first && start + part.count <= first + region.count
  }

  private static func text(_ errno: Int32) -> String { String(cString: strerror(errno)) }
}
