import ModelFormat
import TensorBasics
import TestSupport
import Testing
import WeightLoader

/// What files say beside their tensors.
@Suite struct FileMetadataTests {
  private let folder = TemporaryFolder()

  private func open(_ path: String, extra: Int = 64 << 20) throws -> TensorLoader {
    var options = LoaderOptions()
    options.assumedResidentByteCount = 0
    return try TensorLoader.open(path, ram: extra, options: options)
  }

  @Test func `Every type of value comes back as it was written`() throws {
    let written: [(key: String, value: TinyGGUF.Value, wanted: MetadataValue, type: String)] = [
      ("a.u8", .uint8(200), .unsigned(200), "uint8"),
      ("a.u32", .uint32(1 << 31), .unsigned(1 << 31), "uint32"),
      ("a.i32", .int32(-5), .integer(-5), "int32"),
      ("a.u64", .uint64(.max), .unsigned(.max), "uint64"),
      ("a.f32", .float32(0.5), .float(0.5), "float32"),
      ("a.f64", .float64(0.1), .float(0.1), "float64"),
      ("a.bool", .bool(true), .bool(true), "bool"),
      ("a.text", .string("grüße"), .string("grüße"), "string"),
      ("a.empty", .string(""), .string(""), "string"),
      (
        "a.texts", .strings([Array("a".utf8), [], [0xFF]]),
        .array([.string("a"), .string(""), .string("\u{FFFD}")]), "string"
      ),
      ("a.i32s", .int32s([1, -1]), .array([.integer(1), .integer(-1)]), "int32"),
      ("a.floats", .float32s([]), .array([]), "float32"),
      ("a.bools", .bools([true, false]), .array([.bool(true), .bool(false)]), "bool"),
    ]
    let gguf = TinyGGUF(
      metadata: written.map { ($0.key, $0.value) },
      tensors: [.init(name: "w", type: 0, dimensions: [1], data: [0, 0, 0, 0])])
    let loader = try open(folder.write("m.gguf", gguf.bytes()))
    #expect(loader.metadata.map(\.key) == written.map(\.key))
    for (entry, (key, _, wanted, type)) in zip(loader.metadata, written) {
      #expect(try loader.value(of: entry) == wanted, "\(key)")
      #expect(try loader.metadataValue(key) == wanted && entry.typeName == type, "\(key)")
      if case .array(let elements) = wanted {
        #expect(entry.isArray && entry.count == elements.count)
      } else {
        #expect(!entry.isArray && entry.count == 1)
      }
    }
    #expect(try loader.metadataValue("a.nothing") == nil)
  }

  @Test func `Texts of safetensors files are found in the file that has them`() throws {
    for (name, texts) in [("a", ["format": "pt", "x": "1"]), ("b", ["format": "np"])] {
      let layout = SafetensorsLayout([.init(name, .f32, [1])], metadata: texts)
      folder.write("\(name).safetensors", layout.header + [0, 0, 0, 0])
    }
    let loader = try open(folder.path)
    #expect(loader.files == ["a", "b"].map { "\(folder.path)/\($0).safetensors" })
    #expect(loader.metadata.map(\.key) == ["format", "x", "format"])
    #expect(loader.metadata.map(\.fileIndex) == [0, 0, 1])
    #expect(try loader.metadataValue("format") == .string("pt"))
    #expect(try loader.value(of: loader.metadata[2]) == .string("np"))
  }

  @Test func `A value that the budget has no room for is refused, and an image has none`() throws {
    var gguf = TinyGGUF(tensors: [.init(name: "w", type: 0, dimensions: [1], data: [0, 0, 0, 0])])
    gguf["long"] = .strings([[UInt8](repeating: 97, count: 4 << 20)])
    let loader = try open(folder.write("long.gguf", gguf.bytes()), extra: 6 << 20)
    #expect(throws: LoaderError.self) { try loader.metadataValue("long") }
    let image = try ImageBuilder.image(of: TinyModel().gguf(seed: 3).bytes())
    #expect(try open(folder.write("m.bin", image)).metadata.isEmpty)
  }

  @Test func `A folder's files are model.safetensors, those of the index, or all that there are`()
    throws
  {
    func add(_ name: String) {
      folder.write(
        name, SafetensorsLayout([.init(name, .f32, [1])], metadata: [:]).header + [0, 0, 0, 0])
    }
    func names() throws -> [String] {
      try open(folder.path).files.map { String($0.dropFirst(folder.path.count + 1)) }
    }
    for name in ["b.safetensors", "a.safetensors"] { add(name) }
    folder.write("config.json", [])
    #expect(try names() == ["a.safetensors", "b.safetensors"])
    let index = #"{"weight_map":{"x":"b.safetensors","y":"c.safetensors"}}"#
    folder.write("model.safetensors.index.json", Array(index.utf8))
    #expect(throws: LoaderError.self) { try names() }
    add("c.safetensors")
    #expect(try names() == ["b.safetensors", "c.safetensors"])
    add("model.safetensors")
    #expect(try names() == ["model.safetensors"])
  }

  @Test func `A folder cannot be mirrored, as a model or as tensors`() throws {
    let layout = SafetensorsLayout([.init("a", .f32, [1])], metadata: [:])
    folder.write("model.safetensors", layout.header + [0, 0, 0, 0])
    var options = LoaderOptions()
    options.mirrors = [folder.path]
    do {
      _ = try TensorLoader.open(folder.path, ram: 1 << 30, options: options)
      Issue.record("it opened")
    } catch {
      #expect("\(error)".contains("a folder cannot be mirrored"), "\(error)")
    }
  }

  @Test func `A folder without tensors says so`() throws {
    folder.write("notes.txt", [1])
    do {
      _ = try open(folder.path)
      Issue.record("it opened")
    } catch let error as LoaderError {
      guard case .missingFile = error else { return #expect(Bool(false), "\(error)") }
      #expect(error.description.contains("no safetensors file"))
    }
  }
}
