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

  private static func create(_ path: String, reserving byteCount: Int) throws {
    _ = try NewFile(path: path, reserving: byteCount)
  }
}
