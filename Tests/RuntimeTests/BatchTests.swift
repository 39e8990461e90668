import BlockIO
import KVCache
import Kernels
import ModelFormat
import Runtime
import TensorBasics
import TestSupport
import Testing
import WeightLoader

/// A sequence's logits in a batch of others are those that it has alone, bit for bit: whoever joins, leaves or fails,
/// however prompts are cut, whatever the budget, back end, threads and type of keys and values.
@Suite struct BatchTests {
  /// A sequence's tokens, and the logits that it has alone.
  private struct Line {
    var prompt: [Int32]
    var decoding: [Int32]
    var expected: [[UInt32]] = []
  }

  /// A sequence under way.
  private struct Open {
    var line: Int
    var cache: KeyValueStore
    var position = 0
    /// Drafts of its last rows, and of each row with logits whether it follows the line.
    var drafts = DraftRows()
    var isRight = [true]
  }

  private static let contextLength = 700
  private static let vocabularyCount: Int32 = 300

  /// Sequences of which some share their beginning, some end in the middle of a page and some pass several.
  private func lines(_ count: Int, longest: Int, using generator: inout SeededGenerator) -> [Line] {
    (0..<count).map { _ in
      let length = Int.random(in: 1...longest, using: &generator)
      return Line(
        prompt: (0..<length).map { _ in
          Int32.random(in: 0..<Self.vocabularyCount, using: &generator)
        },
        decoding: (0..<Int.random(in: 0...12, using: &generator)).map { _ in
          Int32.random(in: 0..<Self.vocabularyCount, using: &generator)
        })
    }
  }

  private func request(_ shape: RunShape, sequenceCount: Int) -> MemoryPlan.Request {
    var request = MemoryPlan.Request(
      budgetByteCount: shape.spareByteCount == nil ? 8 << 30 : 1,
      contextLength: Self.contextLength, promptLength: Self.contextLength - 8,
      threadCount: shape.threadCount, maximumChunkLength: shape.maximumChunkLength)
    request.assumedProcessByteCount = 0
    request.sequenceCount = sequenceCount
    request.keyValues = shape.keyValues
    request.draftRowCount = 10
    // What sequences do not need keeps weights for a while, also where that is little.
    request.leastLoanByteCount = 1
    return request
  }

  private func makeCore(
    _ source: ModelSource, _ shape: RunShape, sequenceCount: Int
  ) throws -> EngineCore {
    let configuration = try #require(source.description.configuration)
    var request = request(shape, sequenceCount: sequenceCount)
    do { return try EngineCore(source, configuration, request) } catch {
      guard case .budgetTooSmall(_, let minimum, _) = error else { throw error }
      request.budgetByteCount = minimum.bytes + (shape.spareByteCount ?? 0)
      return try EngineCore(source, configuration, request)
    }
  }

  /// Runs `lines` in batches that chance fills, and compares all logits.
  private func check(
    _ lines: [Line], in core: EngineCore, using generator: inout SeededGenerator,
    _ comment: Comment
  ) throws {
    var waiting = Array(lines.indices)
    var open: [Open] = []
    var changeCount = 0
    while !waiting.isEmpty || !open.isEmpty {
      while let line = waiting.first, core.freeSequenceCount > 0,
        open.isEmpty || Bool.random(using: &generator)
      {
        waiting.removeFirst()
        let limit = lines[line].prompt.count + lines[line].decoding.count
        let cache = try core.openSequence(limit: Bool.random(using: &generator) ? limit : nil)
        open.append(Open(line: line, cache: cache))
      }
      // A few times, or no sequence comes to its end.
      if changeCount < 10, Int.random(in: 0..<6, using: &generator) == 0 {
        changeCount += 1
        try changeCourse(&open, in: core, using: &generator)
      }
      // One that leaves before its end.
      if open.count > 1, Int.random(in: 0..<20, using: &generator) == 0 {
        core.close(open.remove(at: Int.random(in: 0..<open.count, using: &generator)).cache)
      }
      core.batch.removeAll()
      var members: [Int] = []
      for index in open.indices.shuffled(using: &generator) {
        let left = core.batch.rowCapacity - core.batch.rowCount
        guard left > 0, members.isEmpty || Int.random(in: 0..<4, using: &generator) > 0 else {
          continue
        }
        append(&open[index], lines, to: core, most: left, using: &generator)
        members.append(index)
      }
      try step(core, lines, members.map { open[$0] }, comment)
      for (number, index) in members.enumerated() {
        let (span, drafts) = (core.batch.spans[number], open[index].drafts)
        open[index].position += span.rows.count - span.draftCount
        let right = open[index].isRight.indices.filter { open[index].isRight[$0] }
        guard !drafts.isEmpty, let last = right.randomElement(using: &generator) else { continue }
        open[index].position += drafts.depth(ofRow: last)
        core.batch.keepDrafts(
          ofSpan: number, branch: drafts.branch(ofRow: last), to: open[index].position)
      }
      for index in members.sorted(by: >) {
        let line = lines[open[index].line]
        guard open[index].position == line.prompt.count + line.decoding.count else { continue }
        core.close(open.remove(at: index).cache)
      }
    }
  }

  /// Takes a sequence back to an earlier position, from where it is read again, or lets it go on twice.
  private func changeCourse(
    _ open: inout [Open], in core: EngineCore, using generator: inout SeededGenerator
  ) throws {
    guard let index = open.indices.randomElement(using: &generator) else { return }
    if Bool.random(using: &generator) {
      let target = Int.random(in: 0...open[index].position, using: &generator)
      open[index].position = try core.truncate(open[index].cache, to: target)
      #expect(open[index].position <= target)
    } else if core.freeSequenceCount > 0 {
      open.append(
        Open(
          line: open[index].line, cache: try core.fork(open[index].cache),
          position: open[index].position))
    }
  }

  private func append(
    _ sequence: inout Open, _ lines: [Line], to core: EngineCore, most: Int,
    using generator: inout SeededGenerator
  ) {
    (sequence.drafts, sequence.isRight) = (DraftRows(), [true])
    let line = lines[sequence.line]
    let prompt = line.prompt
    guard sequence.position < prompt.count else {
      let decoding = line.decoding[(sequence.position - prompt.count)...]
      // What follows is drafted, in part rightly, as far as the sweep has room for drafts of all sequences.
      let drafted = core.batch.spans.reduce(0) { $0 + $1.draftCount }
      let rows = randomDrafts(
        of: Array(decoding.dropFirst()), core.draftRoom(of: sequence.cache),
        branchCount: core.batch.branchCount,
        most: max(0, min(most - 1, core.plan.draftRowCount - drafted)), using: &generator)
      sequence.drafts = rows
      sequence.isRight = (0...rows.tokens.count).map {
        let path = rows.path(toRow: $0)
        return decoding.dropFirst().starts(with: path)
      }
      ([decoding[decoding.startIndex]] + rows.line).withUnsafeBufferPointer { tokens in
        core.batch.append(
          tokens, at: sequence.position, .answer, in: sequence.cache, logitCount: tokens.count,
          draftCount: rows.lineCount)
      }
      core.batch.appendBranches(of: rows, at: sequence.position + 1)
      return
    }
    let count = Int.random(
      in: 1...min(most, prompt.count - sequence.position, core.plan.chunkLength), using: &generator)
    let end = sequence.position + count
    prompt.withUnsafeBufferPointer {
      core.batch.append(
        UnsafeBufferPointer(rebasing: $0[sequence.position..<end]), at: sequence.position,
        .read, promptEnd: prompt.count, in: sequence.cache, logitCount: end == prompt.count ? 1 : 0)
    }
  }

  /// A tree of drafts whose lines may each begin with some of what is right.
  private func randomDrafts(
    of right: [Int32], _ room: DraftRoom, branchCount: Int, most: Int,
    using generator: inout SeededGenerator
  ) -> DraftRows {
    var rows = DraftRows()
    let most = min(room.count, most)
    for chain in 0...Int.random(in: 0...max(0, room.branchCount - branchCount), using: &generator) {
      var row = Int.random(in: 0...rows.tokens.count, using: &generator)
      let deepest = chain == 0 ? room.depth : room.branchDepth
      for _ in 0..<Int.random(in: 0...4, using: &generator)
      where rows.tokens.count < most && rows.depth(ofRow: row) < deepest {
        let depth = rows.depth(ofRow: row)
        let isRight = depth < right.count && Int.random(in: 0..<4, using: &generator) > 0
        rows.append(
          isRight ? right[depth] : Int32.random(in: 0..<Self.vocabularyCount, using: &generator),
          after: row)
        row = rows.tokens.count
      }
    }
    return rows
  }

  private func step(
    _ core: EngineCore, _ lines: [Line], _ members: [Open], _ comment: Comment
  ) throws {
    // Of each row of logits, whose it is and after which position; nil where it follows a draft that is wrong.
    var wanting = zip(members, core.batch.spans).flatMap { sequence, span in
      let end = span.positions.upperBound - sequence.drafts.lineCount
      guard end >= lines[sequence.line].prompt.count else {
        return [(line: Int, position: Int)?]()
      }
      return sequence.isRight.enumerated().map { row, isRight in
        isRight ? (sequence.line, end - 1 + sequence.drafts.depth(ofRow: row)) : nil
      }
    }[...]
    let vocabularyCount = Int(Self.vocabularyCount)
    try core.step(continues: true) { _, logits in
      for row in 0..<logits.count / vocabularyCount {
        guard let next = wanting.popFirst(), let next else { continue }
        let line = lines[next.line]
        let found = logits[row * vocabularyCount..<(row + 1) * vocabularyCount].map(\.bitPattern)
        #expect(
          found == line.expected[next.position + 1 - line.prompt.count],
          "position \(next.position) of line \(next.line), \(comment)")
      }
    }
    #expect(wanting.isEmpty)
  }

  private func randomShape(
    _ type: KeyValueType, modelByteCount: Int, using generator: inout SeededGenerator
  ) -> RunShape {
    let spare: [Int?] = [0, 1 << 14, modelByteCount / 3, modelByteCount, nil]
    var shape = RunShape(
      backend: [.auto, .uring, .pread, .mmap].randomElement(using: &generator) ?? .auto,
      threadCount: Int.random(in: 1...3, using: &generator),
      maximumChunkLength: Int.random(in: 1...200, using: &generator),
      spareByteCount: spare.randomElement(using: &generator) ?? nil)
    shape.keyValues.type = type
    return shape
  }

  @Test(
    arguments: TinyFamilies.names + TinyFamilies.expertNames + TinyFamilies.factorNames,
    KeyValueType.allCases)
  func `Any batch of any sequences`(family: String, type: KeyValueType) throws {
    var generator = SeededGenerator(seed: 0xBA7C)
    var model = TinyFamilies.model(family)
    model.vocabularyCount = Int(Self.vocabularyCount)
    model.contextLength = max(model.contextLength, Self.contextLength)
    model.matrixTypes = [.q8_0, .q4_0, .f16]
    let gguf = model.gguf(seed: 3).bytes()
    let (file, image) = (
      TemporaryFile(gguf), TemporaryFile(try ImageBuilder.image(of: gguf))
    )
    defer { extendLifetime((file, image)) }
    var lines = lines(9, longest: 300, using: &generator)
    lines[1].prompt = lines[0].prompt
    var alone = RunShape()
    alone.keyValues.type = type
    for index in lines.indices {
      let session = try makeSession(
        file.path, contextLength: Self.contextLength, promptLength: lines[index].prompt.count, alone
      )
      lines[index].expected = try logitBits(
        session, prompt: lines[index].prompt, decoding: lines[index].decoding)
    }
    for round in 0..<3 {
      let shape = randomShape(type, modelByteCount: gguf.count, using: &generator)
      let count = [1, 2, 5, 9][Int.random(in: 0..<4, using: &generator)]
      let source = try ModelSource.open(
        round % 2 == 0 ? file.path : image.path, backend: shape.backend)
      let core = try makeCore(source, shape, sequenceCount: count)
      try check(
        lines, in: core, using: &generator, "\(family), \(type), round \(round), \(count), \(shape)"
      )
    }
  }
}
