import BlockIO
import Glibc
import KVCache
import ModelFormat
import TensorBasics
import TestSupport
import Testing

/// Stores whose files hold anything at all.
@Suite final class HostileEntryTests {
  private let folder = TemporaryFolder()
  private let prompt = EntryMaker.tokens(300, seed: 1)

  private func maker() throws -> EntryMaker {
    EntryMaker(directory: try KeyValueDirectory(path: folder.path, byteLimit: 1 << 30))
  }

  /// Puts the right checksum at the end of a page that was changed, so that what it says is believed.
  private func sign(_ bytes: inout [UInt8]) {
    guard bytes.count >= 4096 else { return }
    var checksum = bytes[..<4088].withUnsafeBytes(Checksum.of)
    for index in 4088..<4096 {
      bytes[index] = UInt8(truncatingIfNeeded: checksum)
      checksum >>= 8
    }
  }

  @Test(
    "Damage of any kind is found, by the header's checksums or by the pages'",
    arguments: [false, true])
  func mutations(signed: Bool) throws {
    var maker = try maker()
    maker.tailPageByteCount = 5000
    let logits = (0..<300).map { Float($0) / 7 }
    try maker.store(prompt, keepsPartial: true, logits: logits)
    let name = try #require(folder.entries.first)
    let intact = folder.read(name)
    var generator = SeededGenerator(seed: 5)
    let fields = [12, 32, 36, 40, 44].map { (offset: $0, byteCount: 4) }
    let longFields = stride(from: 16, through: 112, by: 8).map { (offset: $0, byteCount: 8) }
    let logitFields = stride(from: 4048, through: 4080, by: 8).map { (offset: $0, byteCount: 8) }
    for trial in 0..<1500 {
      var bytes = Mutation.mutate(
        intact, fields: fields + longFields + logitFields, limit: 8192, using: &generator)
      if signed { sign(&bytes) }
      folder.write(name, bytes)
      let prefix = maker.directory.prefix(of: prompt, origin: maker.origin)
      #expect(maker.isNeverWrong(prefix, of: prompt), "trial \(trial)")
      for count in [256, 299, 300] {
        let found = maker.logits(after: Array(prompt[..<count]), count: logits.count)
        #expect(found.values == nil || (found.values == logits && count == 300), "trial \(trial)")
      }
      _ = maker.directory.items()
    }
  }

  @Test("Logits are found after the tokens that they follow, and no others")
  func logits() throws {
    let maker = try maker()
    let values = (0..<700).map { Float($0).squareRoot() }
    let long = prompt + EntryMaker.tokens(212, seed: 2)
    try maker.store(prompt, keepsPartial: true, logits: values)
    #expect(maker.logits(after: prompt, count: 700) == (values, 300))
    #expect(maker.logits(after: prompt, count: 701) == (nil, 300))
    for count in [129, 256, 299] {
      #expect(maker.logits(after: Array(prompt[..<count]), count: 700) == (nil, count - 1))
    }
    // What goes on has its own, at the end of a page group.
    try maker.store(long, logits: values.reversed())
    #expect(maker.logits(after: long, count: 700) == (values.reversed(), 512))
    #expect(maker.logits(after: prompt, count: 700) == (values, 300))
    #expect(maker.logits(after: long + [1], count: 700) == (nil, 512))
    #expect(maker.logits(after: long.dropLast() + [1], count: 700) == (nil, 511))
    // Where complete pages cannot be divided, those that were being filled can.
    for (tokens, count) in [(prompt, 300), (long, 512), (Array(prompt.prefix(200)), 128)] {
      let prefix = maker.directory.prefix(
        of: tokens, origin: maker.origin, dividingPageGroups: false, usingLogits: true)
      #expect(prefix.tokenCount == count && prefix.hasLogits == (count == tokens.count))
    }
  }

  private func makerOfStates() throws -> EntryMaker {
    var maker = try maker()
    maker.origin = KeyValueOrigin(
      model: .content(7), graph: 1, type: "f16", layerCount: 2, keyValueHeadCount: 1, headDim: 8,
      pageByteCount: 4000, pageStride: 4096, stateByteCount: 8192)
    return maker
  }

  @Test func `What is found ends at the last states that it holds`() throws {
    let maker = try makerOfStates()
    try maker.store(prompt, keepsPartial: true, statesAfter: [130, 256, 290, 300])
    let long = prompt + EntryMaker.tokens(212, seed: 2)
    try maker.store(long, statesAfter: [310, 400, 512])
    // An entry is gone on with from its first page group on, where that is the prompt's.
    let expected = [
      (130, 0), (131, 130), (256, 130), (257, 256), (290, 256), (291, 290), (300, 290),
      (301, 300), (384, 300), (385, 310), (400, 310), (401, 400), (512, 400),
    ]
    for (count, whole) in expected {
      let begin = Array(long.prefix(count))
      let prefix = maker.directory.prefix(of: begin, origin: maker.origin)
      #expect(prefix.tokenCount == whole, "\(count) tokens")
      #expect(maker.isIntact(prefix, of: begin))
      #expect((prefix.states == nil) == (whole == 0))
      if whole > 0 { #expect(maker.states(of: prefix) == maker.states(whole)) }
      let undivided = maker.directory.prefix(
        of: begin, origin: maker.origin, dividingPageGroups: false)
      #expect(
        undivided.tokenCount <= whole
          && (undivided.tokenCount % 128 == 0 || [290, 300].contains(undivided.tokenCount)))
    }
    let other = maker.directory.prefix(of: long + [1], origin: maker.origin)
    #expect(other.tokenCount == 512 && other.tail == nil)
    // Keys and values alone are of no use.
    #expect(try maker.store(EntryMaker.tokens(300, seed: 4)) == .nothingNew)
  }

  @Test(arguments: [false, true])
  func `States that were damaged are found by their checksum`(signed: Bool) throws {
    let maker = try makerOfStates()
    let positions = [130, 200, 256, 299]
    try maker.store(prompt, keepsPartial: true, statesAfter: positions)
    let name = try #require(folder.entries.first)
    let intact = folder.read(name)
    var generator = SeededGenerator(seed: 6)
    let fields = stride(from: 3744, to: 4048, by: 8).map { (offset: $0, byteCount: 8) }
    var foundCount = 0
    for trial in 0..<1500 {
      var bytes = Mutation.mutate(
        intact, fields: fields + [(offset: 56, byteCount: 8)], limit: intact.count,
        using: &generator)
      if signed { sign(&bytes) }
      folder.write(name, bytes)
      for count in [140, 257, 300] {
        let prefix = maker.directory.prefix(of: Array(prompt[..<count]), origin: maker.origin)
        guard let states = maker.states(of: prefix) else { continue }
        foundCount += 1
        #expect(
          states == maker.states(prefix.tokenCount) && positions.contains(prefix.tokenCount),
          "trial \(trial)")
      }
    }
    #expect(foundCount > 0)
  }

  @Test("A file cut short anywhere is no entry") func truncation() throws {
    let maker = try maker()
    try maker.store(prompt)
    let name = try #require(folder.entries.first)
    let intact = folder.read(name)
    for count in [0, 1, 8, 4095, 4096, 4100, 8191, 8192, intact.count - 1] {
      folder.write(name, Array(intact[..<count]))
      #expect(maker.found(prompt) == 0, "\(count) bytes")
      #expect(folder.entries.isEmpty)
    }
    folder.write(name, intact)
    #expect(maker.found(prompt) == 256)
  }

  @Test("Entries of another model, type or version are left alone, with a line that says so")
  func others() throws {
    var maker = try maker()
    try maker.store(prompt)
    let own = maker.origin
    let origins: [(KeyValueOrigin.Model, UInt64, String)] = [
      (.content(8), 1, "f16"), (.file(7), 1, "f16"), (.content(7), 2, "f16"),
      (.content(7), 1, "q8"),
    ]
    for (model, graph, type) in origins {
      maker.origin = KeyValueOrigin(
        model: model, graph: graph, type: type, layerCount: 2, keyValueHeadCount: 1,
        headDim: 8, pageByteCount: 4000, pageStride: 4096)
      try maker.store(prompt)
    }
    maker.origin = own
    let names = Set(folder.entries)
    var notes: [String] = []
    maker.directory = try self.maker().directory
    maker.directory.note = { notes.append($0) }
    #expect(maker.found(prompt) == 256)
    #expect(notes.count == 2 && notes[0].contains("3 entries of another model"))
    #expect(notes[1].contains("another type"))
    // Said once.
    #expect(maker.found(prompt) == 256 && notes.count == 2)
    // Where this model's checksums are not known, it may be its own that are called another's.
    var other = try self.maker()
    other.directory.note = { notes.append($0) }
    other.origin = own.of(.file(99))
    #expect(other.found(prompt) == 0)
    #expect(notes.count == 3 && notes[2].contains("or of this one, whose checksums are not known"))
    #expect(notes[2].contains("--verify"))
    for name in names {
      var bytes = folder.read(name)
      bytes[8] = 1
      folder.write(name, bytes)
    }
    notes = []
    #expect(maker.found(prompt) == 0)
    #expect(notes.count == 1 && notes[0].contains("5 entries of another version"))
    #expect(Set(folder.entries) == names)
    #expect(maker.directory.items().allSatisfy { $0.problem == "of another version" })
  }

  @Test("An entry under another's name is none; links and other things are left alone")
  func names() throws {
    let maker = try maker()
    try maker.store(prompt)
    let name = try #require(folder.entries.first)
    let bytes = folder.read(name)
    symlink("\(folder.path)/\(name)", "\(folder.path)/00000000000000aa.kv")
    mkfifo("\(folder.path)/00000000000000ab.kv", 0o600)
    folder.write("notes.txt", [1])
    folder.write("00000000000000AC.kv", bytes)
    folder.write("00000000000000ad.kv", bytes)
    #expect(maker.found(prompt) == 256)
    #expect(folder.entries.count == 5)
    #expect(maker.directory.items().count == 1)
  }

  @Test("Entries that continue each other in a circle are never followed") func circles() throws {
    let maker = try maker()
    let long = prompt + EntryMaker.tokens(212, seed: 2)
    try maker.store(Array(long[..<128]))
    try maker.store(Array(long[..<256]))
    try maker.store(long)
    for name in folder.entries {
      var bytes = folder.read(name)
      // Each is its own parent.
      bytes.replaceSubrange(72..<80, with: bytes[64..<72])
      sign(&bytes)
      folder.write(name, bytes)
    }
    #expect(maker.found(long + [1]) == 128)
  }
}
