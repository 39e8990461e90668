import InStorageAttention
import Kernels
import TensorBasics
import TestSupport
import Testing

/// Drives by themselves: attention, traffic, memory and refusals.
@Suite struct DriveArrayTests {
  @Test(arguments: [(16, 1024), (32, 1024), (48, 1024), (64, 4096), (128, 4096), (256, 512)])
  func `Dense attention is attention`(headDim: Int, pageByteCount: Int) throws {
    var heads = RandomAttention(headDim: headDim, seed: UInt64(headDim))
    let drives = try DriveArray.make(
      heads.shape, count: 2, flash: smallFlash(blocks: 2000, pageByteCount: pageByteCount))
    for count in [1, 14, 2, 100, 395, 1, 1, 100] {
      try heads.append(count, layer: 0, to: drives)
      let last = heads.positionCount(0) - 1
      for first in [0, last / 3, last] {
        let queries = heads.queries()
        let output = try drives.attend(queries, layer: 0, first: first, last: last)
        let expected = heads.expected(queries, layer: 0, first: first, last: last)
        #expect(largestDifference(output, expected) < 5e-5, "\(first)...\(last)")
      }
    }
  }

  @Test(arguments: [1, 2, 3]) func `Lossless SparF is dense`(driveCount: Int) throws {
    var heads = RandomAttention(
      layerCount: 2, queryHeadCount: 6, keyValueHeadCount: 2, headDim: 64,
      contextLength: 1200, windows: [nil, 300], seed: 5)
    let lossless = SparseAttention(channelFraction: 1, tokenFraction: 1)
    let sparse = try DriveArray.make(heads.shape, count: driveCount, engine: .sparse(lossless))
    while heads.positionCount(1) < 1150 {
      for layer in 0..<2 {
        try heads.append(115, layer: layer, to: sparse)
        let last = heads.positionCount(layer) - 1
        let first = heads.shape.windows[layer].map { max(0, last - $0 + 1) } ?? 0
        let queries = heads.queries()
        let output = try sparse.attend(queries, layer: layer, first: first, last: last)
        let expected = heads.expected(queries, layer: layer, first: first, last: last)
        #expect(largestDifference(output, expected) <= 1e-4, "layer \(layer), \(first)...\(last)")
      }
    }
  }

  /// SparF by its definition, in double precision.
  @Test func `SparF is algorithm 1`() throws {
    let options = SparseAttention(channelFraction: 0.25, tokenFraction: 0.125)
    for (headDim, group) in [(32, 1), (64, 3)] {
      var heads = RandomAttention(
        queryHeadCount: group, keyValueHeadCount: 1, headDim: headDim,
        contextLength: 1100, seed: UInt64(group))
      let drives = try DriveArray.make(heads.shape, engine: .sparse(options))
      for count in [40, 500, 400, 100] {
        try heads.append(count, layer: 0, to: drives)
        let last = heads.positionCount(0) - 1
        let queries = heads.queries().map { $0 / 8 }
        let output = try drives.attend(queries, layer: 0, first: 0, last: last)
        let expected = SparseReference.attend(heads, queries, options)
        #expect(largestDifference(output, expected) < 1e-4, "\(headDim), \(last)")
      }
    }
  }

  @Test func `SparF in a window looks at the window alone`() throws {
    let options = SparseAttention(channelFraction: 0.25, tokenFraction: 0.125)
    var heads = RandomAttention(
      queryHeadCount: 2, keyValueHeadCount: 1, headDim: 64, contextLength: 1300,
      windows: [200], seed: 8)
    let drives = try DriveArray.make(
      heads.shape, engine: .sparse(options), flash: smallFlash(blocks: 2000, pageByteCount: 4096))
    for count in [200, 1, 31, 400, 500, 3] {
      try heads.append(count, layer: 0, to: drives)
      let last = heads.positionCount(0) - 1
      let first = max(0, last - 199)
      let queries = heads.queries().map { $0 / 8 }
      let output = try drives.attend(queries, layer: 0, first: first, last: last)
      // Token groups are 32 positions long.
      let expected = SparseReference.attend(
        heads, queries, options, first: first, meanFirst: first / 32 * 32)
      #expect(largestDifference(output, expected) < 1e-4, "\(first)...\(last)")
    }
  }

  @Test(arguments: UInt64(0)..<6)
  func `Attention is right over flash that is reclaimed, collected and levelled`(
    seed: UInt64
  ) throws {
    var generator = SeededGenerator(seed: seed)
    let window = Int.random(in: 20...300, using: &generator)
    var heads = RandomAttention(
      layerCount: 2, queryHeadCount: 4, keyValueHeadCount: 2, headDim: 16,
      contextLength: 2600, windows: [window, nil], seed: seed)
    // Room for two contexts of one layer and little more.
    let sparse = AttentionEngineKind.sparse(SparseAttention(channelFraction: 1, tokenFraction: 1))
    let drives = try DriveArray.make(
      heads.shape, count: Int.random(in: 1...3, using: &generator),
      engine: seed % 2 == 0 ? .dense : sparse,
      flash: smallFlash(channels: 3, blocks: 40, pages: 4, pageByteCount: 1024))
    for _ in 0..<3 {
      while heads.positionCount(1) < 2400 {
        let count = Int.random(in: 1...300, using: &generator)
        for layer in 0..<2 {
          guard heads.positionCount(layer) + count <= 2600 else { continue }
          try heads.append(count, layer: layer, to: drives)
          let last = heads.positionCount(layer) - 1
          let first = layer == 0 ? max(0, last - window + 1) : 0
          let queries = heads.queries()
          let output = try drives.attend(queries, layer: layer, first: first, last: last)
          let expected = heads.expected(queries, layer: layer, first: first, last: last)
          #expect(largestDifference(output, expected) < 1e-4, "seed \(seed), layer \(layer)")
        }
      }
      drives.reset()
      heads.forget()
    }
    let statistics = drives.statistics
    #expect(statistics.flash.blocksErased > 0 && statistics.flash.uncorrectablePages == 0)
    #expect(statistics.usedPageCount == 0, "everything was given up")
  }

  @Test func `Bus bytes are the formula's, step by step`() throws {
    for (driveCount, keyValueHeadCount) in [(1, 3), (2, 3), (5, 3), (4, 8)] {
      var heads = RandomAttention(
        layerCount: 3, queryHeadCount: 3 * keyValueHeadCount,
        keyValueHeadCount: keyValueHeadCount, headDim: 32, windows: [nil, 600, 64],
        seed: UInt64(driveCount))
      let drives = try DriveArray.make(heads.shape, count: driveCount)
      var before = drives.statistics.bus
      // configure: an entry, a completion, 16 bytes and 16 for each layer.
      #expect(before.byteCount == driveCount * (64 + 16 + 16 + 16 * 3))
      var (hostPath, reclaimed) = (0, [0, 0, 0])
      for count in [130, 1, 1, 450, 1, 1, 1] {
        var (toDrives, fromDrives, commands) = (0, 0, 0)
        for layer in 0..<3 {
          try heads.append(count, layer: layer, to: drives)
          let last = heads.positionCount(layer) - 1
          let first = heads.shape.windows[layer].map { max(0, last - $0 + 1) } ?? 0
          _ = try drives.attend(heads.queries(), layer: layer, first: first, last: last)
          let holders = min(driveCount, keyValueHeadCount)
          // Entries and completions of append (64 positions each), fold and, at a tile's end, reclaim.
          let reclaims = first / 512 > reclaimed[layer] ? holders : 0
          reclaimed[layer] = first / 512
          let entries = holders * ((count + 63) / 64) + holders + reclaims
          commands += entries
          toDrives +=
            64 * entries + count * keyValueHeadCount * 4 * 32
            + 3 * keyValueHeadCount * 4 * 32
          // Of each query head maximum, sum and output.
          fromDrives += 16 * entries + 3 * keyValueHeadCount * 4 * (32 + 2)
          hostPath += (count + last - first + 1) * keyValueHeadCount * 4 * 32
        }
        let now = drives.statistics.bus
        #expect((now - before).commandCount == commands)
        #expect((now - before).bytesToDrive == toDrives)
        #expect((now - before).bytesFromDrive == fromDrives)
        #expect(drives.hostPathByteCount == hostPath)
        before = now
      }
    }
  }

  @Test func `Pages read are those of the visible token groups`() throws {
    var heads = RandomAttention(
      queryHeadCount: 2, keyValueHeadCount: 1, headDim: 64, contextLength: 4096, seed: 1)
    let flash = smallFlash(channels: 8, blocks: 40, pages: 4, pageByteCount: 4096)
    let dense = try DriveArray.make(heads.shape, flash: flash)
    let sparse = try DriveArray.make(
      heads.shape,
      engine: .sparse(SparseAttention(channelFraction: 0.125, tokenFraction: 0.125)), flash: flash)
    try heads.append(2048, layer: 0, to: dense)
    heads.forget()
    try heads.append(2048, layer: 0, to: sparse)
    let queries = heads.queries()
    _ = try dense.attend(queries, layer: 0, first: 0, last: 2047)
    _ = try sparse.attend(queries, layer: 0, first: 0, last: 2047)
    let (all, some) = (dense.statistics.operations, sparse.statistics.operations)
    // 32 positions of 64 elements fill a page of keys and one of values; some are in open blocks.
    #expect(all.pagesRead + all.pagesFromMemory == 2 * 2048 / 32)
    #expect(all.bytesPassed == 2048 * 64 * 4)
    #expect(all.multiplyAdds == 2 * 2048 * 64 * 2)
    // 8 of 64 elements of keys, then keys and values of 256 positions: what passes the filter.
    #expect(some.bytesPassed == 2048 * 8 * 2 + 256 * 64 * 4)
    #expect(some.bytesPassed * 16 == all.bytesPassed * 3)
    #expect(some.pagesRead + some.pagesFromMemory > 0)
    #expect(dense.statistics.usedPageCount == 128)
    #expect(sparse.statistics.usedPageCount == 128 + 64, "keys are there twice")
  }

  @Test func `A drive stays within its memory or refuses`() throws {
    let heads = RandomAttention(headDim: 64, contextLength: 4096, seed: 1)
    var configuration = DriveConfiguration(flash: smallFlash())
    let needed = try DriveArray.memoryByteCount(heads.shape, driveCount: 1, configuration)
    let drives = try DriveArray(heads.shape, driveCount: 1, configuration)
    #expect(drives.statistics.memoryByteCount <= needed)
    configuration.memoryByteCount = drives.statistics.memoryByteCount
    _ = try DriveArray(heads.shape, driveCount: 1, configuration)
    configuration.memoryByteCount -= 1
    let tooSmall = configuration
    #expect {
      try DriveArray(heads.shape, driveCount: 1, tooSmall)
    } throws: {
      if case DriveError.memoryTooSmall = $0 { true } else { false }
    }
  }

  @Test func `Impossible drives are refused with the reason`() {
    let heads = RandomAttention(headDim: 128, seed: 1)
    func refusal(
      _ flash: FlashGeometry = smallFlash(), _ engine: AttentionEngineKind = .dense,
      driveCount: Int = 1, faults: FlashFaults = FlashFaults()
    ) -> String {
      do {
        _ = try DriveArray(
          heads.shape, driveCount: driveCount,
          DriveConfiguration(flash: flash, engine: engine, faults: faults))
        return ""
      } catch {
        guard case .impossible(let reason) = error else { return "\(error)" }
        return reason
      }
    }
    func sparse(_ channels: Double, _ tokens: Double) -> AttentionEngineKind {
      .sparse(SparseAttention(channelFraction: channels, tokenFraction: tokens))
    }
    #expect(refusal().isEmpty)
    #expect(refusal(smallFlash(channels: 0)).contains("0 channels"))
    #expect(refusal(smallFlash(blocks: 1)).contains("one block"))
    #expect(refusal(smallFlash(pages: -1)).contains("-1 pages"))
    #expect(refusal(smallFlash(pageByteCount: 128)).contains("page of 128 bytes"))
    #expect(refusal(smallFlash(pageByteCount: 3000)).contains("power of two"))
    #expect(refusal(smallFlash(pageByteCount: 512), sparse(1, 1)).contains("channel-indexed"))
    for fraction in [0, -1, 1.5, .nan, .infinity] {
      #expect(refusal(smallFlash(), sparse(fraction, 0.5)).contains("r / d"))
      #expect(refusal(smallFlash(), sparse(0.5, fraction)).contains("k / S"))
    }
    #expect(refusal(driveCount: 0).contains("0 drives"))
    #expect(refusal(driveCount: -3).contains("-3 drives"))
    #expect(refusal(faults: FlashFaults(bitErrorRate: 2)).contains("bit error rate"))
    var long = smallFlash()
    long.pageByteCount = 512
    let wide = RandomAttention(headDim: 272, seed: 1)
    #expect(throws: DriveError.self) {
      try DriveArray(wide.shape, driveCount: 1, DriveConfiguration(flash: long))
    }
  }

  @Test func `More commands than a drive's queue holds are done, each once and in order`() throws {
    let heads = RandomAttention(seed: 4)
    let contents = try DriveArray.contents(heads.shape, driveCount: 1)[0]
    let drive = try ComputationalDrive(
      DriveConfiguration(flash: smallFlash(blocks: 2000), engine: .dense), contents)
    let payload = [UInt16](repeating: 0, count: 2 * heads.width)
    try payload.withUnsafeBufferPointer { payload in
      for position in 0..<600 {
        drive.submit(
          .append(
            layer: 0, position: position, tokenCount: 1, payload: payload.baseAddress!))
      }
      try drive.wait()
    }
    #expect(drive.statistics.bus.commandCount == 601)
  }

  @Test func `Positions out of order, missing or given up are reported`() throws {
    var heads = RandomAttention(contextLength: 1300, windows: [40], seed: 1)
    let row = heads.random(heads.width)
    let drives = try DriveArray.make(heads.shape)
    try heads.append(3, layer: 0, to: drives)
    _ = try drives.attend(heads.queries(), layer: 0, first: 0, last: 2)
    #expect(throws: DriveFailure.self) {
      try drives.attend(heads.queries(), layer: 0, first: 0, last: 3)
    }
    let gap = try DriveArray.make(heads.shape)
    #expect(throws: DriveFailure.self) {
      try gap.append(layer: 0, position: 1, tokenCount: 1, keys: row, values: row)
      _ = try gap.attend(heads.queries(), layer: 0, first: 0, last: 1)
    }
    let sliding = try DriveArray.make(heads.shape)
    heads.forget()
    try heads.append(1100, layer: 0, to: sliding)
    _ = try sliding.attend(heads.queries(), layer: 0, first: 1060, last: 1099)
    #expect(throws: DriveFailure.self) {
      try sliding.attend(heads.queries(), layer: 0, first: 1000, last: 1099)
    }
  }
}

/// SparF's algorithm 1, head by head, with choices made for the group.
private enum SparseReference {
  static func attend(
    _ heads: RandomAttention, _ queries: [Float], _ options: SparseAttention, first: Int = 0,
    meanFirst: Int = 0
  ) -> [Float] {
    let (length, count) = (heads.shape.headDim, heads.positionCount(0) - first)
    let group = heads.shape.queryHeadCount
    func row(_ rows: [Float], _ position: Int) -> [Double] {
      let from = (first + position) * length
      return rows[from..<from + length].map { Double(Float16($0)) }
    }
    let query = (0..<group).map { queries[$0 * length..<($0 + 1) * length].map(Double.init) }
    func largest(_ count: Int, _ values: [Double]) -> [Int] {
      Array(values.indices.sorted { values[$0] > values[$1] }.prefix(count))
    }
    let elements = largest(
      Int((options.channelFraction * Double(length)).rounded(.up)),
      (0..<length).map { element in query.reduce(0) { $0 + abs($1[element]) } })
    let weights = query.map { query -> [Double] in
      let share =
        elements.reduce(0) { $0 + abs(query[$1]) } / query.reduce(0) { $0 + abs($1) }
      return softmax(
        (0..<count).map { position in
          let key = row(heads.keys[0], position)
          return elements.reduce(0) { $0 + query[$1] * key[$1] } / share.squareRoot()
        })
    }
    let chosenCount = Int((options.tokenFraction * Double(count)).rounded(.up))
    let recent = Int(options.recentFraction * Double(chosenCount))
    let chosen = largest(
      chosenCount,
      (0..<count).map { position in
        position >= count - recent ? .infinity : weights.reduce(0) { $0 + $1[position] }
      })
    var output: [Float] = []
    let mean = (0..<length).map { element in
      (meanFirst - first..<count).reduce(0) { $0 + row(heads.values[0], $1)[element] }
        / Double(count + first - meanFirst)
    }
    for (head, query) in query.enumerated() {
      let exact = softmax(
        chosen.map { position in
          zip(query, row(heads.keys[0], position)).reduce(0) { $0 + $1.0 * $1.1 }
        })
      let alpha = chosen.reduce(0) { $0 + weights[head][$1] }
      for element in 0..<length {
        let value = zip(exact, chosen)
          .reduce(0) { $0 + $1.0 * row(heads.values[0], $1.1)[element] }
        output.append(Float(alpha * value + (1 - alpha) * mean[element]))
      }
    }
    return output
  }

  private static func softmax(_ scores: [Double]) -> [Double] {
    let highest = scores.max() ?? 0
    let powers = scores.map { Self.exp($0 - highest) }
    let sum = powers.reduce(0, +)
    return powers.map { $0 / sum }
  }

  private static func exp(_ x: Double) -> Double {
    var (term, sum) = (1.0, 1.0)
    for n in 1..<12 {
      term *= x / 1024 / Double(n)
      sum += term
    }
    for _ in 0..<10 { sum *= sum }
    return sum
  }
}
