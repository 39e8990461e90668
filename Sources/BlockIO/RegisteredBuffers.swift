import Glibc
import TensorBasics

/// The memory regions a ring holds pinned, so that reads into them need not pin and unpin pages.
struct RegisteredBuffers {
  private var regions: [UnsafeMutableRawBufferPointer] = []
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
    _ region: UnsafeMutableRawBufferPointer, to ring: borrowing Ring, hooks: DeviceHooks
  ) -> String? {
    guard !gaveUp, !region.isEmpty else { return nil }
    if !hasTable {
      let status = ring.reserveBuffers(count: Self.tableCount)
      guard status == 0 else {
        gaveUp = true
        return "io_uring cannot register memory here (\(Self.text(-status))): reading without"
      }
      hasTable = true
    }
    var done = 0
    var limit = Self.maximumByteCount
    while done < region.count, regions.count < Self.tableCount {
      let part = UnsafeMutableRawBufferPointer(
        rebasing: region[done..<(done + min(limit, region.count - done))])
      let refusal = hooks.registrationErrno?(part.count) ?? 0
      let status = refusal == 0 ? ring.register(buffer: part, at: regions.count) : -refusal
      if status >= 0 {
        regions.append(part)
        done += part.count
        continue
      }
      limit = part.count / 2 & ~(AlignedBuffer.pageByteCount - 1)
      guard limit >= Self.minimumByteCount else {
        gaveUp = true
        return
          "\(ByteCount(done)) of \(ByteCount(region.count)) of staging memory could be registered "
          + "with io_uring (\(Self.text(-status))): reading into the rest without"
      }
    }
    return nil
  }

  /// The registered buffer that holds all of `bytes`.
  func index(containing bytes: UnsafeMutableRawBufferPointer) -> Int? {
    guard let start = bytes.baseAddress else { return nil }
    return regions.firstIndex { region in
      guard let first = region.baseAddress else { return false }
      return start >= first && start + bytes.count <= first + region.count
    }
  }

  private static func text(_ errno: Int32) -> String { String(cString: strerror(errno)) }
}
