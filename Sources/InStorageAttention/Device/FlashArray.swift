import BlockIO
import Glibc
import TensorBasics

/// A drive's flash chips, as a file: blocks that are programmed and erased as a whole, pages that are read
/// one by one, past bit errors.
///
/// A page is followed by its spare area of ``spareByteCount`` bytes: a checksum over the page and its
/// logical number. A page that is damaged, or another's, is read again and in the end reported: what the
/// file holds is never taken on trust.
///
/// Bit errors are drawn for each read and really flipped. The modelled code undoes them where they are no
/// more than it corrects, as a decoder would; where they are more, the checksum finds the page wrong.
package struct FlashArray: ~Copyable {
  package static let spareByteCount = 8

  let geometry: FlashGeometry
  private let faults: FlashFaults
  private let path: String
  private let descriptor: UnixDescriptor
  private var generator: SeededGenerator
  /// Bits flipped in the current read, to be flipped back.
  private var flipped: [Int32] = []
  package private(set) var counts = FlashCounts()

  static func pageStride(_ geometry: FlashGeometry) -> Int {
    geometry.pageByteCount + spareByteCount
  }

  private var stride: Int { Self.pageStride(geometry) }

  package init(
    _ geometry: FlashGeometry, _ faults: FlashFaults, _ file: DriveConfiguration.FlashFile
  ) throws(DriveError) {
    switch file {
    case .named(let name):
      path = name
      let opened = SystemCalls.open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, mode: 0o600)
      guard opened >= 0 else {
        throw .io(BlockIOError(.create, path: path, reason: .system(errno: -opened)))
      }
      descriptor = UnixDescriptor(owning: opened)
    case .temporary(let folder):
      path = folder + "/(temporary file)"
      do { descriptor = try UnixDescriptor(temporaryIn: folder, bypassingPageCache: false) } catch {
        throw .io(error)
      }
    }
    self.geometry = geometry
    self.faults = faults
    generator = SeededGenerator(seed: faults.seed)
  }

  /// Writes a page's spare area: `bytes` hold page and spare area.
  func seal(_ bytes: UnsafeMutableRawPointer, logicalPage: Int) {
    let spare = bytes + geometry.pageByteCount
    spare.storeBytes(of: checksum(bytes, logicalPage: logicalPage), as: UInt64.self)
  }

  /// Programs a whole erased block.
  ///
  /// - Parameter bytes: [pagesPerBlock] pages with their spare areas, sealed where they are in use.
  mutating func program(block: Int, _ bytes: UnsafeRawPointer) throws(DriveError) {
    let byteCount = geometry.pagesPerBlock * stride
    let offset = block * byteCount
    var written = 0
    while written < byteCount {
      let result = SystemCalls.write(
        descriptor.rawValue,
        UnsafeRawBufferPointer(start: bytes + written, count: byteCount - written),
        at: offset + written)
      if result == -Int(EINTR) { continue }
      guard result > 0 else {
        throw .io(
          BlockIOError(
            .write, path: path, offset: offset + written, byteCount: byteCount - written,
            reason: .system(errno: result < 0 ? Int32(-result) : ENOSPC)))
      }
      written += result
    }
    counts.pagesProgrammed += geometry.pagesPerBlock
    counts.bytesProgrammed += geometry.pagesPerBlock * geometry.pageByteCount
  }

  mutating func noteErase() { counts.blocksErased += 1 }

  mutating func noteMove() { counts.pagesMoved += 1 }

  /// Reads one page, retrying within the limit.
  ///
  /// - Parameter bytes: room for page and spare area.
  mutating func read(
    page: Int, logicalPage: Int, into bytes: UnsafeMutableRawPointer
  ) throws(DriveError) {
    counts.pagesRead += 1
    for attempt in 0...faults.retryLimit {
      if attempt > 0 { counts.readRetries += 1 }
      try fetch(page: page, into: bytes)
      if faults.bitErrorRate > 0 { applyErrors(to: bytes, attempt: attempt) }
      let spare = bytes + geometry.pageByteCount
      if spare.load(as: UInt64.self) == checksum(bytes, logicalPage: logicalPage) { return }
    }
    counts.uncorrectablePages += 1
    throw .uncorrectable(geometry.address(ofPage: page))
  }

  private func fetch(page: Int, into bytes: UnsafeMutableRawPointer) throws(DriveError) {
    var done = 0
    while done < stride {
      let result = SystemCalls.read(
        descriptor.rawValue,
        into: UnsafeMutableRawBufferPointer(start: bytes + done, count: stride - done),
        at: page * stride + done)
      if result == -Int(EINTR) { continue }
      guard result >= 0 else {
        throw .io(
          BlockIOError(
            .read, path: path, offset: page * stride + done, byteCount: stride - done,
            reason: .system(errno: Int32(-result))))
      }
      // A file that somebody cut off reads as erased flash.
      guard result > 0 else {
        memset(bytes + done, 0xFF, stride - done)
        return
      }
      done += result
    }
  }

  /// Flips bits as often as a read meets errors, then back where the code corrects them.
  private mutating func applyErrors(to bytes: UnsafeMutableRawPointer, attempt: Int) {
    let bitCount = 8 * stride
    let expected = Double(bitCount) * faults.bitErrorRate / Double(1 << min(attempt, 60))
    flipped.removeAll(keepingCapacity: true)
    // Errors are a Poisson process along the page: distances between them are exponential.
    var position = 0.0
    while true {
      position -= log(1 - generator.nextUnit()) / expected
      guard position < 1 else { break }
      flipped.append(Int32(position * Double(bitCount)))
    }
    for bit in flipped { flip(bit, of: bytes) }
    guard flipped.count <= faults.correctableBitsPerKiB * max(1, geometry.pageByteCount >> 10)
    else { return }
    for bit in flipped { flip(bit, of: bytes) }
    counts.bitsCorrected += flipped.count
  }

  private func flip(_ bit: Int32, of bytes: UnsafeMutableRawPointer) {
    let byte = bytes + Int(bit / 8)
    byte.storeBytes(of: byte.load(as: UInt8.self) ^ 1 << UInt8(bit % 8), as: UInt8.self)
  }

  /// XXH3-64 of a page, seeded with its logical number.
  private func checksum(_ bytes: UnsafeRawPointer, logicalPage: Int) -> UInt64 {
    Checksum.of(
      UnsafeRawBufferPointer(start: bytes, count: geometry.pageByteCount),
      seed: UInt64(logicalPage))
  }
}
