import Glibc
import TensorBasics
import TestSupport
import Testing
import WeightLoader

@Suite struct BundleHotnessTests {
  private let folder = TemporaryFolder()
  private let cache = TemporaryFolder()
  private let values = (0..<12).map { Float($0) / 11 }

  private func hotness(
    _ model: String = "model", name: String? = "M", layers: Int = 3
  ) -> BundleHotness {
    BundleHotness(
      modelPath: folder.path + "/" + model, name: name, layerCount: layers, expertCount: 4,
      cacheFolder: cache.path + "/experts")
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
    #expect(hotness(name: "N").load { notes.append($0) } == nil)
    #expect(hotness(layers: 2).load { notes.append($0) } == nil)
    folder.write("model", Array(repeating: 7, count: 101))
    #expect(hotness().load { notes.append($0) } == nil)
    #expect(notes.count == 3 && notes.allSatisfy { $0.contains("another model") }, "\(notes)")
  }

  @Test func imagesAreKnownByTheirPrologueAndFromAnyMember() throws {
    let image = Array("FLASHIMG".utf8) + [UInt8](repeating: 1, count: 56)
    folder.write("model", image + [1, 2, 3])
    let identity = hotness().identity
    // The rest is covered by the prologue; a copy at another time is the same model.
    folder.write("model", image + [4, 5, 6, 7])
    #expect(hotness().identity == identity)
    folder.write("model", image.dropLast() + [2, 0])
    #expect(hotness().identity != identity)
    let member = Array("FLASHSTR".utf8) + (0..<8).map { _ in 0 } + (0..<48).map { UInt8($0) }
    folder.write("a", member)
    folder.write("b", member + [0])
    #expect(hotness("a").identity == hotness("b").identity)
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
    #expect(hotness(name: "N").load() == nil, "another model has another file")
    let nowhere = BundleHotness(
      modelPath: folder.path + "/model", name: "M", layerCount: 3, expertCount: 4,
      cacheFolder: nil)
    #expect(throws: (any Error).self) { try nowhere.save(values) }
  }
}
