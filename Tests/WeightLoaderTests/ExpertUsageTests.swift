import Glibc
import ModelFormat
import TensorBasics
import TestSupport
import Testing
import WeightLoader

@Suite struct ExpertUsageTests {
  private let folder = TemporaryFolder()
  private let cache = TemporaryFolder()
  private let values = (0..<12).map { Float($0) / 11 }

  private func hotness(
    _ model: String = "model", _ references: [ModelReferences.Reference] = [.files(1)],
    layers: Int = 3
  ) -> ExpertUsage {
    ExpertUsage(
      modelPath: folder.path + "/" + model, Self.references(references), layerCount: layers,
      expertCount: 4,
      cacheFolder: cache.path + "/experts")
  }

  private static func references(_ all: [ModelReferences.Reference]) -> ModelReferences {
    ModelReferences(best: all[0], all: all, files: [])
  }

  @Test func comesBackFromBesideTheModel() throws {
    folder.write("model", Array(repeating: 7, count: 100))
    #expect(hotness().load { Issue.record("\($0)") } == nil)
    #expect(try hotness().save(values) == folder.path + "/model.experts")
    #expect(hotness().load { Issue.record("\($0)") } == values)
    #expect(folder.entries == ["model", "model.experts"])
    let others = values.map { 1 - $0 }
    try hotness().save(others)
    #expect(hotness().load() == others)
  }

  @Test func anotherModelsIsIgnoredWithANote() throws {
    folder.write("model", Array(repeating: 7, count: 100))
    try hotness().save(values)
    var notes: [String] = []
    #expect(hotness("model", [.content(ModelIdentity(2))]).load { notes.append($0) } == nil)
    #expect(hotness(layers: 2).load { notes.append($0) } == nil)
    #expect(notes.count == 2 && notes.allSatisfy { $0.contains("another model") }, "\(notes)")
  }

  @Test func `What was kept of a file is still its own when its checksums are known`() throws {
    folder.write("model", [7])
    try hotness().save(values)
    let known = [ModelReferences.Reference.content(ModelIdentity(9)), .files(1), .files(3)]
    #expect(hotness("model", known).load() == values)
    try hotness("model", known).save(values)
    #expect(hotness("model", [.content(ModelIdentity(9)), .files(4)]).load() == values)
    #expect(hotness("model", [.files(1)]).load() == nil)
  }

  @Test func damageIsIgnoredWithANote() throws {
    folder.write("model", Array(repeating: 7, count: 100))
    try hotness().save(values)
    let bytes = folder.read("model.experts")
    func check(_ damaged: [UInt8], _ what: String) {
      folder.write("model.experts", damaged)
      var notes = 0
      #expect(hotness().load { _ in notes += 1 } == nil, "\(what)")
      #expect(notes == 1, "\(what)")
    }
    for count in 0..<bytes.count { check(Array(bytes[..<count]), "\(count) bytes") }
    check(bytes + [0], "a byte more")
    for index in bytes.indices where index < 20 || index >= 24 {
      var damaged = bytes
      damaged[index] ^= 0x10
      check(damaged, "byte \(index)")
    }
    for seed in UInt64(0)..<300 {
      var generator = SeededGenerator(seed: seed)
      let damaged = Mutation.mutate(bytes, using: &generator)
      if damaged != bytes { check(damaged, "seed \(seed)") }
    }
    // It is replaced by the next run's.
    try hotness().save(values)
    #expect(hotness().load() == values)
  }

  @Test func goesToTheCacheFolderWhereTheModelsCannotBeWritten() throws {
    folder.write("model", Array(repeating: 7, count: 100))
    // A folder in the file's place stands for one that is read-only, also for root.
    mkdir(folder.path + "/model.experts", 0o755)
    defer { rmdir(folder.path + "/model.experts") }
    let path = try hotness().save(values)
    defer {
      unlink(path)
      rmdir(cache.path + "/experts")
    }
    #expect(path.hasPrefix(cache.path + "/experts/"))
    #expect(hotness().load() == values)
    #expect(
      hotness("model", [.files(2)]).load() == nil, "another model has another file")
    let nowhere = ExpertUsage(
      modelPath: folder.path + "/model", Self.references([.files(1)]), layerCount: 3,
      expertCount: 4,
      cacheFolder: nil)
    #expect(throws: (any Error).self) { try nowhere.save(values) }
  }
}
