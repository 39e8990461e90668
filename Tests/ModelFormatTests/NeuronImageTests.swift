import ModelFormat
import TensorBasics
import TestSupport
import Testing

/// Where bundles of neurons lie in images, and what of it is checked.
@Suite struct NeuronImageTests {
  private func image(
    _ types: [ElementType], extentByteCount: Int = 1 << 20
  ) throws -> [UInt8] {
    var model = TinyModel()
    model.matrixTypes = types
    return try ImageBuilder.image(
      of: model.gguf(seed: 4).bytes(), bundling: .neurons, extentByteCount: extentByteCount)
  }

  @Test(arguments: [[ElementType.f16], [.f32], [.q8_0], [.q4_0], [.q8_0, .q4_0, .q5_1]])
  func `Bundles follow their layer's checksums, in extents of their own`(
    types: [ElementType]
  ) throws {
    let image = try image(types, extentByteCount: 8192)
    let description = try ImageBuilder.description(of: image)
    let layers = try #require(description.neurons?.layers)
    let table = try TensorTable(description.tensors)
    let ends = Set(description.extents.map { $0.offset + $0.byteCount })
    let stride = layers.map { ($0.byteCount + 4095) / 4096 * 4096 }.max()
    #expect(layers.count == 2 && description.sourceIdentity != nil)
    for (number, layer) in layers.enumerated() {
      let neurons = types[0].isQuantised ? 32 : 1
      #expect(layer.neuronsPerBundle == neurons && layer.bundleCount == 96 / neurons)
      #expect(layer.parts.map(\.role) == [.up, .down, .gate])
      #expect(layer.byteStride == stride && layer.checksumOffset % 4096 == 0)
      #expect(layer.offset == layer.checksumOffset + 4096)
      for place in [layer.checksumOffset, layer.offset, layer.byteSpan.upperBound] {
        #expect(ends.contains(place))
      }
      let select = try #require(table["blk.\(number).ffn_select.weight"])
      #expect(select.layout == .interleaved && select.type == layer.parts[2].type)
      #expect((select.columnCount, select.rowCount) == (64, 96))
      for role in NeuronBundles.Role.allCases {
        #expect(table[role.tensorName(layer: number)] == nil)
      }
    }
    let extents = try #require(description.extents.map(\.byteCount).max())
    #expect(extents <= 8192)
    #expect(
      description.expectedTensors.filter { !$0.isOptional }.count == description.tensors.count)
  }

  @Test func `An image without bundles has no key for them`() throws {
    let image = try ImageBuilder.image(of: TinyModel().gguf(seed: 1).bytes())
    #expect(!headerText(image).contains("\"neurons\""))
    let old = edited(image) { header in
      guard let start = header.ranges(of: "\"sourceIdentity\":").first else { return header }
      let end = header[start.lowerBound...].ranges(of: ",").first?.upperBound ?? header.endIndex
      return String(header[..<start.lowerBound] + header[end...])
    }
    #expect(try ImageBuilder.description(of: old).sourceIdentity == nil)
  }

  @Test func `Experts are not put in bundles of neurons`() throws {
    let gguf = TinyModel(architecture: "olmoe").gguf(seed: 1).bytes()
    #expect(throws: FormatError.self) { try ImageBuilder.image(of: gguf, bundling: .neurons) }
  }

  /// The header's part that describes neurons.
  private func changed(
    _ image: [UInt8], _ key: String, all: Bool = true, _ change: (Int) -> Int
  ) -> [UInt8] {
    edited(image) { header in
      guard let begin = header.ranges(of: "\"neurons\":").first,
        let end = header[begin.upperBound...].ranges(of: "\"tensors\":").first
      else { return header }
      var text = String(header[begin.lowerBound..<end.lowerBound])
      var place = text.startIndex
      while let found = text[place...].ranges(of: "\"\(key)\":").first {
        let digits = text[found.upperBound...].prefix { $0.isNumber }
        let distance = text.distance(from: text.startIndex, to: digits.startIndex)
        if let value = Int(digits) {
          text.replaceSubrange(digits.startIndex..<digits.endIndex, with: "\(change(value))")
        }
        place = text.index(text.startIndex, offsetBy: distance)
        if !all { break }
      }
      return String(header[..<begin.lowerBound]) + text + String(header[end.lowerBound...])
    }
  }

  @Test(arguments: [[ElementType.f16], [.q4_0]])
  func `Bundles that cannot be are refused`(types: [ElementType]) throws {
    let image = try image(types)
    #expect(try ImageBuilder.description(of: changed(image, "offset") { $0 }).neurons != nil)
    let changes: [(key: String, change: (Int) -> Int)] = [
      ("neuronsPerBundle", { $0 + 1 }), ("neuronsPerBundle", { _ in 0 }),
      ("neuronsPerBundle", { _ in Int.max }), ("neuronsPerBundle", { -$0 }),
      ("neuronsPerBundle", { $0 == 1 ? 32 : 1 }),
      ("bundleCount", { $0 + 1 }), ("bundleCount", { _ in 0 }), ("bundleCount", { -$0 }),
      ("bundleCount", { _ in Int.max }), ("bundleCount", { _ in 1 << 61 }),
      ("offset", { $0 + 4096 }), ("offset", { $0 - 4096 }), ("offset", { $0 + 64 }),
      ("offset", { -$0 }), ("offset", { _ in Int.max }), ("offset", { _ in Int.min }),
      ("offset", { _ in 1 << 52 }),
      ("checksumOffset", { $0 - 4096 }), ("checksumOffset", { $0 + 4096 }),
      ("checksumOffset", { _ in Int.max }), ("checksumOffset", { _ in Int.min }),
      ("checksumOffset", { _ in 0 }),
      ("byteStride", { $0 + 4096 }), ("byteStride", { $0 + 64 }), ("byteStride", { _ in 0 }),
      ("byteStride", { -$0 }), ("byteStride", { _ in 1 << 62 }), ("byteStride", { _ in Int.min }),
      ("byteCount", { $0 + 16 }), ("byteCount", { -$0 }), ("byteCount", { _ in Int.max }),
    ]
    for (key, change) in changes {
      for all in [false, true] {
        refuse(changed(image, key, all: all, change), "\(key): \(change(4096))")
      }
    }
    // Both places moved together, onto what lies before or after.
    for distance in [-4096, 4096, 1 << 40] {
      let moved = changed(changed(image, "offset") { $0 + distance }, "checksumOffset") {
        $0 + distance
      }
      refuse(moved, "moved by \(distance)")
    }
    refuse(
      changed(changed(image, "offset") { _ in 8192 }, "checksumOffset") { _ in 4096 }, "header")
  }

  @Test func `Other parts, types and layers are refused`() throws {
    let image = try image([.f16])
    let changes: [(String, String)] = [
      ("\"role\":\"up\"", "\"role\":\"gate\""), ("\"role\":\"up\"", "\"role\":\"left\""),
      ("\"role\":\"down\",\"type\":\"F16\"", "\"role\":\"down\",\"type\":\"F32\""),
      ("\"role\":\"down\",\"type\":\"F16\"", "\"role\":\"down\",\"type\":\"Q4_K\""),
      ("\"role\":\"down\",\"type\":\"F16\"", "\"role\":\"down\",\"type\":\"IQ1\""),
      ("\"neurons\":{\"layers\":[", "\"neurons\":{\"layers\":[],\"other\":["),
      ("\"neurons\":", "\"neuroses\":"),
      ("blk.1.ffn_select", "blk.1.ffn_gate"), ("blk.1.ffn_select", "blk.0.ffn_select"),
      (
        "\"neurons\":{",
        "\"neurons\":{\"thresholds\":{\"values\":[0.5],\"keptFraction\":0.1},"
      ),
      (
        "\"neurons\":{",
        "\"neurons\":{\"thresholds\":{\"values\":[0.5,-1],\"keptFraction\":0.1},"
      ),
      (
        "\"neurons\":{",
        "\"neurons\":{\"thresholds\":{\"values\":[0.5,1],\"keptFraction\":7},"
      ),
    ]
    for (old, new) in changes {
      let bytes = edited(image) { $0.replacing(old, with: new) }
      #expect(bytes != image, "\(old)")
      refuse(bytes, "\(old) → \(new)")
    }
    for ranks in ["[]", "[1]", "[0,1]", "[65,1]", "[-1,1]", "[9223372036854775807,1]", "[8,8]"] {
      refuse(
        edited(image) {
          $0.replacing(
            "\"neurons\":{",
            with: "\"neurons\":{\"predictor\":{\"ranks\":\(ranks),\"recalls\":[1,1],"
              + "\"predictedFractions\":[1,1],\"activeFractions\":[1,1]},")
        }, "ranks \(ranks)")
    }
  }

  @Test func `Headers that say something else never trap`() throws {
    for (number, types) in [[ElementType.f16], [.q8_0]].enumerated() {
      let image = try image(types)
      let length = Int(littleEndian(image, at: 24))
      let header = image[64..<64 + length]
      let text = String(decoding: header, as: UTF8.self)
      let start = try #require(text.ranges(of: "\"neurons\":").first)
      let first = 64 + text.utf8.distance(from: text.startIndex, to: start.lowerBound)
      let digits = (first..<min(first + 1200, 64 + length)).filter {
        (0x30...0x39).contains(image[$0])
      }
      var generator = SeededGenerator(seed: UInt64(number))
      for round in 0..<2000 {
        var bytes = image
        for _ in 0..<Int.random(in: 1...3, using: &generator) {
          bytes[digits.randomElement(using: &generator) ?? first] = UInt8.random(
            in: 0x30...0x39, using: &generator)
        }
        repairChecksums(&bytes)
        do throws(FormatError) { _ = try ImageBuilder.description(of: bytes) } catch {
          #expect(!error.message.isEmpty, "round \(round)")
        }
      }
    }
  }

  private func refuse(_ bytes: [UInt8], _ what: String) {
    do throws(FormatError) {
      _ = try ImageBuilder.description(of: bytes)
      Issue.record("\(what): accepted")
    } catch {
      #expect([.malformed, .unsupported].contains(error.kind), "\(what): \(error)")
    }
  }
}
