import Glibc

/// Page-aligned anonymous memory, committed as it is touched and returned to the system on release.
///
/// Owns its mapping; never moves. `address` stays valid until the buffer is destroyed.
public struct AlignedBuffer: ~Copyable, @unchecked Sendable {
  // Safety: the buffer is plain memory; callers agree among themselves who writes which part.

  /// First byte, aligned to ``pageByteCount``.
  public let address: UnsafeMutableRawPointer
  /// Usable bytes, a multiple of ``pageByteCount``.
  public let byteCount: Int

  /// The alignment that O_DIRECT, io_uring registration and this buffer share.
  public static let pageByteCount = 4096

  /// Reserves at least `byteCount` zero bytes.
  ///
  /// - Parameter prefersHugePages: asks for transparent huge pages, for memory that will be used to
  ///   its end: they commit 2 MiB at a time.
  /// - Throws: ``AllocationError`` when the system refuses.
  public init(byteCount: Int, prefersHugePages: Bool = false) throws(AllocationError) {
    let rounded = Self.roundedUp(max(byteCount, 1))
    let refusal = FaultPlan.refusal(of: .allocate)
    guard refusal == 0 else { throw AllocationError(byteCount: byteCount, errno: refusal) }
    guard
      let memory = mmap(
        nil, rounded, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0),
      memory != MAP_FAILED
    else { throw AllocationError(byteCount: byteCount, errno: errno) }
    if prefersHugePages { madvise(memory, rounded, MADV_HUGEPAGE) }
    address = memory
    self.byteCount = rounded
  }

  deinit {
    guard !AbandonedMemory.overlaps(UnsafeRawBufferPointer(bytes)) else { return }
    munmap(address, byteCount)
  }

  /// All bytes.
  public var bytes: UnsafeMutableRawBufferPointer {
    UnsafeMutableRawBufferPointer(start: address, count: byteCount)
  }

  /// The buffer as an array of `Element`.
  public func elements<Element: BitwiseCopyable>(
    of type: Element.Type
  ) -> UnsafeMutableBufferPointer<Element> {
    bytes.bindMemory(to: Element.self)
  }

  /// `count` rounded up to whole pages.
  public static func roundedUp(_ count: Int) -> Int {
    (count + pageByteCount - 1) & ~(pageByteCount - 1)
  }
}

/// The system refused memory.
public struct AllocationError: Error, CustomStringConvertible, Sendable {
  /// Bytes asked for.
  public let byteCount: Int
  /// The system's reason.
  public let errno: Int32

  package init(byteCount: Int, errno: Int32) {
    self.byteCount = byteCount
    self.errno = errno
  }

  public var description: String {
    "cannot reserve \(ByteCount(byteCount)) of memory: \(String(cString: strerror(errno)))"
  }
}
