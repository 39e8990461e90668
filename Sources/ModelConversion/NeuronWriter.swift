import BlockIO
import Glibc
import Kernels
import ModelFormat
import TensorBasics
import WeightLoader

/// How much memory bundles of neurons are built in, about.
package struct NeuronBuffers: Sendable {
  /// Columns of a down matrix.
  package var sliceByteCount = 40 << 20
  /// Bundles that are written together.
  package var chunkByteCount = 6 << 20

  package init() {}
}

/// Writes one layer's FFN in bundles of neurons (`docs/format.md`, section 6): its checksums, then its
/// bundles.
///
/// Of the down matrix it keeps a slice in memory, the columns of as many neurons as fit; it builds
/// bundles from that and from a few rows of gate and up at a time.
final class NeuronWriter {
  private let bundles: NeuronBundles
  private let down: TensorRecord
  private let columns: NeuronColumnWriter
  /// The parts that hold rows of the source.
  private let rowParts: [RowPart]
  private let sliceNeuronCount: Int
  private let chunkNeuronCount: Int
  private let memory: AlignedBuffer
  private let slice: UnsafeMutableRawPointer
  /// Rows of gate or up, as the source has them.
  private let rows: UnsafeMutableRawPointer
  /// The bundles of a chunk; padding stays zero.
  private let output: UnsafeMutableRawPointer
  private var checksums: [UInt8] = []

  private struct RowPart {
    let source: TensorRecord
    /// Where in a bundle it begins.
    let offset: Int
    let byteCount: Int
    let encoder: TensorEncoder
  }

  /// - Parameters:
  ///   - sources: gate, up and down as the source has them.
  ///   - pool: converts rows of gate and up.
  init(
    _ bundles: NeuronBundles, sources: [NeuronBundles.Role: TensorRecord],
    buffers: NeuronBuffers, _ pool: ThreadPool
  ) throws(ConversionError) {
    guard let down = sources[.down], let downPart = bundles.part(.down)?.part else {
      throw .notPossible("the source has no down matrix")
    }
    let neurons = bundles.neuronsPerBundle
    let block = down.type.blockElementCount
    // Neurons that cannot be taken apart.
    let unit = max(neurons, block)
    let length = down.columnCount
    chunkNeuronCount = min(
      length, max(1, buffers.chunkByteCount / bundles.byteStride * neurons / unit) * unit)
    if down.byteCount <= buffers.sliceByteCount {
      sliceNeuronCount = length
    } else {
      let rowByteCount = min(buffers.sliceByteCount / down.rowCount, PieceReader.pieceByteLimit)
      let blockCount = rowByteCount / down.type.blockByteCount
      sliceNeuronCount = min(length, max(1, blockCount * block / unit) * unit)
    }
    var parts: [RowPart] = []
    var rowByteCount = 0
    for part in bundles.parts where part.role != .down {
      guard let source = sources[part.role], let place = bundles.part(part.role) else {
        throw .notPossible("the source has no \(part.role.rawValue) matrix")
      }
      var target = source
      target.type = part.type
      target.layout = neurons == 1 ? .rowMajor : .interleaved
      parts.append(
        RowPart(
          source: source, offset: place.offset, byteCount: part.byteCount,
          encoder: try TensorEncoder(
            from: source, to: target, rowCapacity: chunkNeuronCount, pool: pool)))
      rowByteCount = max(rowByteCount, source.byteCount / source.rowCount)
    }
    columns = try NeuronColumnWriter(
      down: down, part: downPart, neuronsPerBundle: neurons, chunkNeuronCount: chunkNeuronCount)
    let sliceByteCount = AlignedBuffer.roundedUp(
      down.rowCount * (sliceNeuronCount / block * down.type.blockByteCount))
    let rowsByteCount = AlignedBuffer.roundedUp(chunkNeuronCount * rowByteCount)
    let outputByteCount = chunkNeuronCount / neurons * bundles.byteStride
    do {
      memory = try AlignedBuffer(byteCount: sliceByteCount + rowsByteCount + outputByteCount)
    } catch { throw .allocation(error) }
    slice = memory.address
    rows = slice + sliceByteCount
    output = rows + rowsByteCount
    rowParts = parts
    self.bundles = bundles
    self.down = down
  }

  /// Sums of squares over columns that were requantised: of differences, and of values.
  var squares: (error: Double, norm: Double) { (columns.squaredError, columns.squaredNorm) }

  /// Writes the layer.
  ///
  /// - Parameter progress: called after each chunk; it may throw to stop.
  func write(
    _ reader: borrowing PieceReader, to writer: inout ImageWriter,
    progress: (_ byteCount: Int) throws(ConversionError) -> Void
  ) throws(ConversionError) {
    do { try writer.pad(to: bundles.checksumOffset) } catch { throw .io(error) }
    writer.skip(to: bundles.offset)
    checksums.reserveCapacity(bundles.offset - bundles.checksumOffset)
    for first in stride(from: 0, to: down.columnCount, by: sliceNeuronCount) {
      let end = min(first + sliceNeuronCount, down.columnCount)
      let rowByteCount = sliceRowByteCount(end - first)
      try reader.read(
        fileIndex: down.fileIndex, offset: down.offset + sliceRowByteCount(first),
        pieceByteCount: rowByteCount, stride: down.byteCount / down.rowCount,
        count: down.rowCount, into: slice)
      try reader.source.checkFinite(down, rows: 0..<down.rowCount, columns: first..<end, slice)
      for start in stride(from: first, to: end, by: chunkNeuronCount) {
        let neurons = start..<min(start + chunkNeuronCount, end)
        try build(neurons, sliceStart: first, rowByteCount, reader)
        let byteCount = neurons.count / bundles.neuronsPerBundle * bundles.byteStride
        do throws(BlockIOError) {
          try writer.append(UnsafeRawBufferPointer(start: output, count: byteCount))
        } catch { throw .io(error) }
        try progress(writer.offset)
      }
    }
    checksums += repeatElement(0, count: bundles.offset - bundles.checksumOffset - checksums.count)
    do throws(BlockIOError) { try writer.fill(checksums, at: bundles.checksumOffset) } catch {
      throw .io(error)
    }
  }

  private func sliceRowByteCount(_ neuronCount: Int) -> Int {
    neuronCount / down.type.blockElementCount * down.type.blockByteCount
  }

  /// Puts the bundles of `neurons` into ``output`` and their checksums after the others.
  private func build(
    _ neurons: Range<Int>, sliceStart: Int, _ rowByteCount: Int, _ reader: borrowing PieceReader
  ) throws(ConversionError) {
    let (count, stride) = (neurons.count / bundles.neuronsPerBundle, bundles.byteStride)
    for part in rowParts {
      let sourceRow = part.source.byteCount / part.source.rowCount
      try reader.read(
        fileIndex: part.source.fileIndex,
        offset: part.source.offset + neurons.lowerBound * sourceRow, pieceByteCount: sourceRow,
        stride: sourceRow, count: neurons.count, into: rows)
      try reader.source.checkFinite(part.source, rows: neurons, rows)
      let encoded = try part.encoder.encode(
        rows, firstRow: neurons.lowerBound, rowCount: neurons.count)
      guard let address = encoded.baseAddress else { continue }
      for bundle in 0..<count {
        memcpy(
          output + bundle * stride + part.offset, address + bundle * part.byteCount,
          part.byteCount)
      }
    }
    try columns.write(
      slice, rowByteCount: rowByteCount, first: neurons.lowerBound - sliceStart,
      count: neurons.count, to: output + (bundles.part(.down)?.offset ?? 0),
      stride: stride)
    let prefix = bundles.prefixByteCount
    for bundle in 0..<count {
      let bytes = UnsafeRawBufferPointer(
        start: output + bundle * stride, count: bundles.byteCount)
      for part in [bytes[..<prefix], bytes[prefix...]] {
        let checksum = Checksum.of(UnsafeRawBufferPointer(rebasing: part))
        withUnsafeBytes(of: UInt32(truncatingIfNeeded: checksum).littleEndian) { checksums += $0 }
      }
    }
  }
}
