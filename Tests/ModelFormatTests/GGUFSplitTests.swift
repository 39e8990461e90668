import ModelFormat
import TestSupport
import Testing

/// The keys of split GGUF models, and what members must have in common.
@Suite struct GGUFSplitTests {
  private static let whole = TinyModel().gguf(seed: 1)

  /// The file's split keys, read from a header with these values.
  private func split(
    count: TinyGGUF.Value?, index: TinyGGUF.Value?, tensors: TinyGGUF.Value?
  ) throws -> GGUFSplit? {
    var file = Self.whole
    file["split.count"] = count
    file["split.no"] = index
    file["split.tensors.count"] = tensors
    return try #require(try parseGGUF(file.bytes()).value).split
  }

  @Test func `The keys may be of any integer type`() throws {
    func signed(_ type: UInt32, _ byteCount: Int, _ value: UInt8) -> TinyGGUF.Value {
      .raw(type: type, bytes: [value] + Array(repeating: 0, count: byteCount - 1))
    }
    let types: [(UInt8) -> TinyGGUF.Value] = [
      { .uint8($0) }, { .uint16(UInt16($0)) }, { .uint32(UInt32($0)) }, { .uint64(UInt64($0)) },
      { .int32(Int32($0)) }, { signed(1, 1, $0) }, { signed(3, 2, $0) }, { signed(11, 8, $0) },
    ]
    for (number, type) in types.enumerated() {
      let other = types[(number + 3) % types.count]
      let found = try #require(try split(count: type(17), index: other(16), tensors: type(21)))
      #expect(found.count == 17 && found.index == 16 && found.tensorCount == 21)
      #expect(found.nameEnding(0) == "-00001-of-00017.gguf")
    }
  }

  @Test func `A model that was merged again is not split`() throws {
    #expect(try split(count: .uint16(0), index: .uint16(0), tensors: .int32(21)) == nil)
    #expect(try split(count: nil, index: .uint16(0), tensors: nil) == nil)
  }

  @Test func `Counts and numbers that cannot be are refused`() throws {
    let cases: [(count: TinyGGUF.Value, index: TinyGGUF.Value?, tensors: TinyGGUF.Value?)] = [
      (.uint64(.max), .uint16(0), .int32(21)), (.int32(-1), .uint16(0), .int32(21)),
      (.uint32(65536), .uint16(0), .int32(21)), (.uint16(3), .uint16(3), .int32(21)),
      (.uint16(3), .uint64(.max), .int32(21)), (.uint16(3), .int32(-1), .int32(21)),
      (.uint16(3), nil, .int32(21)), (.uint16(3), .uint16(0), nil),
      (.uint16(3), .uint16(0), .int32(-21)), (.string("3"), .uint16(0), .int32(21)),
      (.uint16(3), .float32(0), .int32(21)), (.int32s([3]), .uint16(0), .int32(21)),
      (.uint16(3), .uint16(0), .bool(true)),
    ]
    for (number, keys) in cases.enumerated() {
      do {
        _ = try split(count: keys.count, index: keys.index, tensors: keys.tensors)
        Issue.record("case \(number) was accepted")
      } catch let error as FormatError {
        #expect(error.kind == .malformed && error.message.contains("split."), "\(error)")
      }
    }
  }

  @Test func `A member is not described as a model`() throws {
    for member in Self.whole.split(into: 3) {
      let failure = try #require(error(of: member))
      #expect(failure.message.contains("of 3 of a split model"), "\(failure)")
    }
    #expect(error(of: Self.whole.split(into: 1)[0]) == nil)
  }

  @Test func `A file that holds fewer tensors than its keys state is refused`() throws {
    var file = Self.whole.split(into: 1)[0]
    file["split.tensors.count"] = .int32(Int32(Self.whole.tensors.count + 1))
    let failure = try #require(error(of: file))
    #expect(failure.message.contains("split.tensors.count"), "\(failure)")
  }

  @Test func `Names of members are told from other names`() {
    for name in ["a-00001-of-00002.gguf", "-00017-of-00017.gguf", "x-100000-of-100001.gguf"] {
      #expect(GGUFSplit.isMember(fileName: name), "\(name)")
    }
    for name in ["a-00001-of-00001.gguf", "a-1-of-2.gguf", "a-00001-of-00002.safetensors", "a"] {
      #expect(!GGUFSplit.isMember(fileName: name), "\(name)")
    }
  }
}
