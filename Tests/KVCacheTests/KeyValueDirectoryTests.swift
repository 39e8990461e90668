import BlockIO
import Glibc
import KVCache
import ModelFormat
import TensorBasics
import TestSupport
import Testing

/// The store of keys and values by itself, with made-up data.
@Suite final class KeyValueDirectoryTests {
  private let folder = TemporaryFolder()

  private func maker(limit: Int = 1 << 30) throws -> EntryMaker {
    EntryMaker(directory: try KeyValueDirectory(path: folder.path, byteLimit: limit))
  }

  @Test("Whole page groups of a prompt's beginning are found, and one token is left to compute")
  func prefixes() throws {
    let maker = try maker()
    let tokens = EntryMaker.tokens(500, seed: 1)
    #expect(maker.found(tokens) == 0)
    try maker.store(tokens)
    let other = EntryMaker.tokens(500, seed: 2)
    #expect(maker.found(tokens) == 384)
    #expect(maker.found(Array(tokens[..<384])) == 256)
    #expect(maker.found(Array(tokens[..<385])) == 384)
    #expect(maker.found(Array(tokens[..<300]) + other) == 256)
    #expect(maker.found(Array(tokens[..<127]) + other) == 0)
    #expect(maker.found([]) == 0)
    #expect(maker.found(other) == 0)
  }

  @Test("What a folder has is told in numbers of the beginnings that are found there")
  func hashes() throws {
    let maker = try maker()
    let tokens = EntryMaker.tokens(700, seed: 1)
    let other = Array(tokens[..<300]) + EntryMaker.tokens(300, seed: 2)
    let numbers = KeyValueDirectory.hashes(of: tokens[...])
    #expect(numbers.count == 5 && Set(numbers).count == 5)
    #expect(KeyValueDirectory.hashes(of: tokens[..<383]) == Array(numbers[..<2]))
    let first = tokens[..<128].withUnsafeBytes { Checksum.of(UnsafeRawBufferPointer($0)) }
    #expect(numbers[0] == first)
    let rest = KeyValueDirectory.hashes(of: tokens[256...], after: numbers[1])
    #expect(rest == Array(numbers[2...]))
    func stored() -> Set<UInt64> { maker.directory.storedHashes([maker.origin]) }
    #expect(stored().isEmpty)
    // Entries of which one goes on with another, and one that leaves it.
    try maker.store(Array(tokens[..<400]))
    #expect(stored() == Set(numbers[..<3]))
    try maker.store(tokens)
    try maker.store(other)
    #expect(stored() == Set(numbers + KeyValueDirectory.hashes(of: other[...])))
    var foreign = maker
    foreign.origin = maker.origin.of(.content(8))
    #expect(maker.directory.storedHashes([foreign.origin]).isEmpty)
    // Without the first, what goes on with it is none's beginning.
    _ = maker.directory.removeAll()
    #expect(stored().isEmpty)
  }

  @Test("A prompt may leave an entry in the middle of a page group") func tails() throws {
    let maker = try maker()
    let tokens = EntryMaker.tokens(500, seed: 1)
    try maker.store(tokens, keepsPartial: true)
    func found(_ prompt: [Int32]) -> KeyValuePrefix {
      maker.directory.prefix(of: prompt, origin: maker.origin)
    }
    #expect(found(tokens + [1]).tokenCount == 500)
    #expect(found(tokens).tokenCount == 499)
    #expect(found(Array(tokens[..<450]) + [2000, 1]).tokenCount == 450)
    #expect(found(Array(tokens[..<300]) + [2000, 1]).tokenCount == 300)
    #expect(found(Array(tokens[..<256]) + [2000]).tail == nil)
    #expect(found(Array(tokens[..<100]) + [2000]).tokenCount == 0)
    #expect(maker.directory.items().first?.tokenCount == 500)
    let page = try AlignedBuffer(byteCount: maker.origin.pageStride)
    for (end, prompt) in [(500, tokens), (384, Array(tokens[..<300]))] {
      let tail = try #require(found(prompt).tail)
      for layer in 0..<2 {
        #expect(tail.read(layer: layer, into: page.bytes))
        #expect(page.bytes.starts(with: maker.page(tokens[..<end], layer: layer)))
      }
    }
    let name = try #require(folder.entries.first)
    var bytes = folder.read(name)
    bytes[bytes.count - 4096] ^= 1
    folder.write(name, bytes)
    let tail = try #require(found(tokens).tail)
    #expect(tail.read(layer: 0, into: page.bytes) && !tail.read(layer: 1, into: page.bytes))
    // What continues it begins with whole page groups of its own.
    try maker.store(tokens + EntryMaker.tokens(100, seed: 2))
    #expect(maker.found(tokens + EntryMaker.tokens(100, seed: 2)) == 512)
  }

  @Test("What was being filled may be of another size than what is complete, which is taken whole")
  func tailsOfAnotherSize() throws {
    for byteCount in [100, 4096, 9000] {
      var maker = try maker()
      maker.tailPageByteCount = byteCount
      let tokens = EntryMaker.tokens(300, seed: UInt64(byteCount))
      try maker.store(tokens, keepsPartial: true)
      let buffer = try AlignedBuffer(byteCount: byteCount)
      for (prompt, count) in [
        (tokens + [1], 300), (tokens, 299), (tokens.prefix(270) + [2000, 1], 270),
        (tokens.prefix(200) + [2000], 128),
      ] {
        let prefix = maker.directory.prefix(
          of: prompt, origin: maker.origin, dividingPageGroups: false)
        #expect(prefix.tokenCount == count && maker.isIntact(prefix, of: tokens))
        for layer in 0..<2 where count > 256 {
          #expect(prefix.tail?.read(layer: layer, into: buffer.bytes) == true)
          #expect(
            buffer.bytes.prefix(byteCount).elementsEqual(maker.tailPage(tokens[...], layer: layer)))
        }
      }
      // Where there is less room, nothing is read.
      let tail = try #require(
        maker.directory.prefix(of: tokens, origin: maker.origin, dividingPageGroups: false).tail)
      #expect(!tail.read(layer: 0, into: .init(rebasing: buffer.bytes.prefix(byteCount - 1))))
    }
  }

  @Test(
    "A continuation stores its own page groups alone, and branches share what they have in common")
  func continuations() throws {
    let maker = try maker()
    let stem = EntryMaker.tokens(384, seed: 1)
    let branches = (2...4).map { Array(stem[..<256]) + EntryMaker.tokens(300, seed: $0) }
    try maker.store(stem)
    let twig = branches[0] + EntryMaker.tokens(256, seed: 9)
    for tokens in branches + [twig] { try maker.store(tokens) }
    for tokens in branches { #expect(maker.found(tokens + [1]) == 512) }
    #expect(maker.found(twig + [1]) == 768)
    #expect(maker.found(stem + [1]) == 384)
    let own = maker.directory.items().map(\.ownTokenCount).sorted()
    #expect(own == [256, 256, 256, 256, 384])
    #expect(try maker.store(twig) == .nothingNew)
    #expect(maker.directory.items().count == 5)
  }

  @Test("Listing says what entries are; forgetting deletes them") func listing() throws {
    let maker = try maker()
    try maker.store(EntryMaker.tokens(128, seed: 1), text: "Once upon a time")
    try maker.store(EntryMaker.tokens(256, seed: 2))
    let items = maker.directory.items()
    #expect(items.map(\.tokenCount) == [256, 128])
    #expect(items.allSatisfy { $0.problem == nil && $0.ageSeconds < 60 && $0.byteCount > 8192 })
    #expect(items[1].text == Array("Once upon a time".utf8))
    #expect(items[1].modelName == Array("tiny".utf8))
    #expect(!maker.directory.remove("../etc/passwd"))
    #expect(!maker.directory.remove("0"))
    #expect(maker.directory.remove(items[0].id))
    #expect(!maker.directory.remove(items[0].id))
    #expect(maker.directory.removeAll() == 1)
    #expect(folder.entries.isEmpty)
  }

  @Test("What is worth least goes first, and what continues another before that one")
  func deletion() throws {
    let all = try maker()
    let stem = EntryMaker.tokens(256, seed: 1)
    let branch = stem + EntryMaker.tokens(256, seed: 2)
    let old = EntryMaker.tokens(256, seed: 3)
    for tokens in [old, stem, branch] { try all.store(tokens) }
    let size = try #require(all.directory.items().map(\.byteCount).max())
    // Used once more than the branch, which its stem was used for.
    #expect(all.found(old + [1]) == 256)
    let small = try maker(limit: 3 * size)
    try small.store(EntryMaker.tokens(256, seed: 4))
    #expect(all.directory.items().count == 3)
    #expect(small.found(old + [1]) == 256)
    #expect(small.found(branch + [1]) == 256, "the end of a chain went, and not its beginning")
    let tiny = try maker(limit: size / 2)
    #expect(try tiny.store(EntryMaker.tokens(256, seed: 6)) == .tooLarge)
    #expect(folder.entries.count == 3)
  }

  @Test(
    "A chain and what continues it keep to the limit together, and what is refused costs nothing")
  func chains() throws {
    let all = try maker()
    let stem = EntryMaker.tokens(256, seed: 1)
    let branch = stem + EntryMaker.tokens(256, seed: 2)
    let other = EntryMaker.tokens(128, seed: 3)
    for tokens in [stem, branch, other] { try all.store(tokens) }
    func total() -> Int { all.directory.items().reduce(0) { $0 + $1.byteCount } }
    let chain = all.directory.items().filter { $0.tokenCount > 128 }
    // The longer a context, the longer its header.
    let limit = total() + 8192
    let twig = branch + EntryMaker.tokens(512, seed: 4)
    let small = try maker(limit: limit)
    #expect(try small.store(twig) == .tooLarge)
    #expect(small.found(branch + [1]) == 512 && small.found(other + [1]) == 128)
    // What does fit beside the chain takes the place of another.
    let leaf = branch + EntryMaker.tokens(128, seed: 5)
    guard case .stored = try small.store(leaf) else {
      Issue.record("it has room")
      return
    }
    #expect(small.found(leaf + [1]) == 640 && small.found(other + [1]) == 0 && total() <= limit)
    // A store that has no room for the shortest continuation has none begun.
    let prefix = small.directory.prefix(of: branch + [1], origin: small.origin)
    let full = try maker(limit: chain.reduce(0) { $0 + $1.byteCount } + 4096)
    #expect(full.directory.isTooSmall(for: full.origin, after: prefix))
    #expect(!full.directory.isTooSmall(for: full.origin))
    #expect(!small.directory.isTooSmall(for: full.origin, after: prefix))
  }

  @Test("Uses fade, and are worth what they save of a byte") func worth() throws {
    let all = try maker()
    let often = EntryMaker.tokens(256, seed: 1)
    let once = EntryMaker.tokens(256, seed: 2)
    let path = try stored(often, in: all)
    for _ in 0..<7 { #expect(all.found(often + [1]) == 256) }
    try all.store(once)
    let size = try #require(all.directory.items().map(\.byteCount).max())
    let uses = all.directory.items().map(\.useCount)
    #expect(abs(uses[0] - 1) < 0.01 && abs(uses[1] - 8) < 0.01)
    // Two days make eight uses two, four days half a one.
    try age(path, days: 2)
    let faded = try #require(all.directory.items().last)
    #expect(abs(faded.useCount - 2) < 0.01 && faded.ageSeconds >= 2 * 86_400)
    let small = try maker(limit: 2 * size)
    try small.store(EntryMaker.tokens(256, seed: 3))
    #expect(small.found(often + [1]) == 256 && small.found(once + [1]) == 0)
    try age(path, days: 4)
    let damaged = try stored(EntryMaker.tokens(256, seed: 4), in: small)
    #expect(small.found(often + [1]) == 0)
    #expect(small.found(EntryMaker.tokens(256, seed: 3) + [1]) == 256)
    // What cannot be used is worth nothing, however new it is.
    let file = open(damaged, O_WRONLY)
    pwrite(file, [UInt8](repeating: 1, count: 4096), 4096, 0)
    close(file)
    try small.store(EntryMaker.tokens(256, seed: 5))
    #expect(small.found(EntryMaker.tokens(256, seed: 3) + [1]) == 256)
    #expect(access(damaged, F_OK) != 0)
  }

  /// Stores tokens, and returns the entry's file.
  private func stored(_ tokens: [Int32], in maker: EntryMaker) throws -> String {
    let outcome = try maker.store(tokens)
    guard case .stored(let id) = outcome else {
      Issue.record("\(outcome)")
      return ""
    }
    return "\(folder.path)/\(id).kv"
  }

  /// Makes an entry's last use so long ago.
  private func age(_ path: String, days: Int) throws {
    let time = timespec(tv_sec: Glibc.time(nil) - days * 86_400, tv_nsec: 0)
    try #require(utimensat(AT_FDCWD, path, [time, time], 0) == 0)
  }

  @Test("Temporary files that nobody writes are removed; those being written stay")
  func abandoned() throws {
    let maker = try maker()
    folder.write("0123456789abcdef.part", [1, 2, 3])
    folder.write("mine.part", [1])
    let writer = try KeyValueEntryWriter(
      in: maker.directory, origin: maker.origin, pageGroupCapacity: 1, modelName: "")
    _ = try self.maker()
    #expect(folder.entries.count == 2 && folder.entries.contains("mine.part"))
    #expect(access(writer.path, F_OK) == 0)
  }

  @Test("What is deleted stays readable to those who have it open") func deletedWhileOpen() throws {
    let (reader, writer) = (try maker(), try maker())
    let tokens = EntryMaker.tokens(256, seed: 1)
    try writer.store(tokens)
    let prefix = reader.directory.prefix(of: tokens + [2000], origin: reader.origin)
    #expect(writer.directory.removeAll() == 1)
    try writer.store(EntryMaker.tokens(256, seed: 2))
    #expect(prefix.tokenCount == 256 && reader.isIntact(prefix, of: tokens))
    // The entry it continues is gone, so it can never be found: it is stored, and removed later.
    let longer = tokens + EntryMaker.tokens(128, seed: 3)
    let late = try KeyValueEntryWriter(
      in: reader.directory, origin: reader.origin, pageGroupCapacity: 3, modelName: "")
    _ = try late.commit(after: prefix, tokens: longer, pageChecksums: [1, 2], text: [])
    #expect(reader.found(longer + [1]) == 0)
    #expect(folder.entries.count == 1)
  }

  @Test("Two processes that store the same store it once") func sameTwice() throws {
    let maker = try maker()
    let tokens = EntryMaker.tokens(128, seed: 1)
    let late = try KeyValueEntryWriter(
      in: maker.directory, origin: maker.origin, pageGroupCapacity: 9, modelName: "")
    try maker.store(tokens)
    #expect(
      try late.commit(after: .none, tokens: tokens, pageChecksums: [1, 2], text: [])
        == .nothingNew)
    #expect(maker.found(tokens + [1]) == 128)
  }

  @Test("A folder that goes away is an error, not the end") func lostFolder() throws {
    let path = folder.path + "/store"
    var maker = try maker()
    maker.directory = try KeyValueDirectory(path: path, byteLimit: 1 << 30)
    let writer = try KeyValueEntryWriter(
      in: maker.directory, origin: maker.origin, pageGroupCapacity: 1, modelName: "")
    unlink(writer.path)
    rmdir(path)
    #expect(throws: BlockIOError.self) {
      try writer.commit(
        after: .none, tokens: EntryMaker.tokens(128, seed: 1), pageChecksums: [1, 2], text: [])
    }
    #expect(maker.found([1, 2]) == 0)
    #expect(throws: BlockIOError.self) { try maker.store(EntryMaker.tokens(128, seed: 1)) }
  }
}
