import BlockIO
import ModelFormat
import TensorBasics
import TestSupport
import Testing
import WeightLoader

@Suite struct ExpertTraceTests {
  private func trace(name: String = "Modèle 8×7", tokens: Int = 5) -> ExpertTrace {
    var trace = ExpertTrace.synthetic(
      .zipf(exponent: 1), repeatProbability: 0.3, layerCount: 3, expertCount: 10, usedCount: 4,
      tokenCount: tokens, seed: 3)
    trace.modelName = name
    trace.modelChecksum = 0x0123_4567_89AB_CDEF
    return trace
  }

  private func withChecksum(_ bytes: [UInt8]) -> [UInt8] {
    let checksum = bytes.withUnsafeBytes(Checksum.of)
    return bytes + (0..<8).map { UInt8(truncatingIfNeeded: checksum >> (8 * $0)) }
  }

  private func parse(_ bytes: [UInt8]) -> Result<ExpertTrace, FormatError> {
    bytes.withUnsafeBytes { bytes in
      Result { () throws(FormatError) in try ExpertTrace.parse(bytes, path: "trace") }
    }
  }

  @Test func comesBackFromItsFile() throws {
    let folder = TemporaryFolder()
    for tokens in [0, 1, 7] {
      let path = folder.path + "/trace"
      try trace(tokens: tokens).write(to: OutputFile(path: path, reserving: 0, inputs: []))
      #expect(try ExpertTrace.read(path) == trace(tokens: tokens))
      #expect(folder.entries == ["trace"], "nothing temporary stays")
    }
    #expect(throws: LoaderError.self) { try ExpertTrace.read(folder.path + "/none") }
    #expect(throws: BlockIOError.self) {
      try OutputFile(path: folder.path + "/none/trace", reserving: 0, inputs: [])
    }
  }

  @Test func keepsWholeTokensAndNamesCutBetweenCharacters() throws {
    var trace = trace(name: "a" + String(repeating: "é", count: 600))
    trace.append([0, 1, 2, 3])
    let read = try parse(withChecksum(trace.fileBytes())).get()
    #expect(read.tokenCount == 5)
    #expect(read.modelName == "a" + String(repeating: "é", count: 511))
  }

  @Test func everyTruncationIsRefused() {
    let bytes = withChecksum(trace().fileBytes())
    for count in 0..<bytes.count {
      guard case .failure(let error) = parse(Array(bytes[..<count])) else {
        Issue.record("\(count) bytes of \(bytes.count) were accepted")
        continue
      }
      #expect(error.kind == (count == 0 ? .unrecognised : .truncated), "\(count): \(error)")
      #expect(error.offset != nil)
    }
  }

  @Test func everyFlippedBitIsRefused() {
    let bytes = withChecksum(trace().fileBytes())
    for bit in 0..<bytes.count * 8 {
      var damaged = bytes
      damaged[bit / 8] ^= 1 << UInt8(bit % 8)
      guard case .failure(let error) = parse(damaged) else {
        Issue.record("bit \(bit) was not missed")
        continue
      }
      #expect(error.offset != nil)
    }
  }

  @Test func hostileFilesWithRightChecksumsNeverTrap() {
    let bytes = trace().fileBytes()
    let fields = [8, 12, 16, 20, 24, 28, 48].map { (offset: $0, byteCount: 4) }
    let wide = [32, 40].map { (offset: $0, byteCount: 8) }
    for seed in UInt64(0)..<4000 {
      var generator = SeededGenerator(seed: seed)
      let damaged = Mutation.mutate(bytes, fields: fields + wide, using: &generator)
      switch parse(withChecksum(damaged)) {
      case .success(let trace):
        #expect(trace.useCount == trace.choices.count, "seed \(seed)")
      case .failure(let error): #expect(error.offset != nil, "seed \(seed)")
      }
    }
  }

  @Test func errorsSayWhere() {
    func error(_ change: (inout [UInt8]) -> Void) -> FormatError? {
      var bytes = trace(name: "").fileBytes()
      change(&bytes)
      if case .failure(let error) = parse(withChecksum(bytes)) { return error }
      return nil
    }
    #expect(error { $0[66] = 10 }?.offset == 66, "expert 10 of 10")
    #expect(
      error {
        $0[68] = $0[66]
        $0[69] = $0[67]
      }?.offset == 68, "an expert twice")
    #expect(error { $0[8] = 2 }?.kind == .unsupported)
    #expect(error { $0[16] = 0 }?.offset == 16)
    #expect(error { $0[20] = 3 }?.offset == 24, "more used than there are")
    #expect(error { $0 += [0, 0] }?.kind == .malformed)
  }

  @Test func syntheticTracesAreWhatTheySay() {
    let trace = ExpertTrace.synthetic(
      .zipf(exponent: 1), repeatProbability: 0.5, layerCount: 2, expertCount: 64, usedCount: 4,
      tokenCount: 3000, seed: 1)
    var repeats = 0
    var counts = [Int](repeating: 0, count: 64)
    for token in 0..<3000 {
      let choice = Set(trace[token, 0])
      #expect(choice.count == 4)
      for expert in choice { counts[Int(expert)] += 1 }
      if token > 0 { repeats += choice.intersection(trace[token - 1, 0]).count }
    }
    // Half stay, and some of the others are drawn again.
    let rate = Double(repeats) / Double(2999 * 4)
    #expect(rate > 0.5 && rate < 0.75)
    counts.sort(by: >)
    #expect(counts[0] > 4 * counts[20])
    let same = ExpertTrace.synthetic(
      .zipf(exponent: 1), repeatProbability: 0.5, layerCount: 2, expertCount: 64, usedCount: 4,
      tokenCount: 3000, seed: 1)
    #expect(same == trace)
    // Steep popularity and all experts used still come to an end.
    let all = ExpertTrace.synthetic(
      .zipf(exponent: 16), repeatProbability: 0, layerCount: 1, expertCount: 6, usedCount: 6,
      tokenCount: 2, seed: 1)
    #expect(Set(all[1, 0]).count == 6)
  }
}
