import BlockIO
import Glibc
import ModelFormat
import TensorBasics
import TestSupport
import Testing
import WeightLoader

/// When a file counts as the same model, and what is remembered of it.
@Suite struct WeightRecordsTests {
  private let folder = TemporaryFolder()
  private let cache = TemporaryFolder()
  private let bytes = TinyModel().gguf(seed: 1).bytes()

  private var records: WeightRecords { WeightRecords(folder: cache.path + "/checksums") }
  private var recordNames: [String] {
    ((try? FolderListing.names(in: cache.path + "/checksums")) ?? []).filter {
      ModelIdentity(text: $0) != nil
    }
  }

  private func open(_ name: String = "model", mirrors: [String] = []) throws -> ModelSource {
    try ModelSource.open("\(folder.path)/\(name)", mirrors: mirrors, records: records)
  }

  /// The file with one bit of a tensor's last byte flipped.
  private func edited(_ tensor: String) throws -> [UInt8] {
    let table = try TensorTable(try ImageBuilder.description(of: bytes).tensors)
    let record = try #require(table[tensor])
    var edited = bytes
    edited[record.byteSpan.upperBound - 1] ^= 1
    return edited
  }

  /// Writes to the file as it lies there, and puts its times back as far as a program can.
  private func overwrite(_ name: String, _ bytes: [UInt8]) {
    let path = "\(folder.path)/\(name)"
    var before = stat()
    stat(path, &before)
    let file = Glibc.open(path, O_WRONLY)
    precondition(pwrite(file, bytes, bytes.count, 0) == bytes.count)
    futimens(file, [before.st_atim, before.st_mtim])
    close(file)
  }

  @Test func `What was computed is remembered for that very file`() throws {
    folder.write("model", bytes)
    let source = try open()
    #expect(try source.knownIdentity() == nil)
    let identity = try #require(try source.computeIdentity())
    #expect(identity == ImageBuilder.identity(of: bytes, source.description))
    #expect(recordNames.count == 1)
    let again = try open()
    let before = again.device.statistics.requests
    #expect(try again.knownIdentity() == identity)
    #expect(try again.computeIdentity() == identity)
    #expect(again.device.statistics.requests == before)
    #expect(try again.verifyWeights(cancellation: CancellationFlag()) { _ in }.memory == .unchanged)
  }

  @Test func `Of more records than are kept, those used least recently go`() throws {
    folder.write("model", bytes)
    let identity = try #require(try open().computeIdentity())
    let own = try #require(recordNames.first)
    func write(_ name: String, secondsAgo: Int) {
      let path = "\(cache.path)/checksums/\(name)"
      if name != own { close(creat(path, 0o600)) }
      let time = timespec(tv_sec: time(nil) - secondsAgo, tv_nsec: 0)
      precondition(utimensat(AT_FDCWD, path, [time, time], 0) == 0)
    }
    // Older than all others, until it is used.
    write(own, secondsAgo: 4000)
    for number in 0..<600 {
      write(ModelIdentity.text(of: UInt64(number)), secondsAgo: 3600 - number)
    }
    #expect(try open().knownIdentity() == identity)
    folder.write("other", TinyModel().gguf(seed: 9).bytes())
    _ = try open("other").computeIdentity()
    #expect(recordNames.count == 512 && recordNames.contains(own))
    #expect(!recordNames.contains(ModelIdentity.text(of: 0)))
    #expect(try open().knownIdentity() == identity)
  }

  @Test func `A verification says what there was to compare the weights with`() throws {
    func memory(_ name: String = "model") throws -> WeightMemory {
      try open(name).verifyWeights(cancellation: CancellationFlag()) { _ in }.memory
    }
    folder.write("model", bytes)
    #expect(try memory() == .none)
    #expect(try memory() == .unchanged)
    overwrite("model", TinyModel().gguf(seed: 2).bytes())
    #expect(try memory() == .changed)
    #expect(try memory() == .unchanged)
    // Written anew under its name, with what it held at first, and as another file.
    folder.write("model", bytes)
    #expect(try memory() == .rewritten)
    folder.write("new", bytes)
    #expect(try memory("new") == .none)
  }

  @Test func `Weights few of which changed are damaged, and stay so until they are put back`()
    throws
  {
    func verify(_ name: String = "model") throws -> WeightMemory {
      try open(name).verifyWeights(cancellation: CancellationFlag()) { _ in }.memory
    }
    folder.write("model", bytes)
    #expect(try verify() == .none)
    let damaged = try edited("blk.1.ffn_down.weight")
    overwrite("model", damaged)
    for reads in 0..<3 {
      #expect {
        _ = try verify()
      } throws: { error in
        guard case .format(let cause)? = error as? LoaderError else { return false }
        return cause.kind == .checksumMismatch && cause.path == folder.path + "/model"
          && "\(cause)".contains("delete it and download it again")
      }
      // A run in between that learns what is there now does not make it good.
      if reads == 0 { try open().learnIdentity(within: 10_000) }
    }
    // Where it never was anything else, nothing tells that it is damaged.
    folder.write("copy", damaged)
    #expect(try verify("copy") == .none)
    overwrite("model", bytes)
    #expect(try verify() == .rewritten)
    #expect(try verify() == .unchanged)
    // In the place of a deleted file, whose number it may get, another model is no damage.
    unlink(folder.path + "/model")
    folder.write("model", TinyModel().gguf(seed: 3).bytes())
    #expect([.none, .changed].contains(try verify()))
    // Nor is one with nearly all weights of the first.
    unlink(folder.path + "/model")
    folder.write("model", damaged)
    _ = try verify()
  }

  @Test(
    arguments: [
      "token_embd.weight", "output_norm.weight", "blk.1.ffn_norm.weight", "blk.1.ffn_down.weight",
    ])
  func `A weight edited in place makes another model, though size and time are put back`(
    tensor: String
  ) throws {
    folder.write("model", bytes)
    let identity = try open().computeIdentity()
    let references = try #require(try open().references())
    overwrite("model", try edited(tensor))
    let source = try open()
    #expect(try source.knownIdentity() == nil)
    let unknown = try #require(try source.references())
    #expect(Set(unknown.all).isDisjoint(with: references.all))
    #expect(try source.computeIdentity() != identity)
    let known = try #require(try source.references())
    #expect(Set(known.all).isDisjoint(with: references.all))
    #expect(known.all.contains(unknown.best))
  }

  @Test func `A file that is replaced by a rename is another file`() throws {
    folder.write("model", bytes)
    let identity = try open().computeIdentity()
    folder.write("new", try edited("token_embd.weight"))
    rename(folder.path + "/new", folder.path + "/model")
    #expect(try open().knownIdentity() == nil)
    #expect(try open().computeIdentity() != identity)
  }

  @Test func `Copies, links and other names are the same model once their checksums are known`()
    throws
  {
    folder.write("model", bytes)
    let first = try #require(try open().references())
    let identity = try #require(try open().computeIdentity())
    folder.write("copy", bytes)
    #expect(try open("copy").knownIdentity() == nil)
    #expect(Set(try #require(try open("copy").references()).all).isDisjoint(with: first.all))
    #expect(try open("copy").computeIdentity() == identity)
    let copy = try #require(try open("copy").references())
    // What was kept of the first file before anything was known of it is the copy's as well.
    #expect(copy.best == .content(identity) && copy.all.contains(first.best))
    // A link changes the file's change time: nothing tells it from an edit.
    link(folder.path + "/model", folder.path + "/link")
    #expect(try open("link").knownIdentity() == nil)
    #expect(try open("link").computeIdentity() == identity)
    #expect(try open("model").knownIdentity() == identity)
    #expect(try #require(try open("link").references()).all.contains(first.best))
  }

  @Test func `Damaged records are ignored and written anew`() throws {
    folder.write("model", bytes)
    let identity = try open().computeIdentity()
    let path = "\(cache.path)/checksums/\(try #require(recordNames.first))"
    let name = "checksums/" + recordNames[0]
    let intact = cache.read(name)
    for seed in UInt64(0)..<120 {
      var generator = SeededGenerator(seed: seed)
      let damaged =
        seed < 40
        ? Array(intact.prefix(Int(seed) * intact.count / 40))
        : Mutation.mutate(intact, using: &generator)
      guard damaged != intact else { continue }
      cache.write(name, damaged)
      #expect(try open().knownIdentity() == nil, "seed \(seed)")
      #expect(try #require(try open().references()).all.count == 1, "seed \(seed)")
    }
    #expect(try open().computeIdentity() == identity)
    #expect(try open().knownIdentity() == identity && access(path, F_OK) == 0)
  }

  @Test func `Processes that learn the same file at once never leave a wrong record`() async throws
  {
    var model = TinyModel()
    model.vocabularyCount = 40_000
    folder.write("model", model.gguf(seed: 1).bytes())
    let (path, records) = (folder.path + "/model", records)
    let identities = await withTaskGroup(of: ModelIdentity?.self) { group in
      for number in 0..<8 {
        group.addTask {
          let source = try? ModelSource.open(path, records: records)
          if number % 2 == 0 { source?.learnIdentity(within: 1 + number) }
          return try? source?.computeIdentity()
        }
      }
      var found: Set<ModelIdentity?> = []
      for await identity in group { found.insert(identity) }
      return found
    }
    #expect(identities.count == 1 && identities.first != .some(nil))
    // Threads of one process may spoil each other's file, which is then as if it were not there.
    let identity = try open().knownIdentity()
    #expect(identity == nil || identity == identities.first)
    #expect(try open().computeIdentity() == identities.first)
    #expect(try open().knownIdentity() == identities.first)
  }

  @Test func `Learning goes on where the last run stopped`() throws {
    var model = TinyModel()
    model.vocabularyCount = 100_000
    let bytes = model.gguf(seed: 1).bytes()
    folder.write("model", bytes)
    for _ in 0..<2 {
      try open().learnIdentity(within: 0)
      #expect(try open().knownIdentity() == nil)
    }
    let flag = CancellationFlag()
    flag.raise()
    try open().learnIdentity(within: 10_000, cancellation: flag)
    #expect(try open().knownIdentity() == nil)
    // However short its moments are, it ends.
    for _ in 0..<1000 where try open().knownIdentity() == nil {
      try open().learnIdentity(within: 1)
    }
    #expect(
      try open().knownIdentity()
        == ImageBuilder.identity(of: bytes, try open().description))
  }

  @Test func `A drive that returns other bytes of an unchanged file is found out`() throws {
    folder.write("model", bytes)
    _ = try open().computeIdentity()
    // The record of another content under this file's name stands for a drive that changed its mind.
    folder.write("other", try edited("token_embd.weight"))
    _ = try open("other").computeIdentity()
    #expect(recordNames.count == 2)
    let source = try open()
    let names = recordNames.map { "checksums/" + $0 }
    let identity = try #require(try source.knownIdentity())
    let own = try #require(
      names.first {
        cache.read($0)[24..<32].elementsEqual(
          withUnsafeBytes(of: identity.number.littleEndian, Array.init))
      })
    var record = cache.read(own)
    record[record.count - 16] ^= 1
    let sum = record.dropLast(8).withUnsafeBytes(Checksum.of)
    record.replaceSubrange(
      (record.count - 8)..., with: withUnsafeBytes(of: sum.littleEndian, Array.init))
    cache.write(own, record)
    #expect {
      _ = try source.verifyWeights(cancellation: CancellationFlag()) { _ in }
    } throws: { "\($0)".contains("the drive returned something else") }
  }

  @Test func `Copies of a file without checksums are compared whole`() throws {
    folder.write("model", bytes)
    folder.write("copy", bytes)
    let source = try open(mirrors: [folder.path + "/copy"])
    #expect(try source.knownIdentity() == ImageBuilder.identity(of: bytes, source.description))
    for tensor in ["token_embd.weight", "blk.1.ffn_down.weight"] {
      folder.write("fake", try edited(tensor))
      #expect {
        _ = try open(mirrors: [folder.path + "/fake"])
      } throws: {
        "\($0)".contains("not a copy of \(folder.path)/model: ") && "\($0)".contains("weights")
      }
    }
  }

  @Test func `So are those that a loader of tensors shares its reads among`() throws {
    folder.write("model", bytes)
    folder.write("copy", bytes)
    folder.write("fake", try edited("blk.1.ffn_down.weight"))
    var options = LoaderOptions()
    options.mirrors = [folder.path + "/copy"]
    _ = try TensorLoader.open(folder.path + "/model", options: options)
    options.mirrors = [folder.path + "/fake"]
    #expect {
      _ = try TensorLoader.open(folder.path + "/model", options: options)
    } throws: { "\($0)".contains("not a copy of \(folder.path)/model: ") }
  }

  @Test func `An image is known at once, whatever it is called and wherever it lies`() throws {
    let image = try ImageBuilder.image(of: bytes)
    folder.write("model", image)
    folder.write("copy", image)
    let (first, copy) = (try #require(try open().references()), try open("copy").references())
    #expect(first.best == copy?.best)
    #expect(recordNames.isEmpty)
    let other = try ImageBuilder.image(of: try edited("blk.1.ffn_down.weight"))
    folder.write("other", other)
    #expect(try open("other").references()?.best != first.best)
  }

  @Test func `A file that changes while its checksums are taken has no identity, and leaves none`()
    throws
  {
    folder.write("model", bytes)
    let path = folder.path + "/model"
    let plain = try open()
    let device = FaultyDevice(plain.device, paths: [path])
    let source = ModelSource(
      path: path, description: plain.description, device: device, records: records)
    let other = try edited("token_embd.weight")
    device.onRead = { number, _ in
      if number == 0 { overwrite("model", other) }
      return nil
    }
    #expect {
      _ = try source.computeIdentity()
    } throws: { "\($0)".contains(path) && "\($0)".contains("changed") }
    #expect(device.readCount > 0 && recordNames.isEmpty)
  }

  @Test func `A file's identity is told once no later change can bear its time`() throws {
    for _ in 0..<5 {
      folder.write("model", bytes)
      let identities = try open().device.settledFileIdentities()
      var now = timespec()
      clock_gettime(CLOCK_REALTIME, &now)
      let change = try #require(identities.first).change
      let nanoseconds =
        (Int(now.tv_sec) - change.seconds) * 1_000_000_000 + Int(now.tv_nsec) - change.nanoseconds
      // The kernel's clock for file times steps every 10 ms at most.
      #expect(nanoseconds > 10_000_000)
    }
  }

  @Test func `A change during a run is noticed at its end`() throws {
    folder.write("model", bytes)
    for change in 0..<3 {
      let source = try open()
      let references = try #require(try source.references())
      #expect(source.isUnchanged(since: references))
      switch change {
      case 0: overwrite("model", bytes)
      case 1: chmod(folder.path + "/model", 0o600)
      default:
        folder.write("new", bytes)
        rename(folder.path + "/new", folder.path + "/model")
      }
      #expect(!source.isUnchanged(since: references), "change \(change)")
    }
  }
}
