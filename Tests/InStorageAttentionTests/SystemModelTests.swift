import InStorageAttention
import Testing

@Suite struct SystemModelTests {
  let paper = SystemModel(system: .paper, drive: .paper)
  let sparse = AttentionMode.sparse(compression: 0.125)

  func opt13B(_ batch: Int) -> SystemWorkload {
    SystemWorkload(model: .opt13B, batch: batch, promptLength: 1024, outputLength: 1024)
  }

  @Test func throughputGrowsWithDrives() throws {
    for model in [paper, SystemModel(system: .year2026, drive: .year2026)] {
      for mode in [AttentionMode.dense, sparse] {
        for workload in [
          opt13B(8),
          SystemWorkload(model: .llama3With8B, batch: 3, promptLength: 5000, outputLength: 20),
        ] {
          var last = 0.0
          for count in 1...50 {
            let rate = try model.run(workload, .inStorage(driveCount: count), mode).tokensPerSecond
            #expect(rate >= last * (1 - 1e-9), "\(count) drives")
            last = rate
          }
        }
      }
    }
  }

  @Test func fasterMachinesTakeNoLonger() throws {
    let changes: [(inout SystemModel) -> Void] = [
      { $0.drive.linkBytesPerSecond *= 2 }, { $0.drive.programNanoseconds /= 2 },
      { $0.drive.linkNanoseconds /= 2 }, { $0.system.linkBytesPerSecond *= 2 },
      { $0.system.memoryBytesPerSecond *= 2 }, { $0.system.operationsPerSecond *= 2 },
      { $0.system.commandNanoseconds /= 2 }, { $0.system.fileBytesPerSecond *= 2 },
      { $0.system.copyBytesPerSecond? *= 2 }, { $0.drive.channelBytesPerSecond *= 2 },
    ]
    let placements: [KeyValuePlacement] = [
      .inStorage(driveCount: 3), .hostStorage(driveCount: 3), .hostMemory, .recomputation,
    ]
    for base in [paper, SystemModel(system: .laptop2026, drive: .year2026)] {
      for placement in placements {
        for mode in [AttentionMode.dense, sparse] {
          let before = try base.run(opt13B(8), placement, mode).tokensPerSecond
          for (index, change) in changes.enumerated() {
            var model = base
            change(&model)
            let after = try model.run(opt13B(8), placement, mode).tokensPerSecond
            #expect(after >= before * (1 - 1e-9), "change \(index), \(placement)")
          }
        }
      }
    }
  }

  @Test func largestPublishedRunIsQuick() throws {
    let clock = ContinuousClock()
    let elapsed = try clock.measure {
      _ = try paper.run(opt13B(256), .inStorage(driveCount: 20), sparse)
    }
    #expect(elapsed < .seconds(30))
  }

  @Test func busTakesAtLeastItsBytes() throws {
    let workload = opt13B(64)
    for count in [1, 2, 20] {
      let timing = try paper.run(workload, .inStorage(driveCount: count), .dense)
      let link = min(
        Double(count) * paper.drive.linkBytesPerSecond, paper.system.linkBytesPerSecond)
      #expect(timing.busByteCount / link <= timing.decodeSeconds)
      // q, k, v and out of every token and layer.
      #expect(timing.busByteCount.rounded() == Double(64 * 1024 * 40 * 4 * 40 * 128 * 2))
    }
    let host = try paper.run(workload, .hostStorage(driveCount: 1), .dense)
    #expect(host.busByteCount / paper.system.linkBytesPerSecond <= host.decodeSeconds)
  }

  @Test func sparseWritesHalfAsMuchMore() throws {
    let dense = try paper.run(opt13B(16), .inStorage(driveCount: 1), .dense)
    let sparsely = try paper.run(opt13B(16), .inStorage(driveCount: 1), sparse)
    #expect(sparsely.flashWriteByteCount == 1.5 * dense.flashWriteByteCount)
    #expect(dense.flashWriteByteCount == 16 * 2048 * ModelParameters.opt13B.tokenByteCount)
  }

  @Test func groupedQueriesShareReads() throws {
    var workload = opt13B(16)
    let all = try paper.run(workload, .inStorage(driveCount: 1), .dense)
    workload.model.keyValueHeadCount = 10
    let grouped = try paper.run(workload, .inStorage(driveCount: 1), .dense)
    #expect(grouped.flashReadByteCount == all.flashReadByteCount / 4)
    #expect(grouped.tokensPerSecond > all.tokensPerSecond)
  }

  @Test func losslessSparseReadsKeysTwice() throws {
    let dense = try AttentionTiming(
      model: .opt13B, drive: .paper, commandCount: 64, context: 1024, mode: .dense)
    let lossless = try AttentionTiming(
      model: .opt13B, drive: .paper, commandCount: 64, context: 1024,
      mode: .sparse(compression: 1))
    #expect(lossless.flashByteCount == 1.5 * dense.flashByteCount)
    #expect(lossless.command.exactScoreCount == dense.command.exactScoreCount)
  }

  @Test func plainDriveOnlyServesTheHost() throws {
    let model = SystemModel(system: .laptop2026, drive: .plainNVMe)
    let workload = SystemWorkload(
      model: .llama3With8B, batch: 1, promptLength: 4096, outputLength: 64)
    let host = try model.run(workload, .hostStorage(driveCount: 1), .dense)
    let bytes = 4096 * 64 * workload.model.tokenByteCount
    #expect(bytes / model.drive.linkBytesPerSecond <= host.decodeSeconds)
    #expect(throws: TimingError.noEngine) {
      try model.run(workload, .inStorage(driveCount: 1), .dense)
    }
    let memory = try model.run(workload, .hostMemory, .dense)
    #expect(memory.tokensPerSecond > host.tokensPerSecond)
  }

  @Test func impossibleDevicesAreRefused() {
    func refusal(_ change: (inout DriveParameters) -> Void) -> TimingError? {
      var model = paper
      change(&model.drive)
      do {
        _ = try model.run(opt13B(1), .inStorage(driveCount: 1), .dense)
        return nil
      } catch { return error }
    }
    #expect(
      refusal { $0.geometry.channelCount = 0 } == .outOfRange(parameter: "channels", value: 0))
    #expect(
      refusal { $0.geometry.pageByteCount = 128 }
        == .pageTooSmall(pageByteCount: 128, tokenByteCount: 256))
    #expect(
      refusal { $0.channelBytesPerSecond = .nan }?.description.contains("channel bandwidth")
        == true)
    #expect(
      refusal { $0.linkBytesPerSecond = -1 }
        == .outOfRange(parameter: "link bandwidth", value: -1))
    #expect(refusal { $0.engine = nil } == .noEngine)
    #expect(
      refusal { $0.engine?.kernelCount = 0 }
        == .outOfRange(parameter: "attention kernels", value: 0))
    #expect(refusal { $0.geometry.blocksPerPlane = 1 } != nil)
    #expect(refusal { $0.geometry.planesPerChannel = .max } != nil)
    #expect(refusal { _ in } == nil)
  }

  @Test func impossibleWorkloadsAreRefused() {
    func refuses(
      _ change: (inout SystemWorkload) -> Void, _ mode: AttentionMode = .dense,
      _ placement: KeyValuePlacement = .inStorage(driveCount: 1)
    ) -> Bool {
      var workload = opt13B(1)
      change(&workload)
      return (try? paper.run(workload, placement, mode)) == nil
    }
    #expect(refuses({ $0.batch = 0 }))
    #expect(refuses({ $0.batch = .max }))
    #expect(refuses({ $0.promptLength = -5 }))
    #expect(refuses({ $0.outputLength = 0 }))
    #expect(refuses({ $0.model.keyValueHeadCount = 3 }))
    #expect(refuses({ $0.model.layerCount = 0 }))
    #expect(refuses({ _ in }, .sparse(compression: 0)))
    #expect(refuses({ _ in }, .sparse(compression: 1.5)))
    #expect(refuses({ _ in }, .sparse(compression: .nan)))
    #expect(refuses({ _ in }, .dense, .inStorage(driveCount: 0)))
    #expect(refuses({ _ in }, .dense, .hostStorage(driveCount: 0)))
    #expect(!refuses({ _ in }))
  }
}
