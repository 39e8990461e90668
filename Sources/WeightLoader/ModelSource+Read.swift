import BlockIO
import ModelFormat
import TensorBasics

extension ModelSource {
  /// Reads small tensors whole and hands each one's bytes to `use`, in the order of the file.
  ///
  /// For vectors that a program keeps; matrices belong in a ``WeightStream``. Reads go out in waves
  /// of at most 1 MiB, or one read where it is larger. An image's extents are read whole and checked.
  ///
  /// - Parameters:
  ///   - tensors: indexes into `description.tensors`.
  ///   - use: index into `tensors`, address of the tensor's first byte; parts of a stacked tensor are
  ///     as far apart as in the file.
  /// - Throws: ``LoaderError/io(_:)``; ``LoaderError/format(_:)`` if the file has become shorter or
  ///   is damaged.
  package func readTensors(
    _ tensors: [Int], _ use: (_ index: Int, _ address: UnsafeRawPointer) -> Void
  ) throws(LoaderError) {
    precondition(device.inFlight == 0, "the device is in use")
    let regions = regions(of: tensors)
    let verifier = try ExtentVerifier(description)
    var first = 0
    while first < regions.count {
      var end = first
      var byteCount = 0
      while end < regions.count, end - first < device.capacity,
        end == first || byteCount + regions[end].extent.byteCount <= 1 << 20
      {
        byteCount += regions[end].extent.byteCount
        end += 1
      }
      let buffer: AlignedBuffer
      do { buffer = try AlignedBuffer(byteCount: byteCount) } catch { throw .allocation(error) }
      let wave = regions[first..<end]
      do throws(LoaderError) { try readWave(wave.map(\.extent), into: buffer.address) } catch {
        device.drain()
        throw error
      }
      var address = buffer.address
      for region in wave {
        if let whole = region.wholeExtents { try verifier?.check(whole, at: address) }
        for index in region.tensors {
          use(index, address + (description.tensors[tensors[index]].offset - region.extent.offset))
        }
        address += region.extent.byteCount
      }
      first = end
    }
  }

  /// What one read brings: a range, and which of the tensors asked for lie in it.
  private struct Region {
    var extent: Extent
    var tensors: [Int]
    /// The extents of an image that the range consists of.
    var wholeExtents: Range<Int>?
  }

  /// The reads that bring `tensors`: each one's aligned range, for an image widened to whole extents
  /// and joined where they meet.
  private func regions(of tensors: [Int]) -> [Region] {
    let order = tensors.indices.sorted {
      let (left, right) = (description.tensors[tensors[$0]], description.tensors[tensors[$1]])
      return (left.fileIndex, left.offset) < (right.fileIndex, right.offset)
    }
    var regions: [Region] = []
    for index in order {
      let extent = alignedExtent(of: description.tensors[tensors[index]])
      guard let (whole, range) = ExtentVerifier.wholeExtents(around: extent, in: description)
      else {
        regions.append(Region(extent: extent, tensors: [index]))
        continue
      }
      if let last = regions.last, let before = last.wholeExtents,
        whole.lowerBound < before.upperBound
      {
        let end = max(range.endOffset, last.extent.endOffset)
        regions[regions.count - 1].extent.byteCount = end - last.extent.offset
        regions[regions.count - 1].wholeExtents =
          before.lowerBound..<max(before.upperBound, whole.upperBound)
        regions[regions.count - 1].tensors.append(index)
      } else {
        regions.append(Region(extent: range, tensors: [index], wholeExtents: whole))
      }
    }
    return regions
  }

  /// Reads `extents` one after the other to `address` and waits for all of them.
  private func readWave(
    _ extents: [Extent], into address: UnsafeMutableRawPointer
  ) throws(LoaderError) {
    var destination = address
    do throws(BlockIOError) {
      for (index, extent) in extents.enumerated() {
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
      let completion: ReadCompletion
      do { completion = try device.nextCompletion() } catch { throw .io(error) }
      let extent = extents[Int(completion.tag)]
      let fileByteCount = device.fileByteCounts[extent.fileIndex]
      guard completion.byteCount >= min(extent.byteCount, fileByteCount - extent.offset) else {
        throw .format(
          FormatError(
            .truncated, at: extent.offset + completion.byteCount,
            path: description.files[extent.fileIndex],
            "the file ends here; it was complete when it was opened"))
      }
    }
  }

  /// The aligned range of the file that holds a tensor.
  private func alignedExtent(of record: TensorRecord) -> Extent {
    let alignment = device.alignment
    let start = record.offset / alignment * alignment
    let end = (record.byteSpan.upperBound + alignment - 1) / alignment * alignment
    return Extent(fileIndex: record.fileIndex, offset: start, byteCount: end - start)
  }
}
