import ModelFormat
import TensorBasics
import TestSupport
import Testing

@Suite struct GGUFParsingTests {
  @Test(arguments: [UInt32(2), 3])
  func `Metadata and tensors come back as they were written`(version: UInt32) throws {
    var tiny = TinyGGUF(
      metadata: [
        ("a.uint8", .uint8(7)), ("a.int32", .int32(-5)), ("a.uint64", .uint64(1 << 40)),
        ("a.float32", .float32(0.5)), ("a.float64", .float64(0.1)), ("a.bool", .bool(true)),
        ("a.string", .string("é")), ("a.strings", .strings([[0xFF], [], Array("xy".utf8)])),
        ("a.int32s", .int32s([1, 2, 3])), ("a.uint32s", .uint32s([4, 4])),
        ("a.float32s", .float32s([-1, 2])), ("a.bools", .bools([true, false])),
      ],
      tensors: [
        .init(name: "x", type: 0, dimensions: [3, 2], data: .init(repeating: 1, count: 24)),
        .init(name: "y", type: 8, dimensions: [64], data: .init(repeating: 2, count: 68)),
      ])
    tiny.version = version
    tiny.alignment = 64
    let encoded = tiny.encode()
    let file = try #require(try parseGGUF(encoded.bytes).value)
    #expect(file.version == version && file.alignment == 64)
    #expect(file.headerByteCount == encoded.headerByteCount)
    #expect(file.tensors.map(\.name) == ["x", "y"])
    #expect(file.tensors[0].offset == file.dataOffset && file.tensors[0].byteCount == 24)
    #expect(file.tensors[1].offset == file.dataOffset + 64)
    #expect(file.tensors[1].type == StorageType(.q8_0) && file.tensors[1].byteCount == 68)
    #expect(file.tensors[0].columnCount == 3 && file.tensors[0].rowCount == 2)

    try withBytes(encoded.bytes) { bytes throws(FormatError) in
      let metadata = GGUFMetadataReader(file, header: bytes)
      #expect(try metadata.integer("a.uint8") == 7)
      #expect(throws: FormatError.self) { try metadata.integer("a.int32") }
      #expect(try metadata.integer("a.uint64") == 1 << 40)
      #expect(try metadata.float("a.float32") == 0.5)
      #expect(try metadata.float("a.float64") == 0.1)
      #expect(try metadata.bool("a.bool") == true)
      #expect(try metadata.string("a.string") == "é")
      let strings = try metadata.strings("a.strings")
      #expect(
        strings.map { strings in (0..<strings.count).map { Array(strings[$0]) } }
          == [[0xFF], [], Array("xy".utf8)])
      #expect(try metadata.smallIntegers("a.int32s") == [1, 2, 3])
      #expect(try metadata.uniformInteger("a.uint32s", count: 2) == 4)
      #expect(throws: FormatError.self) { try metadata.uniformInteger("a.int32s", count: 3) }
      #expect(try metadata.floats("a.float32s") == [-1, 2])
      #expect(try metadata.bools("a.bools") == [true, false])
      #expect(try metadata.bool("missing") == nil)
      #expect(throws: FormatError.self) { try metadata.string("a.bool") }
    }
  }

  @Test func `A prefix grown as asked ends in the same file`() throws {
    let encoded = TinyModel().gguf(seed: 1).encode()
    var byteCount = 16
    var rounds = 0
    while true {
      rounds += 1
      let prefix = Array(encoded.bytes.prefix(byteCount))
      switch try parseGGUF(prefix, fileByteCount: encoded.bytes.count) {
      case .complete(let file):
        #expect(file.headerByteCount == encoded.headerByteCount)
        #expect(byteCount <= encoded.headerByteCount)
        #expect(rounds > 10)
        return
      case .needsMore(let atLeast):
        try #require(atLeast > byteCount && atLeast <= encoded.bytes.count)
        byteCount = atLeast
      }
    }
  }

  @Test func `Every truncation of the file is a typed error`() throws {
    let encoded = TinyModel().gguf(seed: 2).encode()
    for byteCount in 0..<encoded.headerByteCount {
      #expect(throws: FormatError.self) { try parseGGUF(Array(encoded.bytes.prefix(byteCount))) }
      let partial = try parseGGUF(
        Array(encoded.bytes.prefix(byteCount)), fileByteCount: encoded.bytes.count)
      #expect(partial.value == nil)
    }
    for boundary in encoded.boundaries where boundary < encoded.headerByteCount {
      do throws(FormatError) {
        _ = try parseGGUF(Array(encoded.bytes.prefix(boundary)))
        Issue.record("truncated at \(boundary) and accepted")
      } catch {
        #expect(error.path == "tiny.gguf" && error.offset != nil)
        #expect([.truncated, .malformed].contains(error.kind), "\(error)")
      }
    }
    #expect(throws: FormatError.self) { try parseGGUF(Array(encoded.bytes.dropLast(33))) }
  }
}

@Suite struct GGUFRefusalTests {
  /// The message of the refusal, which must have a byte offset.
  private func refusal(_ tiny: TinyGGUF) -> String {
    do throws(FormatError) {
      _ = try parseGGUF(tiny.bytes())
      return "accepted"
    } catch {
      #expect(error.offset != nil, "\(error)")
      return error.message
    }
  }

  private func tensor(
    _ type: UInt32 = 0, _ dimensions: [UInt64] = [8], name: String = "x"
  ) -> TinyGGUF.Tensor {
    .init(name: name, type: type, dimensions: dimensions, data: .init(repeating: 0, count: 32))
  }

  @Test func `Other versions and byte orders are refused by name`() {
    var tiny = TinyGGUF()
    tiny.version = 1
    #expect(refusal(tiny).contains("version 1 is not read"))
    tiny.version = UInt32(3).byteSwapped
    #expect(refusal(tiny).contains("big-endian"))
    tiny.version = 4
    #expect(refusal(tiny).contains("version 4"))
  }

  @Test func `Unsupported tensor types are refused by tensor and type`() {
    func refusal(_ type: UInt32) -> String {
      do throws(FormatError) {
        let file = TinyGGUF(tensors: [tensor(type)])
        _ = try ImageBuilder.description(of: file.bytes())
        return "accepted"
      } catch { return error.message }
    }
    #expect(refusal(26).contains("tensor \"x\" has type I32 (26)"))
    #expect(refusal(36).contains("IQ4_NL_4_4 (36)"))
    #expect(refusal(137).contains("type 137, which only forks of"))
    #expect(refusal(999).contains("type 999"))
  }

  @Test func `Tensors of such types are listed, and what they hold ends where the next begins`()
    throws
  {
    let file = TinyGGUF(tensors: [
      tensor(137, [64, 3], name: "a"), tensor(0, name: "b"), tensor(26, name: "c"),
      tensor(33, [5], name: "d"),
    ])
    let found = try #require(try parseGGUF(file.bytes()).value).tensors
    #expect(found.map(\.type.name) == ["type 137", "F32", "I32", "Q4_0_8_8"])
    #expect(found.map(\.byteCount) == [32, 32, 32, 32])
    #expect(found.map(\.type.isOpaque) == [true, false, false, true])
    #expect(found.map(\.type.elementType) == [nil, .f32, nil, nil])
  }

  @Test func `Impossible shapes are refused`() {
    #expect(refusal(TinyGGUF(tensors: [tensor(0, [])])).contains("0 dimensions"))
    #expect(refusal(TinyGGUF(tensors: [tensor(0, [1, 1, 1, 1, 1])])).contains("5 dimensions"))
    #expect(refusal(TinyGGUF(tensors: [tensor(0, [8, 0])])).contains("dimension of 0"))
    #expect(refusal(TinyGGUF(tensors: [tensor(0, [1 << 32, 1 << 32])])).contains("dimension of"))
    #expect(refusal(TinyGGUF(tensors: [tensor(0, [1 << 62])])).contains("larger than the file"))
    #expect(refusal(TinyGGUF(tensors: [tensor(0, [.max])])).contains("dimension of"))
    #expect(refusal(TinyGGUF(tensors: [tensor(8, [33])])).contains("whole blocks of 32"))
    #expect(refusal(TinyGGUF(tensors: [tensor(14, [128])])).contains("whole blocks of 256"))
  }

  @Test func `Tensors out of place are refused`() {
    var outside = tensor()
    outside.statedOffset = 1 << 20
    #expect(refusal(TinyGGUF(tensors: [outside])).contains("in a file of"))
    outside.statedOffset = 32
    #expect(refusal(TinyGGUF(tensors: [outside])).contains("does not lie in the file"))
    var misaligned = tensor()
    misaligned.statedOffset = 4
    #expect(refusal(TinyGGUF(tensors: [misaligned])).contains("not a multiple of the alignment"))
    var second = tensor(name: "y")
    second.statedOffset = 0
    #expect(refusal(TinyGGUF(tensors: [tensor(), second])).contains("overlap"))
    #expect(refusal(TinyGGUF(tensors: [tensor(), tensor()])).contains("appears twice"))
    let long = String(repeating: "n", count: 65)
    #expect(refusal(TinyGGUF(tensors: [tensor(name: long)])).contains("65 bytes"))
  }

  /// A type, or a dimension, that was damaged to a smaller one leaves a hole, which llama.cpp refuses too.
  @Test func `A tensor that leaves more room than padding before the next is refused`() throws {
    // 256 elements each, followed by another tensor.
    func file(_ type: UInt32, _ dimensions: [UInt64], byteCount: Int, alignment: Int = 32)
      -> TinyGGUF
    {
      var tiny = TinyGGUF(tensors: [
        .init(
          name: "x", type: type, dimensions: dimensions, data: .init(repeating: 0, count: byteCount)
        ),
        tensor(name: "y"),
      ])
      tiny.alignment = alignment
      return tiny
    }
    // Whole: Q8_0 of 272 bytes, padded.
    for alignment in [32, 64, 4096] {
      _ = try #require(
        try parseGGUF(file(8, [256], byteCount: 272, alignment: alignment).bytes()).value)
    }
    // Q4_0 in its place; fewer columns; fewer rows; a type of 16 bits in place of one of 32.
    let holes = [
      file(2, [256], byteCount: 272), file(8, [128], byteCount: 272),
      file(0, [16, 3], byteCount: 256), file(1, [256], byteCount: 1024),
    ]
    for hole in holes {
      let message = refusal(hole)
      #expect(message.contains("tensor \"x\"") && message.contains("before \"y\""), "\(message)")
      #expect(message.contains("damaged"), "\(message)")
    }
  }

  @Test func `Impossible metadata is refused`() {
    #expect(
      refusal(TinyGGUF(metadata: [("a", .bool(true)), ("a", .bool(true))])).contains("twice"))
    #expect(refusal(TinyGGUF(metadata: [("", .bool(true))])).contains("0 bytes"))
    #expect(
      refusal(TinyGGUF(metadata: [("a", .raw(type: 13, bytes: [0]))])).contains("value type 13"))
    #expect(refusal(TinyGGUF(metadata: [("a", .raw(type: 7, bytes: [2]))])).contains("boolean"))
    let nested: [UInt8] = [9, 0, 0, 0] + [1, 0, 0, 0, 0, 0, 0, 0] + .init(repeating: 0, count: 64)
    #expect(
      refusal(TinyGGUF(metadata: [("a", .raw(type: 9, bytes: nested))])).contains("array of arrays")
    )
    for value in [0, 3, 4, 48, 1 << 31 + 1] as [UInt32] {
      let tiny = TinyGGUF(metadata: [("general.alignment", .uint32(value))])
      #expect(refusal(tiny).contains("power of two"))
    }
    let alignment = TinyGGUF(metadata: [("general.alignment", .uint64(64))])
    #expect(refusal(alignment).contains("not a 32-bit integer"))
  }

  @Test func `A key that is not UTF-8 is refused`() {
    var bytes = TinyGGUF(metadata: [("key", .uint8(0))]).bytes()
    bytes[24 + 8] = 0xFF
    #expect(throws: FormatError.self) { try parseGGUF(bytes) }
  }

  @Test func `Counts beyond the file are refused before anything is reserved`() {
    let encoded = TinyGGUF(metadata: [("a", .strings([[1], [2]]))], tensors: [tensor()]).encode()
    for field in encoded.integerFields where field.byteCount == 8 {
      for value in [UInt64.max, 1 << 63, 1 << 60, 1 << 40] {
        var bytes = encoded.bytes
        withUnsafeBytes(of: value) {
          bytes.replaceSubrange(field.offset..<field.offset + 8, with: $0)
        }
        #expect(throws: FormatError.self, "\(value) at \(field.offset)") { try parseGGUF(bytes) }
      }
    }
  }

  @Test func `Headers over the limit are refused instead of asked for`() {
    var bytes = TinyGGUF(metadata: [("a", .string("x"))]).bytes()
    withUnsafeBytes(of: UInt64(1 << 30)) { bytes.replaceSubrange(37..<45, with: $0) }
    do throws(FormatError) {
      _ = try parseGGUF(bytes, fileByteCount: 1 << 40)
      Issue.record("accepted")
    } catch { #expect(error.kind == .unsupported && error.message.contains("headers over")) }
  }
}
