import BlockIO
import CommandLineSupport
import HostResources
import KVCache
import Runtime
import TensorBasics
import WeightLoader

/// What a session has counted so far; the difference of two says what the tokens between them took.
struct DecodeCounters {
  private let session: Session
  private let io: IOStatistics
  private let kernelByteCount = ProcessMemory.storageReadByteCount
  private let times: TimeBreakdown
  private let bundles: BundleStatistics
  private let neurons: NeuronStatistics
  private let keyValues: KeyValueStore.Statistics
  private let keyValueReads: IOStatistics

  init(_ session: Session) {
    self.session = session
    io = session.stream.source.device.statistics
    times = session.times
    bundles = session.stream.bundleStatistics
    neurons = session.stream.neuronStatistics
    keyValues = session.keyValues.statistics
    keyValueReads = session.keyValues.pool.readStatistics
  }

  /// What `tokens` decoded since `before` took, in all `seconds`.
  func figures(since before: DecodeCounters, tokens: Int, seconds: Double) -> [Figure] {
    let read = io.since(before.io)
    let count = Double(tokens)
    let keyValueReads = keyValueReads.since(before.keyValueReads)
    let residency = session.plan.residency
    return [
      Figure("bytesPerToken", Double(read.bytesRead) / count, .bytes),
      Figure("driveBytesPerSecond", Double(read.bytesRead) / seconds, .bytesPerSecond),
      Figure(
        "kernelReadBytesPerSecond", Double(kernelByteCount - before.kernelByteCount) / seconds,
        .bytesPerSecond),
      Figure("requestsPerToken", Double(read.requests) / count, .number),
      Figure("pinnedBytes", residency.pinnedByteCount, .bytes),
      Figure("streamedBytes", residency.streamedByteCount, .bytes),
      Figure(
        "kvBytesPerToken", Double(keyValues.bytesRead - before.keyValues.bytesRead) / count,
        .bytes),
      Figure(
        "kvBytesWrittenPerToken", Double(keyValues.bytesWritten) / Double(session.position),
        .bytes),
      Figure("kvDriveBytesPerSecond", keyValueReads.bytesPerSecond, .bytesPerSecond),
      Figure("kvQueueDepth", keyValueReads.meanQueueDepth, .number),
      Figure("kvResidentFraction", keyValues.residentFraction, .fraction, "of the rows"),
      Figure("peakResidentBytes", ProcessMemory.peakResidentByteCount, .bytes),
    ] + Figure.bundles(bundles, since: before.bundles, tokens: tokens)
      + Figure.neurons(neurons - before.neurons, session.plan, tokens: tokens)
      + Figure.shares(of: seconds, times - before.times)
  }
}
