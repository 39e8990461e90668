import BlockIO
import ModelFormat
public import TensorBasics

extension ModelSource {
  /// Reads every extent and compares it with its checksum.
  ///
  /// - Parameter progress: is told how many bytes were compared so far.
  /// - Throws: ``LoaderError/format(_:)`` with the offset of the first extent that differs.
  public func verifyExtents(
    cancellation: CancellationFlag = CancellationFlag(),
    progress: (_ byteCount: Int) -> Void = { _ in }
  ) throws(LoaderError) {
    precondition(device.inFlight == 0, "the device is in use")
    let extents = description.extents
    let slotByteCount = AlignedBuffer.roundedUp(extents.map(\.byteCount).max() ?? 1)
    let slotCount = max(1, min(8, device.capacity, (32 << 20) / slotByteCount))
    let buffer: AlignedBuffer
    do { buffer = try AlignedBuffer(byteCount: slotCount * slotByteCount) } catch {
      throw .allocation(error)
    }
    var freeSlots = Array(0..<slotCount)
    var slotOfExtent: [Int: Int] = [:]
    var submitted = 0
    var comparedByteCount = 0
    var failure: FormatError?
    while submitted < extents.count || device.inFlight > 0 {
      do throws(BlockIOError) {
        while failure == nil, submitted < extents.count, let slot = freeSlots.popLast() {
          slotOfExtent[submitted] = slot
          try device.submit(
            ReadRequest(
              fileIndex: 0, offset: extents[submitted].offset,
              destination: UnsafeMutableRawBufferPointer(
                start: buffer.address + slot * slotByteCount, count: extents[submitted].byteCount),
              tag: UInt64(submitted)))
          submitted += 1
        }
        try device.flush()
        guard device.inFlight > 0 else { break }
        guard let completion = try device.reap(waiting: true, timeoutMilliseconds: 100) else {
          if cancellation.isRaised { submitted = extents.count }
          continue
        }
        let index = Int(completion.tag)
        let slot = slotOfExtent.removeValue(forKey: index)!
        let bytes = UnsafeRawBufferPointer(
          start: buffer.address + slot * slotByteCount, count: completion.byteCount)
        if completion.byteCount != extents[index].byteCount
          || Checksum.of(bytes) != extents[index].checksum
        {
          failure =
            failure
            ?? ExtentVerifier.mismatch(extents[index], of: description, path: path)
        }
        comparedByteCount += completion.byteCount
        progress(comparedByteCount)
        freeSlots.append(slot)
        if cancellation.isRaised { submitted = extents.count }
      } catch {
        device.drain()
        throw .io(error)
      }
    }
    if let failure { throw .format(failure) }
    if cancellation.isRaised { throw .interrupted }
  }
}
