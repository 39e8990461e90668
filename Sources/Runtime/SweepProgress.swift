import BlockIO
import Synchronization

/// How far the sweep under way is: an engine's thread writes it, any thread reads it.
final class SweepProgress: Sendable {
  /// Parts that it has passed, two of each layer; -1 between sweeps.
  private let partCount = Atomic(-1)
  private let bytesRead = Atomic(0)
  private let driveNanoseconds = Atomic(0)

  /// A sweep begins.
  func begin() { partCount.store(0, ordering: .relaxed) }

  /// It has passed another part.
  ///
  /// - Parameter device: what the model's device has done.
  func notePart(_ device: IOStatistics) {
    partCount.add(1, ordering: .relaxed)
    note(device)
  }

  /// It has ended.
  func end(_ device: IOStatistics) {
    partCount.store(-1, ordering: .relaxed)
    note(device)
  }

  private func note(_ device: IOStatistics) {
    bytesRead.store(device.bytesRead, ordering: .relaxed)
    driveNanoseconds.store(device.busyNanoseconds, ordering: .relaxed)
  }

  /// Fills in what is live.
  func fill(_ statistics: inout EngineStatistics) {
    let count = partCount.load(ordering: .relaxed)
    statistics.passedLayerCount = count < 0 ? nil : count / 2
    statistics.bytesRead = bytesRead.load(ordering: .relaxed)
    statistics.driveNanoseconds = driveNanoseconds.load(ordering: .relaxed)
  }
}
