public import BlockIO
import Glibc

/// A device whose reads go wrong where a test wants it.
///
/// Every completion, in the order in which the user of the device takes them, is shown to ``onRead`` first.
public final class FaultyDevice: BlockDevice {
  /// What becomes of a read.
  public enum Fault {
    /// It fails with an error number.
    case error(Int32)
    /// One of its bits is not what the file says; counted from the first byte.
    case flippedBit(Int)
  }

  /// Told of each read that is done and of how many were before it; nil = nothing is wrong with it.
  public var onRead: ((_ number: Int, _ request: ReadRequest) -> Fault?)?
  /// Whether reads come to those alone who wait for them, as from a drive that is never ahead.
  public var comesWhenWaitedForOnly = false
  /// Reads that were taken so far.
  public private(set) var readCount = 0

  private let inner: any BlockDevice
  private let paths: [String]
  /// Requests under way, by the tag they have inside.
  private var requests: [ReadRequest?]
  private var freeTags: [Int]

  /// - Parameter paths: of the files of `inner`, for errors; it must not be used otherwise from here on.
  public init(_ inner: any BlockDevice, paths: [String]) {
    self.inner = inner
    self.paths = paths
    requests = Array(repeating: nil, count: inner.capacity)
    freeTags = Array(0..<inner.capacity)
  }

  public var fileByteCounts: [Int] { inner.fileByteCounts }
  public var alignment: Int { inner.alignment }
  public var capacity: Int { inner.capacity }
  public var inFlight: Int { inner.inFlight }
  public var notes: [String] { inner.notes }
  public var statistics: IOStatistics { inner.statistics }

  public func register(_ region: UnsafeMutableRawBufferPointer) { inner.register(region) }
  public func unregister(_ region: UnsafeMutableRawBufferPointer) { inner.unregister(region) }
  public func checkUnchanged() throws(BlockIOError) { try inner.checkUnchanged() }
  public func fileIdentities() throws(BlockIOError) -> [FileIdentity] {
    try inner.fileIdentities()
  }
  public func flush() throws(BlockIOError) { try inner.flush() }
  public func abandonReads() { inner.abandonReads() }

  public func submit(_ request: ReadRequest) throws(BlockIOError) {
    let tag = freeTags.removeLast()
    requests[tag] = request
    var tagged = request
    tagged.tag = UInt64(tag)
    try inner.submit(tagged)
  }

  public func reap(
    waiting: Bool, timeoutMilliseconds: Int?
  ) throws(BlockIOError) -> ReadCompletion? {
    guard waiting || !comesWhenWaitedForOnly else { return nil }
    guard
      let done = try inner.reap(waiting: waiting, timeoutMilliseconds: timeoutMilliseconds),
      let request = requests[Int(done.tag)]
    else { return nil }
    requests[Int(done.tag)] = nil
    freeTags.append(Int(done.tag))
    readCount += 1
    switch onRead?(readCount - 1, request) {
    case nil: break
    case .error(let errno):
      throw BlockIOError(
        .read, path: paths[request.fileIndex], offset: request.offset,
        byteCount: request.destination.count, reason: .system(errno: errno), tag: request.tag)
    case .flippedBit(let bit):
      request.destination[bit / 8] ^= 1 << UInt8(bit % 8)
    }
    return ReadCompletion(tag: request.tag, byteCount: done.byteCount)
  }
}
