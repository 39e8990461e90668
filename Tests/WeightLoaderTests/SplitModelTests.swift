import BlockIO
import Glibc
import ModelFormat
import TensorBasics
import TestSupport
import Testing
import WeightLoader

/// Split GGUF models: found from any member, checked against each other, and one model to everyone.
@Suite struct SplitModelTests {
  private let folder = TemporaryFolder()
  private static let whole = TinyModel().gguf(seed: 1)

  /// The error that opening a model ends in, by whichever way.
  private func error(opening path: String, mirrors: [String] = []) throws -> LoaderError {
    let failures = [
      failure { _ = try ModelSource.open(path, mirrors: mirrors) },
      failure { _ = try TensorLoader.open(path, options: Self.options(mirrors)) },
    ]
    let first = try #require(failures[0])
    let second = try #require(failures[1])
    #expect(first.description == second.description)
    return first
  }

  private func failure(_ body: () throws -> Void) -> LoaderError? {
    do { try body() } catch { return error as? LoaderError }
    return nil
  }

  private static func options(_ mirrors: [String] = []) -> LoaderOptions {
    var options = LoaderOptions()
    options.mirrors = mirrors
    options.assumedResidentByteCount = 0
    return options
  }

  private func link(_ path: String, to target: String) {
    #expect(symlink(target, path) == 0, "\(path)")
  }

  private func makeFolder(_ name: String) -> String {
    let path = "\(folder.path)/\(name)"
    mkdir(path, 0o755)
    return path
  }

  /// Expects that `path` opens the whole model, for the runtime and for the loader.
  private func expectWhole(_ path: String, mirrors: [String] = []) throws {
    let plain = folder.write("whole.gguf", Self.whole.bytes())
    let expected = try ModelSource.open(plain, records: WeightRecords(folder: nil))
    let source = try ModelSource.open(path, mirrors: mirrors, records: WeightRecords(folder: nil))
    #expect(source.description.tensors.map(\.name) == expected.description.tensors.map(\.name))
    #expect(source.description.tokenizer?.tokens.count == 320)
    #expect(try source.computeIdentity() == expected.computeIdentity())
    let (one, other) = (
      try TensorLoader.open(plain, options: Self.options()),
      try TensorLoader.open(path, options: Self.options(mirrors))
    )
    #expect(one.tensors.map(\.name) == other.tensors.map(\.name))
    #expect(try other.metadataValue("general.name") == .string("tiny"))
    #expect(try bytes(of: one) == bytes(of: other))
  }

  private func bytes(of loader: TensorLoader) throws -> [[UInt8]] {
    var found = [[UInt8]](repeating: [], count: loader.tensors.count)
    try loader.stream { piece in found[piece.tensor] += piece.withBytes(Array.init) }
    return found
  }

  @Test(arguments: [1, 2, 3, 17, 40])
  func `Any member opens the whole model`(count: Int) throws {
    for firstIsEmpty in [false, true] where count > 1 || !firstIsEmpty {
      let members = Self.whole.split(into: count, firstIsEmpty: firstIsEmpty)
      let paths = folder.write(members: members)
      for path in [paths[0], paths[count / 2], paths[count - 1]] { try expectWhole(path) }
    }
  }

  @Test func `Each member has its own alignment`() throws {
    var aligned = Self.whole
    aligned.alignment = 64
    try expectWhole(folder.write(members: aligned.split(into: 3))[2])
    var members = Self.whole.split(into: 3)
    members[1].alignment = 256
    try expectWhole(folder.write(members: members)[0])
  }

  @Test func `A relative path and a name that is only the ending are found`() throws {
    let paths = folder.write(members: Self.whole.split(into: 3), stem: "")
    try expectWhole(paths[1])
    try expectWhole(
      "\(folder.path)/../\(folder.path.split(separator: "/").last ?? "")/-00003-of-00003.gguf")
  }

  @Test func `Members are found beside a link, and beside what it links to`() throws {
    // As the Hugging Face cache has it: names are links, contents have names of their own.
    let (snapshot, blobs) = (makeFolder("snapshot"), makeFolder("blobs"))
    for (index, member) in Self.whole.split(into: 3).enumerated() {
      folder.write("blobs/\(index)abc", member.bytes())
      link("\(snapshot)/\(TinyGGUF.memberName("m", index, of: 3))", to: "../blobs/\(index)abc")
    }
    for index in 0..<3 { try expectWhole("\(snapshot)/\(TinyGGUF.memberName("m", index, of: 3))") }
    // A link to one member, by whatever name and through another link.
    link("\(folder.path)/near", to: "snapshot/\(TinyGGUF.memberName("m", 1, of: 3))")
    link("\(blobs)/far", to: "\(folder.path)/near")
    try expectWhole("\(blobs)/far")
    // Of a blob alone, only the endings of the names are known.
    let failure = try error(opening: "\(blobs)/1abc")
    guard case .missingFile(let path, _) = failure else {
      Issue.record("\(failure)")
      return
    }
    #expect(path == "\(blobs)/1abc")
    for text in ["member 2 of the 3", "…-00001-of-00003.gguf, …-00003-of-00003.gguf"] {
      #expect(failure.description.contains(text), "\(failure)")
    }
  }

  @Test func `Members in two folders are found through links`() throws {
    let members = Self.whole.split(into: 3)
    let (first, second) = (makeFolder("first"), makeFolder("second"))
    let names = (0..<3).map { TinyGGUF.memberName("m", $0, of: 3) }
    folder.write("first/\(names[0])", members[0].bytes())
    folder.write("second/\(names[1])", members[1].bytes())
    folder.write("second/\(names[2])", members[2].bytes())
    link("\(first)/\(names[1])", to: "../second/\(names[1])")
    link("\(first)/\(names[2])", to: "\(second)/\(names[2])")
    for name in names { try expectWhole("\(first)/\(name)") }
    let failure = try error(opening: "\(second)/\(names[1])")
    #expect(failure.description.contains("\(names[0]) is missing"), "\(failure)")
  }

  @Test func `Missing members are named`() throws {
    let paths = folder.write(members: Self.whole.split(into: 17))
    unlink(paths[3])
    let one = try error(opening: paths[0])
    #expect(one.description.contains("tiny-00004-of-00017.gguf is missing"), "\(one)")
    for path in paths.dropFirst() { unlink(path) }
    let many = try error(opening: paths[0])
    #expect(
      many.description.contains("tiny-00002-of-00017.gguf, ")
        && many.description.contains("13 more"),
      "\(many)")
    // A hostile count ends in the same way.
    var hostile = Self.whole.split(into: 2)[0]
    hostile["split.count"] = .uint16(.max)
    let path = folder.write("h-00001-of-65535.gguf", hostile.bytes())
    #expect(try error(opening: path).description.contains("and 65531 more"))
  }

  @Test func `A renamed member is told its name`() throws {
    let paths = folder.write(members: Self.whole.split(into: 3))
    let renamed = folder.path + "/weights.gguf"
    for index in 0..<3 {
      rename(paths[index], renamed)
      let failure = try error(opening: renamed)
      let name = TinyGGUF.memberName("tiny", index, of: 3)
      #expect(failure.description.contains("or rename it to \(name)"), "\(failure)")
      rename(renamed, paths[index])
    }
    // A second copy of a member needs no name, and of two models' members it is not known whose it is.
    folder.write("weights.gguf", folder.read("tiny-00002-of-00003.gguf"))
    #expect(try !error(opening: renamed).description.contains("rename"))
    unlink(paths[1])
    folder.write("other-00001-of-00003.gguf", folder.read("tiny-00001-of-00003.gguf"))
    #expect(try !error(opening: renamed).description.contains("rename"))
    unlink(folder.path + "/other-00001-of-00003.gguf")
    // Under the name of another.
    rename(paths[2], paths[1])
    folder.write("tiny-00003-of-00003.gguf", folder.read("weights.gguf"))
    expect(try error(opening: paths[0]), of: paths[1], says: "here ends in -00003-of-00003.gguf")
  }

  @Test func `A link to a member that is not there is called that`() throws {
    let paths = folder.write(members: Self.whole.split(into: 3))
    unlink(paths[1])
    link(paths[1], to: "gone/one")
    let near = try error(opening: paths[0]).description
    #expect(near.contains("\(paths[1]) is a link to \(folder.path)/gone/one"), "\(near)")
    unlink(paths[1])
    link(folder.path + "/between", to: "/no/such/file")
    link(paths[1], to: "between")
    let far = try error(opening: paths[2]).description
    #expect(far.contains("is a link to /no/such/file, where"), "\(far)")
    unlink(paths[1])
    #expect(try !error(opening: paths[0]).description.contains("link"))
  }

  @Test func `A folder with members says which file to give`() throws {
    let names = folder.write(members: Self.whole.split(into: 3))
    #expect(try error(opening: folder.path).description.contains("give \(names[0])"))
    folder.write("other.gguf", Self.whole.bytes())
    #expect(try error(opening: folder.path).description.contains("2 GGUF models"))
  }

  /// Expects a format error of the file `path` that says `text`.
  private func expect(_ error: LoaderError, of path: String, says text: String) {
    guard case .format(let cause) = error else {
      Issue.record("\(error)")
      return
    }
    #expect(cause.path == path && cause.message.contains(text), "\(error)")
  }

  @Test func `Foreign, doubled, whole and cut members are told apart`() throws {
    let members = Self.whole.split(into: 3)
    let paths = folder.write(members: members)
    var larger = TinyModel()
    larger.layerCount = 3
    var otherTotal = members[1]
    otherTotal["split.tensors.count"] = .int32(7)
    let cases: [(file: [UInt8], says: String)] = [
      (members[0].bytes(), "it is member 1 of 3"), (members[2].bytes(), "it is member 3 of 3"),
      (Self.whole.bytes(), "not split"), (otherTotal.bytes(), "7 tensors"),
      (Self.whole.split(into: 4)[1].bytes(), "a model of 4 members"),
      (larger.gguf(seed: 1).split(into: 3)[1].bytes(), "tensors, not"),
      (Array(members[1].bytes().dropLast(40)), "does not lie in the file"),
      (Array(members[1].bytes().prefix(50)), "do not fit into a file of 50"),
      ([], "the file is empty"),
    ]
    for (file, text) in cases {
      folder.write("tiny-00002-of-00003.gguf", file)
      for path in [paths[0], paths[2]] {
        expect(try error(opening: path), of: paths[1], says: text)
      }
    }
    folder.write("tiny-00002-of-00003.gguf", members[1].bytes())
    try expectWhole(paths[0])
  }

  @Test func `Members whose tensors do not fit together are named`() throws {
    var members = Self.whole.split(into: 3)
    // The same tensor in two members, with the right total.
    members[2].tensors[0] = members[1].tensors[0]
    var paths = folder.write(members: members)
    let doubled = try error(opening: paths[0])
    expect(doubled, of: paths[2], says: "is also in \(paths[1])")
    // One tensor fewer than all members state.
    members = Self.whole.split(into: 3)
    members[1].tensors.removeLast()
    paths = folder.write(members: members)
    expect(try error(opening: paths[2]), of: paths[0], says: "split.tensors.count")
    // Another shape: the member that holds it is at fault.
    members = Self.whole.split(into: 3)
    let index = try #require(members[1].tensors.firstIndex { $0.name.hasSuffix("attn_q.weight") })
    members[1].tensors[index].dimensions = [32, 128]
    paths = folder.write(members: members)
    let shape = failure { _ = try ModelSource.open(paths[0]) }
    expect(try #require(shape), of: paths[1], says: "rows of 32")
  }

  @Test(arguments: [1, 3]) func `Factors are read from any member, and those of inputs are ignored`(
    count: Int
  ) throws {
    var whole = Self.whole
    for name in ["blk.1.ffn_up.scale", "blk.0.ffn_up.input_scale", "blk.1.ffn_up.input_scale"] {
      whole.tensors.append(.init(name: name, type: 0, dimensions: [1], data: [0, 0, 0, 64]))
    }
    let paths = folder.write(members: whole.split(into: count))
    let description = try ModelSource.open(paths[0]).description
    #expect(description.tensors.contains { $0.name == "blk.1.ffn_up.scale" })
    #expect(!description.tensors.contains { $0.name.hasSuffix("input_scale") })
    #expect(description.notes.count == 1 && description.notes[0].contains("2 tensors"))
  }

  /// Whatever llama.cpp would not look for is refused rather than left out of the arithmetic.
  @Test(arguments: [
    "token_embd.scale", "output.scale", "blk.0.attn_norm.scale", "ffn_up.input_scale",
  ])
  func `Factors without a matrix that takes them are refused by name`(name: String) throws {
    var whole = Self.whole
    whole.tensors.append(.init(name: name, type: 0, dimensions: [1], data: [0, 0, 0, 64]))
    let paths = folder.write(members: whole.split(into: 3))
    let refusal = try #require(failure { _ = try ModelSource.open(paths[0]) })
    expect(refusal, of: paths[2], says: name)
  }

  @Test(arguments: [[2], [1, 1, 1]] as [[UInt64]])
  func `A factor of another shape is refused`(dimensions: [UInt64]) throws {
    var whole = Self.whole
    let count = Int(dimensions.reduce(1, *))
    whole.tensors.append(
      .init(
        name: "blk.1.ffn_up.scale", type: 0, dimensions: dimensions,
        data: .init(repeating: 0, count: 4 * count)))
    let paths = folder.write(members: whole.split(into: 1))
    let refusal = failure { _ = try ModelSource.open(paths[0]) }
    #expect((refusal != nil) == (count > 1))
  }

  @Test func `Weights are remembered and verified over all members`() throws {
    let members = Self.whole.split(into: 3, firstIsEmpty: true)
    let paths = folder.write(members: members)
    let records = WeightRecords(folder: makeFolder("records"))
    func verify(_ path: String) throws -> WeightMemory {
      let source = try ModelSource.open(path, records: records)
      return try source.verifyWeights(cancellation: CancellationFlag(), note: { _ in }).memory
    }
    #expect(try verify(paths[0]) == .none)
    #expect(try verify(paths[2]) == .unchanged)
    #expect(try ModelSource.open(paths[1], records: records).knownIdentity() != nil)
    folder.write("tiny-00003-of-00003.gguf", members[2].bytes())
    #expect(try verify(paths[0]) == .rewritten)
  }

  @Test func `Copies of a split model share its reads`() throws {
    let members = Self.whole.split(into: 3, firstIsEmpty: true)
    let paths = folder.write(members: members, stem: "a")
    let copies = folder.write(members: members, stem: "b")
    try expectWhole(paths[1], mirrors: [copies[2]])
    try expectWhole(paths[0], mirrors: [copies[0], folder.write(members: members, stem: "c")[1]])
    let source = try ModelSource.open(paths[0], mirrors: [copies[1]])
    #expect(source.files == paths + copies)
    #expect(source.device.fileByteCounts == members.map { $0.bytes().count })

    let whole = folder.write("whole.gguf", Self.whole.bytes())
    #expect(
      try error(opening: paths[0], mirrors: [whole]).description.contains("1 files and not 3"))
    expect(try error(opening: whole, mirrors: [copies[0]]), of: copies[0], says: "not a copy")
    var bytes = members[2].bytes()
    bytes[bytes.count - 100] ^= 1
    folder.write("b-00003-of-00003.gguf", bytes)
    expect(try error(opening: paths[0], mirrors: [copies[0]]), of: copies[2], says: "weights")
    unlink(copies[1])
    #expect(
      try error(opening: paths[0], mirrors: [copies[0]]).description
        .contains("b-00002-of-00003.gguf is missing"))
  }
}
