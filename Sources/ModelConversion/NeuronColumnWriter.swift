import Glibc
import Kernels
import ModelFormat
import TensorBasics

/// Turns columns of a down matrix into parts of bundles: the columns of single neurons as rows, or
/// those of a quant block as row groups.
///
/// It works on a slice of the matrix: all its rows, and of each the columns of some neurons.
final class NeuronColumnWriter {
  private let down: TensorRecord
  private let part: NeuronBundles.Part
  private let neuronsPerBundle: Int
  /// Whether columns are quantised along their own length.
  private let isConverted: Bool
  /// Rows as f32, a few at a time, and then the columns of a chunk of neurons.
  private let scratch: AlignedBuffer
  /// Sums of squares over everything that was requantised: of differences, and of values.
  private(set) var squaredError = 0.0
  private(set) var squaredNorm = 0.0

  /// - Parameter chunkNeuronCount: the most neurons that ``write(_:rowByteCount:first:count:to:stride:)``
  ///   is asked for.
  init(
    down: TensorRecord, part: NeuronBundles.Part, neuronsPerBundle: Int, chunkNeuronCount: Int
  ) throws(ConversionError) {
    self.down = down
    self.part = part
    self.neuronsPerBundle = neuronsPerBundle
    isConverted = neuronsPerBundle == 1 && (down.type.isQuantised || part.type != down.type)
    // The longest group is of the longest blocks; a converted chunk has a tile, columns and one more.
    let floats = (Transposition.tileRowCount + down.rowCount) * chunkNeuronCount + down.rowCount
    do {
      scratch = try AlignedBuffer(
        byteCount: isConverted ? 4 * floats : RowGroup.rowCount * down.type.blockByteCount)
    } catch { throw .allocation(error) }
  }

  /// Writes the parts of `count` neurons to `output`, bundles being `stride` apart.
  ///
  /// - Parameters:
  ///   - slice: the slice's first row.
  ///   - rowByteCount: bytes of a row of the slice.
  ///   - first: the first neuron's place in the slice, a multiple of a block's columns.
  func write(
    _ slice: UnsafeRawPointer, rowByteCount: Int, first: Int, count: Int,
    to output: UnsafeMutableRawPointer, stride: Int
  ) throws(ConversionError) {
    let start = slice + first / down.type.blockElementCount * down.type.blockByteCount
    if neuronsPerBundle > 1 {
      for bundle in 0..<count / neuronsPerBundle {
        interleave(
          start + bundle * down.type.blockByteCount, rowByteCount, to: output + bundle * stride)
      }
    } else if !isConverted {
      Transposition.transpose(
        start, rowByteCount: rowByteCount, rowCount: down.rowCount, columnCount: count,
        elementByteCount: down.type.blockByteCount, to: output, columnByteCount: stride)
    } else {
      try convert(start, rowByteCount, count, to: output, stride)
    }
  }

  private func interleave(
    _ blocks: UnsafeRawPointer, _ rowByteCount: Int, to output: UnsafeMutableRawPointer
  ) {
    let blockByteCount = down.type.blockByteCount
    let groupByteCount = RowGroup.rowCount * blockByteCount
    for group in 0..<RowGroup.groupCount(rows: down.rowCount) {
      let first = group * RowGroup.rowCount
      let rowCount = min(RowGroup.rowCount, down.rowCount - first)
      for row in 0..<rowCount {
        memcpy(
          scratch.address + row * blockByteCount, blocks + (first + row) * rowByteCount,
          blockByteCount)
      }
      Interleaving.interleave(
        rows: scratch.address, rowByteCount: blockByteCount, rowCount: rowCount, type: down.type,
        columnCount: neuronsPerBundle, into: output + group * groupByteCount)
    }
  }

  private func convert(
    _ start: UnsafeRawPointer, _ rowByteCount: Int, _ count: Int,
    to output: UnsafeMutableRawPointer, _ stride: Int
  ) throws(ConversionError) {
    let tile = scratch.elements(of: Float.self).baseAddress.unsafelyUnwrapped
    let columns = tile + Transposition.tileRowCount * count
    let length = down.rowCount
    for first in Swift.stride(from: 0, to: length, by: Transposition.tileRowCount) {
      let rowCount = min(Transposition.tileRowCount, length - first)
      for row in 0..<rowCount {
        Dequantisation.row(
          start + (first + row) * rowByteCount, type: down.type, columnCount: count,
          into: tile + row * count)
      }
      Transposition.transpose(
        UnsafeRawPointer(tile), rowByteCount: 4 * count, rowCount: rowCount, columnCount: count,
        elementByteCount: 4, to: UnsafeMutableRawPointer(columns + first),
        columnByteCount: 4 * length)
    }
    let again = columns + length * count
    for neuron in 0..<count {
      let values = columns + neuron * length
      Quantisation.row(
        values, type: part.type, columnCount: length, into: output + neuron * stride)
      try TensorEncoder.checkScales(
        output + neuron * stride, type: part.type, columnCount: length
      ) { [down] _ in "a column of tensor '\(down.name)'" }
      guard down.type.isQuantised else { continue }
      Dequantisation.row(
        UnsafeRawPointer(output + neuron * stride), type: part.type, columnCount: length,
        into: again)
      var (error, norm) = (0.0, 0.0)
      for index in 0..<length {
        let (value, difference) = (Double(values[index]), Double(values[index] - again[index]))
        error += difference * difference
        norm += value * value
      }
      squaredError += error
      squaredNorm += norm
    }
  }
}
