import ModelFormat
import TensorBasics
import TestSupport
import Testing

/// Where experts lie in images, and what of it is checked.
@Suite struct ExpertImageTests {
  private static let families = ["mixtral", "qwen2moe", "qwen3moe", "olmoe"]

  private func image(
    _ family: String, _ bundling: Bundling? = nil, extentByteCount: Int = 1 << 20
  ) throws -> [UInt8] {
    try ImageBuilder.image(
      of: TinyModel.withExperts(family).gguf(seed: 4).bytes(), bundling: bundling,
      extentByteCount: extentByteCount)
  }

  private func experts(_ description: ModelDescription, layer: Int) throws -> [TensorRecord] {
    let table = try TensorTable(description.tensors)
    return try ["gate", "up", "down"].map {
      try #require(table["blk.\(layer).ffn_\($0)_exps.weight"])
    }
  }

  @Test(arguments: families)
  func `A bundle is gate, up and down of one expert, then zeros`(family: String) throws {
    let image = try image(family, extentByteCount: 8192)
    let description = try ImageBuilder.description(of: image)
    let source = TinyModel.withExperts(family).experts
    #expect(description.configuration?.experts == source)
    #expect(
      (description.configuration?.layers[0].attention?.headNorm == .projection)
        == (family == "olmoe"))
    let ends = Set(description.extents.map { $0.offset + $0.byteCount })
    for layer in 0..<2 {
      let tensors = try experts(description, layer: layer)
      let stack = try #require(tensors[0].stack)
      let sum = tensors.reduce(0) { $0 + $1.partByteCount }
      #expect(stack.count == 8 && stack.byteStride == (sum + 4095) / 4096 * 4096)
      #expect(tensors[0].offset % 4096 == 0)
      for (tensor, next) in zip(tensors, tensors.dropFirst()) {
        #expect(next.offset == tensor.offset + tensor.partByteCount && next.stack == stack)
      }
      #expect(tensors.allSatisfy { $0.isBundled && $0.layout == .interleaved })
      for expert in 0..<8 {
        let start = tensors[0].offset + expert * stack.byteStride
        #expect(ends.contains(start) && ends.contains(start + stack.byteStride))
        #expect(tensors[2].part(expert).offset + tensors[2].partByteCount == start + sum)
        #expect(image[start + sum..<start + stack.byteStride].allSatisfy { $0 == 0 })
      }
    }
    let longest = try #require(description.extents.map(\.byteCount).max())
    #expect(longest <= 8192)
  }

  @Test(arguments: families)
  func `Without bundles each stack is contiguous`(family: String) throws {
    let description = try ImageBuilder.description(of: try image(family, Bundling.none))
    for tensor in try experts(description, layer: 1) {
      #expect(tensor.stack == ExpertStack(count: 8, byteStride: tensor.byteCount / 8))
      #expect(!tensor.isBundled && tensor.offset % 4096 == 0)
      #expect(tensor.byteSpan.count == tensor.byteCount)
    }
  }

  @Test func `Parts are padded to whole row groups`() throws {
    var model = TinyModel.mixtral()
    model.experts?.feedForwardLength = 40
    model.matrixTypes = [.f32]
    for bundling in [Bundling.none, .experts] {
      let description = try ImageBuilder.description(
        of: try ImageBuilder.image(of: model.gguf(seed: 1).bytes(), bundling: bundling))
      let tensors = try experts(description, layer: 0)
      #expect(tensors.map(\.partRowCount) == [40, 40, 64])
      #expect(tensors.map(\.partByteCount) == [48 * 64 * 4, 48 * 64 * 4, 64 * 40 * 4])
    }
  }

  @Test func `A dense model has nothing to bundle, and its header no key for it`() throws {
    let gguf = TinyModel().gguf(seed: 1).bytes()
    #expect(throws: FormatError.self) { try ImageBuilder.image(of: gguf, bundling: .experts) }
    let image = try ImageBuilder.image(of: gguf)
    #expect(image == (try ImageBuilder.image(of: gguf, bundling: Bundling.none)))
    let header = headerText(image)
    for key in ["stack", "experts", "normalisesProjections"] {
      #expect(!header.contains("\"\(key)\""))
    }
  }

  /// One change to the header of a bundled image; each must be noticed.
  private struct Change {
    var what: String
    /// Tensors of layer 0 it is made to: `gate`, `up`, `down`.
    var tensors = ["gate", "up", "down"]
    var key: String
    /// What the error says.
    var words = ""
    var change: (Int) -> Int
  }

  @Test(arguments: families)
  func `Bundles that lie elsewhere are refused`(family: String) throws {
    let changes = [
      Change(what: "longer stride", key: "byteStride", words: "wrong stride") { $0 + 4096 },
      Change(what: "shorter stride", key: "byteStride", words: "wrong stride") { $0 - 4096 },
      Change(what: "stride off the blocks", key: "byteStride") { $0 + 64 },
      Change(what: "no stride", key: "byteStride") { _ in 0 },
      Change(what: "negative stride", key: "byteStride") { -$0 },
      Change(what: "endless stride", key: "byteStride") { _ in 1 << 62 },
      Change(what: "one stride", tensors: ["up"], key: "byteStride") { $0 + 4096 },
      Change(what: "more experts", key: "count") { $0 + 1 },
      Change(what: "no experts", key: "count") { _ in 0 },
      Change(what: "negative experts", key: "count") { -$0 },
      Change(what: "up later", tensors: ["up"], key: "offset") { $0 + 64 },
      Change(what: "down earlier", tensors: ["down"], key: "offset") { $0 - 64 },
      Change(what: "all earlier", key: "offset") { $0 - 4096 },
      Change(what: "all later", key: "offset") { $0 + 4096 },
      Change(what: "all askew", key: "offset") { $0 + 64 },
      Change(what: "far away", key: "offset") { _ in 1 << 52 },
      Change(what: "negative place", key: "offset") { -$0 },
      Change(what: "lowest place", key: "offset") { _ in Int.min },
      Change(what: "highest place", key: "offset") { _ in Int.max },
      Change(what: "highest stride", key: "byteStride") { _ in Int.max },
      Change(what: "lowest stride", key: "byteStride") { _ in Int.min },
      Change(what: "more bytes", tensors: ["down"], key: "byteCount") { $0 + 8 },
      Change(what: "fewer rows", tensors: ["gate"], key: "rowCount") { $0 - 8 },
    ]
    let image = try image(family)
    #expect(try ImageBuilder.description(of: edited(image) { $0 }).tensors.count > 0)
    for change in changes {
      let bytes = edited(image) { header in
        change.tensors.reduce(header) {
          edit($0, tensor: "blk.0.ffn_\($1)_exps.weight", change.key, change.change)
        }
      }
      try refuse(bytes, change.what, words: change.words)
    }
  }

  @Test func `Bundles of mixed tensors and layouts are refused`() throws {
    let image = try image("qwen3moe")
    let swaps: [(String, String)] = [
      ("blk.0.ffn_up_exps.weight", "blk.0.ffn_gate_exps.weight"),
      ("blk.0.ffn_up_exps.weight", "blk.1.ffn_up_exps.weight"),
    ]
    for (first, second) in swaps {
      let bytes = edited(image) {
        $0.replacing("\"\(first)\"", with: "\"?\"").replacing("\"\(second)\"", with: "\"\(first)\"")
          .replacing("\"?\"", with: "\"\(second)\"")
      }
      try refuse(bytes, "\(first) for \(second)")
    }
    let plain = try self.image("qwen3moe", Bundling.none)
    for name in ["gate", "up", "down"] {
      let rowMajor = edited(plain) {
        let key = "\"interleaved\",\"name\":\"blk.0.ffn_\(name)_exps.weight\""
        return $0.replacing(
          key, with: "\"rowMajor\",\"name\":\"blk.0.ffn_\(name)_exps.weight\"")
      }
      try refuse(rowMajor, "row-major \(name)")
    }
    let lone = edited(plain) {
      edit($0, tensor: "blk.1.ffn_down_exps.weight", "byteStride") { $0 + 4096 }
    }
    try refuse(lone, "a lone bundled tensor")
  }

  @Test func `A bundle that shares an extent is refused`() throws {
    let image = try image("qwen3moe")
    let description = try ImageBuilder.description(of: image)
    let gate = try experts(description, layer: 0)[0]
    let stride = try #require(gate.stack?.byteStride)
    let boundary = gate.offset + 3 * stride
    let bytes = edited(image) { header in
      var header = edit(header, extent: boundary - stride, "byteCount") { $0 + 4096 }
      header = edit(header, extent: boundary, "byteCount") { $0 - 4096 }
      return header.replacing("\"offset\":\(boundary)}", with: "\"offset\":\(boundary + 4096)}")
    }
    try refuse(bytes, "moved boundary")
  }

  private func refuse(_ bytes: [UInt8], _ what: String, words: String = "") throws {
    do throws(FormatError) {
      _ = try ImageBuilder.description(of: bytes)
      Issue.record("\(what): accepted")
    } catch {
      #expect(error.kind == .malformed, "\(what): \(error)")
      #expect(words.isEmpty || error.message.contains(words), "\(what): \(error)")
    }
  }

  private func edit(
    _ header: String, tensor: String, _ key: String, _ change: (Int) -> Int
  ) -> String {
    guard let name = header.ranges(of: "\"name\":\"\(tensor)\"").first,
      let start = header[..<name.lowerBound].ranges(of: "{\"byteCount\"").last,
      let end = header[name.upperBound...].ranges(of: "\"type\"").first
    else { return header }
    return edit(header, in: start.lowerBound..<end.upperBound, key, change)
  }

  private func edit(
    _ header: String, extent offset: Int, _ key: String, _ change: (Int) -> Int
  ) -> String {
    guard let end = header.ranges(of: "\"offset\":\(offset)}").first,
      let start = header[..<end.lowerBound].ranges(of: "{\"byteCount\"").last
    else { return header }
    return edit(header, in: start.lowerBound..<end.upperBound, key, change)
  }

  private func edit(
    _ header: String, in range: Range<String.Index>, _ key: String, _ change: (Int) -> Int
  ) -> String {
    guard let found = header[range].ranges(of: "\"\(key)\":").first else { return header }
    let digits = header[found.upperBound...].prefix { $0.isNumber }
    guard let value = Int(digits) else { return header }
    return header.replacingCharacters(digits.startIndex..<digits.endIndex, with: "\(change(value))")
  }
}

extension String {
  fileprivate func replacingCharacters(_ range: Range<Index>, with text: String) -> String {
    var result = self
    result.replaceSubrange(range, with: text)
    return result
  }
}
