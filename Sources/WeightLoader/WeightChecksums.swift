import BlockIO
import ModelFormat
import TensorBasics

/// XXH3-64 of each MiB of a model's weights, as far as they were read.
struct WeightChecksums {
  /// A part of a tensor and where it lies; in the order of ``ModelIdentity/order(_:)``.
  let parts: [Extent]
  /// Checksums of the first parts.
  private(set) var known: [UInt64] = []

  /// - Parameter regions: what each tensor takes of its file.
  init(regions: [Extent]) {
    let step = ModelIdentity.partByteCount
    parts = regions.flatMap { region in
      stride(from: 0, to: region.byteCount, by: step).map { start in
        Extent(
          fileIndex: region.fileIndex, offset: region.offset + start,
          byteCount: min(step, region.byteCount - start))
      }
    }
  }

  /// - Parameter tensors: in any order; each one's bytes lie together.
  init(_ tensors: [TensorRecord]) {
    self.init(
      regions: ModelIdentity.order(tensors).map {
        Extent(fileIndex: $0.fileIndex, offset: $0.offset, byteCount: $0.byteCount)
      })
  }

  var isComplete: Bool { known.count == parts.count }
  var byteCount: Int { parts.reduce(0) { $0 + $1.byteCount } }

  /// A number that distinguishes these parts from those of another layout.
  var layoutChecksum: UInt64 {
    var bytes: [UInt8] = []
    for part in parts {
      for number in [part.fileIndex, part.offset, part.byteCount] {
        bytes.appendLittleEndian(number)
      }
    }
    return bytes.withUnsafeBytes(Checksum.of)
  }

  /// Takes over what was remembered, if it fits these parts.
  mutating func resume(_ remembered: [UInt64]) {
    if remembered.count <= parts.count { known = remembered }
  }

  /// Bytes of memory that reading takes.
  static func memoryByteCount(slotCount: Int) -> Int { slotCount * slotByteCount }

  private static let slotByteCount =
    AlignedBuffer.roundedUp(ModelIdentity.partByteCount) + 2 * FlashImage.alignment

  /// Reads on after what is known, to the end or until `mayGoOn` says no.
  ///
  /// - Parameters:
  ///   - slotCount: reads in flight, of a MiB each.
  ///   - mayGoOn: is asked before each read.
  /// - Throws: ``LoaderError/io(_:)``; ``LoaderError/format(_:)`` if the file has become shorter.
  mutating func read(
    _ device: any BlockDevice, paths: [String], slotCount: Int, mayGoOn: () -> Bool
  ) throws(LoaderError) {
    precondition(device.inFlight == 0, "the device is in use")
    let slotCount = min(slotCount, device.capacity)
    let buffer: AlignedBuffer
    do { buffer = try AlignedBuffer(byteCount: slotCount * Self.slotByteCount) } catch {
      throw .allocation(error)
    }
    let slots = PartSlots(
      address: buffer.address, count: slotCount, byteCount: Self.slotByteCount,
      alignment: max(device.alignment, 1))
    var found = [Int?](repeating: nil, count: slotCount)
    var next = known.count
    var goesOn = true
    do throws(LoaderError) {
      while true {
        while goesOn, next < parts.count, next - known.count < slotCount {
          goesOn = mayGoOn()
          guard goesOn else { break }
          do { try device.submit(slots.request(parts[next], number: next)) } catch {
            throw .io(error)
          }
          next += 1
        }
        guard next > known.count else { return }
        let completion: ReadCompletion?
        do {
          try device.flush()
          completion = try device.reap(waiting: true, timeoutMilliseconds: 100)
        } catch { throw .io(error) }
        if let completion { found[Int(completion.tag) % slotCount] = completion.byteCount }
        while next > known.count, let byteCount = found[known.count % slotCount] {
          found[known.count % slotCount] = nil
          known.append(
            try slots.checksum(parts[known.count], number: known.count, byteCount, paths: paths))
        }
      }
    } catch {
      device.drain()
      throw error
    }
  }
}

/// Where parts are read to.
private struct PartSlots {
  let address: UnsafeMutableRawPointer
  let count: Int
  let byteCount: Int
  let alignment: Int

  func request(_ part: Extent, number: Int) -> ReadRequest {
    let range = part.aligned(to: alignment)
    return ReadRequest(
      fileIndex: range.fileIndex, offset: range.offset,
      destination: UnsafeMutableRawBufferPointer(
        start: address + number % count * byteCount, count: range.byteCount), tag: UInt64(number))
  }

  /// The checksum of a part that was read, where `found` bytes came from the file.
  func checksum(
    _ part: Extent, number: Int, _ found: Int, paths: [String]
  ) throws(LoaderError) -> UInt64 {
    let range = part.aligned(to: alignment)
    let start = part.offset - range.offset
    guard found >= start + part.byteCount else {
      throw .format(
        FormatError(
          .truncated, at: range.offset + found, path: paths[part.fileIndex],
          "the file ends inside a tensor; it was complete when it was opened"))
    }
    return Checksum.of(
      UnsafeRawBufferPointer(
        start: address + number % count * byteCount + start, count: part.byteCount))
  }
}
