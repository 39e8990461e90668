import BlockIO
import Glibc
import ModelFormat
import TensorBasics
import TestSupport
import Testing
import WeightLoader

/// Models on several drives: found, checked against each other, verified.
@Suite struct StripedModelTests {
  private static func image(seed: UInt64 = 1) throws -> [UInt8] {
    try ImageBuilder.image(of: TinyModel().gguf(seed: seed).bytes())
  }

  /// A striped image whose members are `m0`, `m1`, … of a folder.
  private struct StripedImage {
    let folder = TemporaryFolder()
    let paths: [String]
    let members: [[UInt8]]

    init(_ image: [UInt8], memberCount: Int = 3, unitByteCount: Int = 8192) {
      let folder = folder.path
      paths = (0..<memberCount).map { "\(folder)/m\($0)" }
      members = StripeBuilder.members(of: image, unitByteCount: unitByteCount, paths: paths)
      for (index, bytes) in members.enumerated() { self.folder.write("m\(index)", bytes) }
    }
  }

  /// The error that opening a model ends in.
  private func error(
    opening path: String, mirrors: [String] = []
  ) throws -> LoaderError {
    do throws(LoaderError) {
      _ = try ModelSource.open(path, mirrors: mirrors)
    } catch { return error }
    throw Opened()
  }
  private struct Opened: Error {}

  /// Expects a format error of the file `path` that says `text`.
  private func expect(_ error: LoaderError, of path: String, says text: String) {
    guard case .format(let cause) = error else {
      Issue.record("\(error)")
      return
    }
    #expect(cause.path == path && cause.message.contains(text), "\(error)")
  }

  @Test func `Any member opens the whole image`() throws {
    let image = try Self.image()
    let plain = TemporaryFile(image)
    defer { extendLifetime(plain) }
    let expected = try ModelSource.describe(plain.path)
    for memberCount in 2...4 {
      let set = StripedImage(image, memberCount: memberCount, unitByteCount: 4096 * memberCount)
      defer { extendLifetime(set) }
      for path in set.paths {
        let source = try ModelSource.open(path)
        #expect(source.description.tensors == expected.tensors)
        #expect(source.description.tokenizer?.tokens.count == expected.tokenizer?.tokens.count)
        #expect(source.device.fileByteCounts == [image.count])
        try source.verifyExtents()
      }
    }
  }

  @Test func `A damaged byte on any member is found`() throws {
    let image = try Self.image()
    for index in 0..<3 {
      let set = StripedImage(image)
      defer { extendLifetime(set) }
      var bytes = set.members[index]
      bytes[bytes.count - 100] ^= 1
      set.folder.write("m\(index)", bytes)
      let source = try ModelSource.open(set.paths[0])
      #expect(throws: LoaderError.self) { try source.verifyExtents() }
    }
  }

  @Test func `A missing member is named with where it should be`() throws {
    let set = StripedImage(try Self.image())
    defer { extendLifetime(set) }
    unlink(set.paths[1])
    let failure = try error(opening: set.paths[2])
    guard case .missingFile(let path, _) = failure else {
      Issue.record("\(failure)")
      return
    }
    #expect(path == set.paths[2])
    #expect(failure.description.contains("member 2 of the 3"))
    #expect(failure.description.contains(set.paths[1]))
  }

  @Test func `Members that moved together are found beside each other`() throws {
    let set = StripedImage(try Self.image())
    defer { extendLifetime(set) }
    let other = TemporaryFolder()
    defer { extendLifetime(other) }
    for (index, bytes) in set.members.enumerated() {
      other.write("m\(index)", bytes)
      unlink(set.paths[index])
    }
    try ModelSource.open(other.path + "/m1").verifyExtents()
    // Another image at the old place does not hide the right member.
    set.folder.write("m0", StripedImage(try Self.image(seed: 2)).members[0])
    try ModelSource.open(other.path + "/m1").verifyExtents()
  }

  @Test func `A relative path is relative to the opened member`() throws {
    let folder = TemporaryFolder()
    defer { extendLifetime(folder) }
    let members = StripeBuilder.members(
      of: try Self.image(), unitByteCount: 4096, paths: ["m0", "./m1"])
    for (index, bytes) in members.enumerated() { folder.write("m\(index)", bytes) }
    for index in 0..<2 { try ModelSource.open("\(folder.path)/m\(index)").verifyExtents() }
  }

  @Test func `Foreign, swapped, damaged, short and long members are told apart`() throws {
    let image = try Self.image()
    let set = StripedImage(image)
    defer { extendLifetime(set) }
    let good = set.members[1]
    let otherUnit = StripeBuilder.members(of: image, unitByteCount: 4096, paths: set.paths)
    let cases: [(bytes: [UInt8], says: String)] = [
      (StripedImage(try Self.image(seed: 2)).members[1], "another striped image"),
      (otherUnit[1], "another striped image"), (set.members[2], "it is member 3"),
      (set.members[0], "it is member 1"), (Array(good.dropLast(4096)), "ends here"),
      (good + [0], "bytes follow"), (Array(good.prefix(2000)), "the file ends"),
      (image, "not a member"), ([], "the file ends"),
    ]
    for (bytes, text) in cases {
      set.folder.write("m1", bytes)
      expect(try error(opening: set.paths[0]), of: set.paths[1], says: text)
    }
    set.folder.write("m1", good)
    for (bytes, text) in [(Array(good.dropLast()), "ends here"), (good + [1], "bytes follow")] {
      set.folder.write("m1", bytes)
      expect(try error(opening: set.paths[1]), of: set.paths[1], says: text)
    }
    var damaged = good
    damaged[70] ^= 1
    set.folder.write("m1", damaged)
    expect(try error(opening: set.paths[1]), of: set.paths[1], says: "checksum")
    set.folder.write("m1", good)
    _ = try ModelSource.open(set.paths[0])
  }

  @Test func `Copies must be copies`() throws {
    for (name, bytes) in [
      ("image", try Self.image()), ("GGUF", TinyModel().gguf(seed: 1).bytes()),
    ] {
      let folder = TemporaryFolder()
      defer { extendLifetime(folder) }
      let path = folder.write("a", bytes)
      let copy = folder.write("b", bytes)
      let source = try ModelSource.open(path, mirrors: [copy, folder.write("c", bytes)])
      #expect(source.device.fileByteCounts == [bytes.count], "\(name)")
      if !source.description.extents.isEmpty { try source.verifyExtents() }
      folder.write("b", bytes + [0])
      expect(try error(opening: path, mirrors: [copy]), of: copy, says: "not a copy of \(path)")
      var other = bytes
      other[60] ^= 1
      folder.write("b", other)
      let failure = try error(opening: path, mirrors: [copy])
      expect(failure, of: copy, says: "header differs")
      guard case .format(let cause) = failure else { continue }
      #expect(cause.offset == 60)
      guard case .io(let missing) = try error(opening: path, mirrors: [folder.path + "/d"]) else {
        Issue.record("\(name): a copy that is not there")
        continue
      }
      #expect(missing.isMissingFile && missing.path == folder.path + "/d")
    }
    let set = StripedImage(try Self.image())
    defer { extendLifetime(set) }
    expect(
      try error(opening: set.paths[0], mirrors: [set.paths[1]]), of: set.paths[0],
      says: "cannot be mirrored")
  }
}
