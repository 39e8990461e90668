import Kernels
import ModelFormat
import TensorBasics

/// What scans need of rows that are verified to take in those that turn out right: their inputs, as products gave them.
///
/// Beside them, each worker has a copy of the part of a state that it goes through such rows with.
final class ScanOperands {
  /// Most rows of a sweep that are kept.
  let rowCapacity: Int

  private let layers: [Layer]
  private let workers: UnsafeMutablePointer<Float>
  private let workerStride: Int
  private let historyCount: Int
  private let memory: PartitionedBuffer

  private struct Layer {
    let channels: UnsafeMutablePointer<Float>  // [rowCapacity, channelCount]
    let gates: UnsafeMutablePointer<Float>  // [rowCapacity, gateCount]
  }

  /// - Parameters:
  ///   - scans: of the layers that scan, in their order.
  ///   - channelsAtOnce: those that a worker convolves at once.
  /// - Throws: ``AllocationError``.
  init(
    _ scans: [ScanSpec], rowCapacity: Int, channelsAtOnce: Int, threadCount: Int
  ) throws(AllocationError) {
    self.rowCapacity = rowCapacity
    let memory = try PartitionedBuffer(
      Self.sizes(
        scans, rowCapacity: rowCapacity, channelsAtOnce: channelsAtOnce, threadCount: threadCount))
    layers = scans.indices.map {
      Layer(
        channels: memory.pointer(1 + 2 * $0, as: Float.self),
        gates: memory.pointer(2 + 2 * $0, as: Float.self))
    }
    workers = memory.pointer(0, as: Float.self)
    historyCount = Self.historyCount(scans, channelsAtOnce: channelsAtOnce)
    workerStride = historyCount + Self.stateCount(scans)
    self.memory = memory
  }

  /// Memory of it.
  static func byteCount(
    _ scans: [ScanSpec], rowCapacity: Int, channelsAtOnce: Int, threadCount: Int
  ) -> Int {
    PartitionedBuffer.byteCount(
      sizes(
        scans, rowCapacity: rowCapacity, channelsAtOnce: channelsAtOnce, threadCount: threadCount))
  }

  private static func sizes(
    _ scans: [ScanSpec], rowCapacity: Int, channelsAtOnce: Int, threadCount: Int
  ) -> [Int] {
    let worker = historyCount(scans, channelsAtOnce: channelsAtOnce) + stateCount(scans)
    return [PartitionedBuffer.roundedUp(4 * threadCount * worker)]
      + scans.flatMap {
        [
          PartitionedBuffer.roundedUp(4 * rowCapacity * $0.channelCount),
          PartitionedBuffer.roundedUp(4 * rowCapacity * $0.gateCount),
        ]
      }
  }

  private static func historyCount(_ scans: [ScanSpec], channelsAtOnce: Int) -> Int {
    (scans.map(\.tapCount).max() ?? 1) * channelsAtOnce
  }

  private static func stateCount(_ scans: [ScanSpec]) -> Int {
    scans.map(\.headStateCount).max() ?? 0
  }

  /// Channels of a row of a layer, before the convolution [channelCount]; those of the next row follow.
  func channels(_ layer: Int, row: Int, _ spec: ScanSpec) -> UnsafeMutablePointer<Float> {
    layers[layer].channels + row * spec.channelCount
  }

  /// Decays and β of a row of a layer [gateCount]; those of the next row follow.
  func gates(_ layer: Int, row: Int, _ spec: ScanSpec) -> UnsafeMutablePointer<Float> {
    layers[layer].gates + row * spec.gateCount
  }

  /// Room for what a convolution remembers of the channels that a worker takes at once.
  func history(ofWorker worker: Int) -> UnsafeMutablePointer<Float> {
    workers + worker * workerStride
  }

  /// Room for a head's state.
  func state(ofWorker worker: Int) -> UnsafeMutablePointer<Float> {
    history(ofWorker: worker) + historyCount
  }
}
