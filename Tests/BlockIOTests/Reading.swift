import BlockIO
import TensorBasics
import TestSupport
import Testing

/// Every way of reading, with the faults of `hooks`.
let backends: [StorageBackend] = [.uring, .pread, .mmap]

func randomBytes(_ count: Int, seed: UInt64) -> [UInt8] {
  var generator = SeededGenerator(seed: seed)
  return (0..<count).map { _ in UInt8(truncatingIfNeeded: generator.next()) }
}

/// Reads `extents` through `device`, as many at a time as it takes; bytes by extent.
func readAll(_ extents: [Extent], of device: any BlockDevice) throws -> [[UInt8]] {
  let slot = AlignedBuffer.roundedUp(extents.map(\.byteCount).max() ?? 1)
  let buffer = try AlignedBuffer(byteCount: slot * extents.count)
  // The buffer is lent to reads in flight, also where one of them fails.
  defer { device.drain() }
  var results = [[UInt8]](repeating: [], count: extents.count)
  var submitted = 0
  while submitted < extents.count || device.inFlight > 0 {
    while submitted < extents.count, device.inFlight < device.capacity {
      let extent = extents[submitted]
      try device.submit(
        ReadRequest(
          fileIndex: extent.fileIndex, offset: extent.offset,
          destination: UnsafeMutableRawBufferPointer(
            start: buffer.address + submitted * slot, count: extent.byteCount),
          tag: UInt64(submitted)))
      submitted += 1
    }
    try device.flush()
    guard let completion = try device.reap(waiting: true, timeoutMilliseconds: nil) else {
      continue
    }
    let index = Int(completion.tag)
    let bytes = UnsafeRawBufferPointer(
      start: buffer.address + index * slot, count: extents[index].byteCount)
    results[index] = Array(bytes[..<completion.byteCount])
    #expect(bytes[completion.byteCount...].allSatisfy { $0 == 0 }, "what is past the end is zero")
  }
  return results
}

/// Random aligned extents of a file of `fileByteCount` bytes; some reach past its end.
func randomExtents(
  _ count: Int, fileByteCount: Int, alignment: Int, using generator: inout SeededGenerator
) -> [Extent] {
  (0..<count).map { _ in
    let start = Int.random(in: 0..<fileByteCount, using: &generator) / alignment * alignment
    let blocks = Int.random(in: 1...max(1, 40_000 / alignment), using: &generator)
    return Extent(fileIndex: 0, offset: start, byteCount: blocks * alignment)
  }
}
