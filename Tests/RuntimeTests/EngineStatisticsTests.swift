import ModelFormat
import Runtime
import TensorBasics
import TestSupport
import Testing

/// What an engine tells of itself while it works.
@Suite struct EngineStatisticsTests {
  @Test func `Statistics tell where the sweep is, and what was read so far`() throws {
    let rig = try EngineRig()
    rig.contextLength = 8192
    let engine = try rig.engine(sequenceCount: 1)
    #expect(engine.statistics().passedLayerCount == nil)
    let sequence = try engine.open(
      SequenceRequest(tokens: [1, 2, 3], limit: 8000, ignoresEnd: true))
    var (places, last) = (Set<Int>(), engine.statistics())
    while places.isEmpty {
      let now = engine.statistics()
      if let place = now.passedLayerCount { places.insert(place) }
      #expect(now.bytesRead >= last.bytesRead && now.driveNanoseconds >= last.driveNanoseconds)
      last = now
    }
    #expect(places.allSatisfy((0...rig.model.configuration.layerCount).contains))
    sequence.cancel()
    while engine.statistics().passedLayerCount != nil {}
    engine.stop()
    #expect(engine.statistics().bytesRead > 0 && engine.statistics().driveNanoseconds > 0)
    #expect(engine.statistics().expertUseCount == 0)
  }

  @Test func `Statistics count experts and what was written of contexts`() throws {
    let (rig, folder) = (try EngineRig(.withExperts("mixtral")), TemporaryFolder())
    rig.contextLength = 256
    let engine = try rig.engine(sequenceCount: 1, store: Engine.Store(path: folder.path))
    // The first context is kept when it gives its place to the second.
    for first in [Int32(0), 1] {
      let sequence = try engine.open(
        SequenceRequest(
          tokens: (0..<200).map { $0 + first }, limit: 3, ignoresEnd: true), whenFull: .queue)
      while sequence.next() != nil {}
    }
    let statistics = engine.statistics()
    #expect(statistics.expertUseCount > 0)
    #expect((0...statistics.expertUseCount).contains(statistics.expertHitCount))
    #expect(statistics.keyValueBytesWritten > 0)
  }
}
