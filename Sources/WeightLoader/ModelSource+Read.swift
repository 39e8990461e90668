import BlockIO
import ModelFormat
import TensorBasics

extension ModelSource {
  /// Reads small tensors whole and hands each one's bytes to `use`, in order.
  ///
  /// For vectors that a program keeps; matrices belong in a ``WeightStream``. Reads go out in waves
  /// of at most 1 MiB, or one tensor where it is larger.
  ///
  /// - Parameters:
  ///   - tensors: indexes into `description.tensors`.
  ///   - use: index into `tensors`, address of the tensor's first byte.
  /// - Throws: ``LoaderError/io(_:)``; ``LoaderError/format(_:)`` where the file has become shorter.
  public func readTensors(
    _ tensors: [Int], _ use: (_ index: Int, _ address: UnsafeRawPointer) -> Void
  ) throws(LoaderError) {
    precondition(device.inFlight == 0, "the device is in use")
    let extents = tensors.map { alignedExtent(of: description.tensors[$0]) }
    var first = 0
    while first < tensors.count {
      var end = first
      var byteCount = 0
      while end < tensors.count, end - first < device.capacity,
        end == first || byteCount + extents[end].byteCount <= 1 << 20
      {
        byteCount += extents[end].byteCount
        end += 1
      }
      let buffer: AlignedBuffer
      do { buffer = try AlignedBuffer(byteCount: byteCount) } catch { throw .allocation(error) }
      try readWave(extents[first..<end], tensors: tensors, into: buffer.address)
      var address = buffer.address
      for index in first..<end {
        use(index, address + (description.tensors[tensors[index]].offset - extents[index].offset))
        address += extents[index].byteCount
      }
      first = end
    }
  }

  /// Reads `extents` one behind the other to `address` and waits for all of them.
  private func readWave(
    _ extents: ArraySlice<Extent>, tensors: [Int], into address: UnsafeMutableRawPointer
  ) throws(LoaderError) {
    var destination = address
    do throws(BlockIOError) {
      for (index, extent) in zip(extents.indices, extents) {
        try device.submit(
          ReadRequest(
            fileIndex: extent.fileIndex, offset: extent.offset,
            destination: UnsafeMutableRawBufferPointer(
              start: destination, count: extent.byteCount), tag: UInt64(index)))
        destination += extent.byteCount
      }
      try device.flush()
    } catch { throw .io(error) }
    while device.inFlight > 0 {
      let completion: ReadCompletion?
      do { completion = try device.reap(waiting: true, timeoutMilliseconds: nil) } catch {
        throw .io(error)
      }
      guard let completion else { continue }
      let index = Int(completion.tag)
      let record = description.tensors[tensors[index]]
      let needed = record.offset + record.byteCount - extents[index].offset
      guard completion.byteCount >= needed else {
        throw .format(truncation(in: record, at: extents[index].offset + completion.byteCount))
      }
    }
  }

  /// The aligned range of the file that holds a tensor.
  private func alignedExtent(of record: TensorRecord) -> Extent {
    let alignment = device.alignment
    let start = record.offset / alignment * alignment
    let end = (record.offset + record.byteCount + alignment - 1) / alignment * alignment
    return Extent(fileIndex: record.fileIndex, offset: start, byteCount: end - start)
  }

  /// The error for a file that is shorter than when it was opened.
  func truncation(in record: TensorRecord, at offset: Int) -> FormatError {
    FormatError(
      .truncated, at: offset, path: description.files[record.fileIndex],
      "the file ends inside tensor '\(record.name)'; it was complete when it was opened")
  }
}
