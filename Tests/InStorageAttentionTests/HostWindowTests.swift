import InStorageAttention
import Kernels
import ModelFormat
import Runtime
import TensorBasics
import TestSupport
import Testing
import WeightLoader

/// Drives that attend over what is old, and a host that goes on with the newest tiles.
@Suite struct HostWindowTests {
  static let cases = [
    HeadCase(name: "llama", headDim: 64, queryHeadCount: 9, keyValueHeadCount: 3),
    HeadCase(name: "llama", headDim: 16, queryHeadCount: 4, keyValueHeadCount: 2, window: 600),
    HeadCase(name: "gemma3", headDim: 32, queryHeadCount: 4, keyValueHeadCount: 1, window: 70),
    HeadCase(name: "gemma3", headDim: 16, queryHeadCount: 2, keyValueHeadCount: 2, window: 1100),
  ]
  /// Tokens of a prompt and after it; a tile ends among those.
  private static let (promptCount, answerCount) = (1530, 12)
  private static var contextLength: Int { promptCount + answerCount }

  private static func tokens(_ count: Int, seed: UInt64) -> [Int32] {
    var generator = SeededGenerator(seed: seed)
    return (0..<count).map { _ in Int32(generator.next() % 320) }
  }

  @Test(arguments: cases)
  func `Drives and the host share a token with the host's bits`(example: HeadCase) throws {
    let file = TemporaryFile(example.model(contextLength: 4096).gguf(seed: 3).bytes())
    defer { extendLifetime(file) }
    let prompt = Self.tokens(Self.promptCount, seed: 7)
    let answer = Self.tokens(Self.answerCount, seed: 8)
    let expected = try logitBits(
      openSession(
        file.path, contextLength: Self.contextLength, promptLength: prompt.count), prompt, answer)
    let configuration = try #require(try ModelSource.open(file.path).description.configuration)
    for (index, hostWindow) in [1, 512, 513, 1024, 1025, 1 << 40, 0].enumerated() {
      let shape = DriveArray.Shape(
        configuration, contextLength: Self.contextLength, hostWindow: hostWindow)
      let drives = try DriveArray.make(
        shape, count: 1 + index % 3, flash: smallFlash(blocks: 4000, pageByteCount: 4096))
      let session = try openSession(
        file.path, contextLength: Self.contextLength, promptLength: prompt.count,
        chunkLength: [512, 100, 7][index % 3], decodeAttention: drives)
      let found = try logitBits(session, prompt, answer)
      #expect(found.elementsEqual(expected), "host window \(hostWindow)")
      #expect(session.usesDecodeAttention)
      let counted = Self.attended(shape, configuration)
      #expect(
        drives.statistics.operations.multiplyAdds
          == 2 * counted.positions * shape.queryHeadCount * shape.headDim,
        "host window \(hostWindow)")
      #expect(drives.foldCount == counted.folds)
      // Again from the start, over flash that was used.
      session.reset()
      let again = try logitBits(session, prompt, answer)
      #expect(again.elementsEqual(expected), "host window \(hostWindow), used before")
    }
  }

  /// Positions that drives attend over in all layers and tokens of the answer, and how often they are asked.
  private static func attended(
    _ shape: DriveArray.Shape, _ configuration: DecoderConfiguration
  ) -> (positions: Int, folds: Int) {
    var (positions, folds) = (0, 0)
    for position in promptCount..<contextLength {
      let end =
        shape.hostWindow == 0
        ? position + 1 : max(0, position + 1 - shape.hostWindow) / 512 * 512
      for window in shape.windows {
        let first = max(0, position + 1 - (window ?? position + 1))
        guard first < end else { continue }
        positions += end - first
        folds += 1
      }
    }
    return (positions, folds)
  }

  @Test func `Drives get complete tiles, once the window has left them`() throws {
    let example = Self.cases[0]
    let file = TemporaryFile(example.model(contextLength: 4096).gguf(seed: 3).bytes())
    defer { extendLifetime(file) }
    let configuration = try #require(try ModelSource.open(file.path).description.configuration)
    let shape = DriveArray.Shape(configuration, contextLength: 1600, hostWindow: 500)
    #expect(shape.heldPositionCount == 1024)
    let drives = try DriveArray.make(
      shape, flash: smallFlash(blocks: 4000, pageByteCount: 4096))
    let session = try openSession(
      file.path, contextLength: 1600, promptLength: 1005, decodeAttention: drives)
    _ = try session.prefill(Self.tokens(1005, seed: 1))
    let (layers, heads, length) = (shape.layerCount, 3, 64)
    for position in 1005..<1016 {
      let before = drives.statistics.bus
      _ = try session.decode(5)
      let bus = drives.statistics.bus - before
      // Position 1011 and the 499 before it need the tiles from 512 on: the first tile leaves the window.
      let appends = position == 1011 ? 8 : 0
      let folds = position < 1011 ? 0 : 1
      #expect(bus.commandCount == layers * (appends + folds), "\(position)")
      #expect(
        bus.bytesToDrive
          == layers
          * (64 * (appends + folds) + 64 * appends * heads * 4 * length
            + folds * 9 * 4 * length),
        "\(position)")
      #expect(
        bus.bytesFromDrive == layers * (16 * (appends + folds) + folds * 9 * 4 * (length + 2)),
        "\(position)")
    }
    #expect(drives.hostPathByteCount == layers * 4 * heads * length * 512 * (1 + 5))
  }

  @Test(arguments: [0, 3, 40, 47, 60])
  func `A drive that fails in an answer leaves the host with its own bits`(
    callCount: Int
  ) throws {
    let example = Self.cases[0]
    let file = TemporaryFile(example.model(contextLength: 4096).gguf(seed: 3).bytes())
    defer { extendLifetime(file) }
    let prompt = Self.tokens(1015, seed: 1)
    let answer = Self.tokens(30, seed: 2)
    let context = prompt.count + answer.count
    let expected = try logitBits(
      openSession(file.path, contextLength: context, promptLength: prompt.count), prompt, answer)
    let configuration = try #require(try ModelSource.open(file.path).description.configuration)
    let shape = DriveArray.Shape(configuration, contextLength: context, hostWindow: 1)
    func attention() throws -> FailingAttention {
      FailingAttention(
        try DriveArray.make(shape, count: 2, flash: smallFlash(blocks: 4000, pageByteCount: 4096)),
        after: callCount)
    }
    let failing = try openSession(
      file.path, contextLength: context, promptLength: prompt.count, decodeAttention: attention())
    #expect(throws: RuntimeError.self) { _ = try logitBits(failing, prompt, answer) }
    let goingOn = try openSession(
      file.path, contextLength: context, promptLength: prompt.count, decodeAttention: attention())
    var failureCount = 0
    goingOn.onDecodeAttentionFailure = {
      failureCount += $0 is FailingAttention.Failed ? 1 : 0
      return true
    }
    let found = try logitBits(goingOn, prompt, answer)
    #expect(found.elementsEqual(expected))
    #expect(failureCount == 1 && !goingOn.usesDecodeAttention)
  }

  /// Drives that fail after so many calls, with partials that mean nothing.
  private final class FailingAttention: DecodeAttention {
    struct Failed: Error {}
    private let drives: DriveArray
    private var left: Int

    init(_ drives: DriveArray, after callCount: Int) {
      self.drives = drives
      left = callCount
    }

    var hostWindow: Int { drives.shape.hostWindow }

    func append(
      layer: Int, position: Int, tokenCount: Int, keys: UnsafePointer<Float>,
      values: UnsafePointer<Float>
    ) throws {
      try count()
      try drives.append(
        layer: layer, position: position, tokenCount: tokenCount, keys: keys, values: values)
    }

    func fold(
      layer: Int, visible: VisibleRange, queries: UnsafePointer<Float>,
      into partials: TokenPartials, continues: Bool
    ) throws {
      partials[0].outputs.update(repeating: .nan, count: 64)
      try count()
      try drives.fold(
        layer: layer, visible: visible, queries: queries, into: partials, continues: continues)
    }

    func reset() { drives.reset() }

    private func count() throws {
      guard left > 0 else { throw Failed() }
      left -= 1
    }
  }

  @Test(arguments: UInt64(0)..<4)
  func `A fold that goes on where another ended is one fold`(seed: UInt64) throws {
    var heads = RandomAttention(
      queryHeadCount: 6, keyValueHeadCount: 2, headDim: 32, contextLength: 2600, seed: seed)
    let drives = try DriveArray.make(heads.shape, count: 2)
    try heads.append(2500, layer: 0, to: drives)
    let queries = heads.queries()
    var generator = SeededGenerator(seed: seed)
    let first = Int.random(in: 0..<500, using: &generator)
    let (whole, parts) = (HeldPartials(heads.shape), HeldPartials(heads.shape))
    try drives.fold(queries, layer: 0, first: first, last: 2499, into: whole, continues: false)
    var (next, before) = (first, drives.statistics.bus)
    for end in [512, 1024, 2048, 2500] where end == 2500 || Bool.random(using: &generator) {
      try drives.fold(
        queries, layer: 0, first: next, last: end - 1, into: parts, continues: next > first)
      let bus = drives.statistics.bus - before
      let partials = 6 * 4 * (32 + 2)
      #expect(bus.bytesFromDrive == 2 * 16 + partials)
      #expect(bus.bytesToDrive == 2 * 64 + 6 * 4 * 32 + (next > first ? partials : 0))
      (next, before) = (end, drives.statistics.bus)
    }
    #expect(parts.bits == whole.bits)
  }

  @Test func `Positions that a window has passed need not be appended`() throws {
    var heads = RandomAttention(contextLength: 3000, windows: [700], seed: 2)
    let (all, some) = (try DriveArray.make(heads.shape), try DriveArray.make(heads.shape))
    try heads.append(1500, layer: 0, to: all)
    let width = heads.width
    try some.append(
      layer: 0, position: 896, tokenCount: 604, keys: Array(heads.keys[0][(896 * width)...]),
      values: Array(heads.values[0][(896 * width)...]))
    let queries = heads.queries()
    let (expected, found) = (HeldPartials(heads.shape), HeldPartials(heads.shape))
    try all.fold(queries, layer: 0, first: 900, last: 1499, into: expected, continues: false)
    try some.fold(queries, layer: 0, first: 900, last: 1499, into: found, continues: false)
    #expect(found.bits == expected.bits)
    #expect(throws: DriveFailure.self) {
      try some.fold(queries, layer: 0, first: 890, last: 1499, into: found, continues: false)
    }
    let unlimited = try DriveArray.make(RandomAttention(contextLength: 3000, seed: 2).shape)
    let row = heads.random(width)
    #expect(throws: DriveFailure.self) {
      try unlimited.append(layer: 0, position: 896, tokenCount: 1, keys: row, values: row)
      try unlimited.fold(queries, layer: 0, first: 896, last: 896, into: found, continues: false)
    }
  }

  @Test func `What the host's window covers takes nothing of the drives`() throws {
    let shape = DriveArray.Shape(
      layerCount: 3, queryHeadCount: 4, keyValueHeadCount: 2, headDim: 32, contextLength: 2048,
      windows: [nil, 512, 513], hostWindow: 512)
    let contents = try DriveArray.contents(shape, driveCount: 1)[0]
    #expect(contents.heads == [[0, 1], [], [0, 1]])
    #expect(contents.contextLength == 1536)
    var all = shape
    all.hostWindow = 2048
    let drives = try DriveArray.make(all)
    #expect(drives.usedDriveCount == 0)
  }

  @Test func `A host window is refused where the host cannot go on`() throws {
    var shape = RandomAttention(seed: 1).shape
    shape.hostWindow = 1
    func refusal(_ engine: AttentionEngineKind) -> String {
      do {
        _ = try DriveArray.make(shape, engine: engine)
        return ""
      } catch { return "\(error)" }
    }
    #expect(refusal(.dense).isEmpty)
    let sparse = SparseAttention(channelFraction: 0.5, tokenFraction: 0.5)
    #expect(refusal(.sparse(sparse)).contains("use the dense engine"))
    shape.hostWindow = -1
    #expect(refusal(.dense).contains("-1 positions"))
  }
}
