import BlockIO
import Glibc
import TestSupport
import Testing

@Suite struct NewFileTests {
  private func contents(_ path: String) -> [UInt8] {
    guard let file = fopen(path, "r") else { return [] }
    defer { fclose(file) }
    var bytes = [UInt8](repeating: 0, count: 1 << 16)
    return Array(bytes[..<fread(&bytes, 1, bytes.count, file)])
  }

  @Test func `A file has its name only when it is complete`() throws {
    let old = TemporaryFile([1, 2, 3])
    do {
      var file = try NewFile(path: old.path, reserving: 8)
      try [UInt8](repeating: 7, count: 8).withUnsafeBytes { try file.write($0, at: 0) }
      #expect(contents(old.path) == [1, 2, 3])
    }
    #expect(contents(old.path) == [1, 2, 3])
    #expect(access("\(old.path).part-\(getpid())", F_OK) != 0)
    var file = try NewFile(path: old.path, reserving: 8)
    try [UInt8](repeating: 7, count: 8).withUnsafeBytes { try file.write($0, at: 0) }
    try file.commit()
    #expect(contents(old.path) == [UInt8](repeating: 7, count: 8))
  }

  @Test func `A drive without room is an error before anything is written`() {
    let old = TemporaryFile([1])
    #expect(throws: BlockIOError.self) { try Self.create(old.path, reserving: 1 << 60) }
    #expect(contents(old.path) == [1])
    #expect(access("\(old.path).part-\(getpid())", F_OK) != 0)
    #expect(throws: BlockIOError.self) { try Self.create("/nowhere/x", reserving: 1) }
  }

  @Test func `What killed processes left is removed, what lives or is locked is not`() throws {
    let folder = TemporaryFolder()
    defer { extendLifetime(folder) }
    let path = folder.path + "/model.bin"
    // No process has a number beyond the kernel's limit.
    let left = ["model.bin.part-2147483646", "model.bin.part-2147483645"]
    for name in left { folder.write(name, [1]) }
    let kept = [
      "model.bin.part-1", "model.bin.part-x", "model.bin.part-", "model.bin.part--5",
      "other.bin.part-2147483646", "model.bin",
    ]
    for name in kept { folder.write(name, [1]) }
    let holder = open(folder.path + "/" + left[1], O_RDONLY)
    #expect(flock(holder, LOCK_EX) == 0)
    try Self.create(path, reserving: 1)
    #expect(folder.entries == (kept + [left[1]]).sorted())
    close(holder)
    try Self.create(path, reserving: 1)
    #expect(folder.entries == kept.sorted())
  }

  @Test func `A folder at the path is an error before work begins`() throws {
    let folder = TemporaryFolder()
    defer { extendLifetime(folder) }
    #expect(throws: BlockIOError.self) { try Self.create(folder.path, reserving: 1) }
    #expect(access("\(folder.path).part-\(getpid())", F_OK) != 0)
  }

  @Test func `Several files have their names when all are complete, or none has`() throws {
    let folder = TemporaryFolder()
    defer { extendLifetime(folder) }
    let layout = StripeLayout(
      unitByteCount: 4, memberCount: 2, headerByteCount: 2, byteCount: 11)
    let bytes = Array(UInt8(1)...11)
    func write(to names: [String], commits: Bool) throws {
      var file = try NewStripedFile(paths: names.map { "\(folder.path)/\($0)" }, layout: layout)
      for (start, end) in [(3, 11), (0, 3)] {
        try bytes[start..<end].withUnsafeBytes { try file.write($0, at: start) }
      }
      for member in 0..<2 {
        try [0xEE, UInt8(member)].withUnsafeBytes { try file.writeHeader($0, member: member) }
      }
      file.settle(0..<11)
      if commits { try file.commit() }
    }
    folder.write("b", [9])
    try write(to: ["a", "b"], commits: false)
    #expect(folder.entries == ["b"] && folder.read("b") == [9])
    #expect(throws: BlockIOError.self) { try write(to: ["a", "none/b"], commits: true) }
    #expect(folder.entries == ["b"] && folder.read("b") == [9])
    try write(to: ["a", "b"], commits: true)
    #expect(folder.entries == ["a", "b"])
    #expect(folder.read("a") == [0xEE, 0, 1, 2, 3, 4, 9, 10, 11])
    #expect(folder.read("b") == [0xEE, 1, 5, 6, 7, 8])
  }

  private static func create(_ path: String, reserving byteCount: Int) throws {
    _ = try NewFile(path: path, reserving: byteCount)
  }
}
