import Kernels
import ModelConversion
import ModelFormat
import Runtime
import TensorBasics
import TestSupport
import Testing
import WeightLoader

/// Folders whose weights are floats of 8 bits or integers of 4 with scales: conversion unpacks them.
@Suite struct PackedFolderTests {
  /// An image of `folder`, as the checksums of its data.
  private func checksums(
    _ folder: TemporaryFolder, quantisation: ElementType? = nil, threadCount: Int = 3
  ) throws -> [UInt64] {
    let target = TemporaryFolder()
    let path = target.path + "/model.bin"
    try Converter(try ModelSource.open(folder.path), quantisation: quantisation)
      .write(to: path, threadCount: threadCount)
    return try ModelSource.open(path).description.extents.map(\.checksum)
  }

  private func error(_ folder: TemporaryFolder) -> String {
    do {
      _ = try checksums(folder)
      return "converted"
    } catch { return "\(error)" }
  }

  /// A float of 8 bits by its definition (arXiv:2209.05433).
  private static func value(_ byte: UInt8, _ type: String) -> Double {
    let mantissaBits = type == "F8_E4M3" ? 3 : 2
    let bias = type == "F8_E4M3" ? 7 : 15
    let exponent = Int(byte & 0x7F) >> mantissaBits
    let mantissa = Double(Int(byte) & (1 << mantissaBits - 1)) / Double(1 << mantissaBits)
    func power(_ exponent: Int) -> Double {
      Double(sign: .plus, exponent: exponent, significand: 1)
    }
    let magnitude =
      exponent == 0 ? mantissa * power(1 - bias) : (1 + mantissa) * power(exponent - bias)
    return byte >= 128 ? -magnitude : magnitude
  }

  /// How scales are stored: of what type, for blocks of which rows and columns, under which name.
  struct Scaling: CustomTestStringConvertible {
    var weights = "F8_E4M3"
    var type = "F32"
    var block: (rows: Int, columns: Int)? = (24, 20)
    /// One for each row, without blocks.
    var isPerRow = false
    var ending = "_scale_inv"

    var testDescription: String { "\(weights) \(type) \(block as Any) \(isPerRow)" }
  }

  /// A scale that its type stores exactly: a power of two times an odd number of few bits.
  private static func scale(_ scaling: Scaling, _ number: Int) -> (value: Float, bytes: [UInt8]) {
    if scaling.type == "F8_E8M0" {
      let exponent = UInt8(118 + number % 5)
      return (Float(sign: .plus, exponent: Int(exponent) - 127, significand: 1), [exponent])
    }
    let value = Float(17 + number % 46) * 0x1p-13
    let bits = scaling.type == "BF16" ? value.bitPattern >> 16 : value.bitPattern
    return (
      value,
      (0..<(scaling.type == "BF16" ? 2 : 4)).map { UInt8(truncatingIfNeeded: bits >> (8 * $0)) }
    )
  }

  /// Makes the named matrices floats of 8 bits in `packed`, and in `plain` what these stand for.
  private func pack(
    _ names: [String], _ scaling: Scaling, _ packed: inout EditedFolder,
    _ plain: inout EditedFolder, plainType: String = "BF16"
  ) throws {
    var generator = SeededGenerator(seed: 11)
    for name in names {
      let shape = try packed.take(name).shape
      let (stack, rows, columns) = (
        shape.count == 3 ? shape[0] : 1, shape[shape.count - 2], shape[shape.count - 1]
      )
      let block = scaling.block ?? (scaling.isPerRow ? 1 : rows, columns)
      let (high, wide) = (
        (rows + block.rows - 1) / block.rows, (columns + block.columns - 1) / block.columns
      )
      var (bytes, values, scales): ([UInt8], [UInt8], [UInt8]) = ([], [], [])
      for part in 0..<stack {
        for number in 0..<high * wide { scales += Self.scale(scaling, part * 7 + number).bytes }
        for row in 0..<rows {
          for column in 0..<columns {
            // Neither infinite nor NaN, and no large ones of E5M2.
            let byte = UInt8(truncatingIfNeeded: generator.next()) & 0xBF
            let number = row / block.rows * wide + column / block.columns
            let value =
              Float(Self.value(byte, scaling.weights))
              * Self.scale(scaling, part * 7 + number).value
            bytes.append(byte)
            let bits = value.bitPattern
            let rounded = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16
            let stored = plainType == "BF16" ? rounded : bits
            for index in 0..<(plainType == "BF16" ? 2 : 4) {
              values.append(UInt8(truncatingIfNeeded: stored >> (8 * index)))
            }
          }
        }
      }
      packed.tensors[name] = .init(type: scaling.weights, shape: shape, bytes: bytes)
      var scaleShape = scaling.block == nil && !scaling.isPerRow ? [] : [high, wide]
      if stack > 1 { scaleShape.insert(stack, at: 0) }
      packed.tensors[name + scaling.ending] = .init(
        type: scaling.type, shape: scaleShape, bytes: scales)
      plain.tensors[name] = .init(type: plainType, shape: shape, bytes: values)
    }
  }

  private static let matrices = [
    "self_attn.q", "self_attn.k", "self_attn.v", "self_attn.o", "mlp.gate", "mlp.up", "mlp.down",
  ]
  .flatMap { name in (0..<2).map { "model.layers.\($0).\(name)_proj.weight" } }

  private func folders(
    _ name: String, _ scaling: Scaling
  ) throws -> (packed: EditedFolder, plain: EditedFolder) {
    var packed = try EditedFolder(name)
    let plain = packed
    let block = scaling.block.map { ",\"weight_block_size\":[\($0.rows),\($0.columns)]" } ?? ""
    packed.configure(#""quantization_config":{"quant_method":"fp8"\#(block)}"#)
    return (packed, plain)
  }

  @Test(arguments: [
    Scaling(), Scaling(weights: "F8_E5M2"), Scaling(type: "BF16", block: (128, 128)),
    Scaling(type: "F8_E8M0", block: (16, 32)),
    Scaling(block: nil, isPerRow: true, ending: "_scale"),
    Scaling(weights: "F8_E5M2", type: "BF16", block: nil, ending: "_scale"),
  ])
  func `Floats of 8 bits become what they stand for`(scaling: Scaling) throws {
    #expect(Self.value(0x38, "F8_E4M3") == 1 && Self.value(0xFE, "F8_E4M3") == -448)
    #expect(Self.value(1, "F8_E4M3") == 0x1p-9 && Self.value(0x3C, "F8_E5M2") == 1)
    var (packed, plain) = try folders("llama", scaling)
    try pack(Self.matrices, scaling, &packed, &plain)
    packed.tensors["model.layers.0.mlp.down_proj.input_scale"] = .init(
      type: "F32", shape: [], bytes: [0, 0, 0x80, 0x3F])
    let folder = packed.write()
    #expect(try checksums(folder) == checksums(plain.write()))
    let groups = try Converter(try ModelSource.open(folder.path)).unpackedMatrices
    #expect(groups.map(\.packing) == [scaling.weights] && groups.map(\.type) == [.bf16])
    let byteCount = Self.matrices.reduce(0) { $0 + (packed.tensors[$1]?.bytes.count ?? 0) }
    #expect(groups.map(\.count) == [14] && groups.map(\.byteCount) == [byteCount])
  }

  @Test func `They are quantised from their full values`() throws {
    let scaling = Scaling()
    var (packed, plain) = try folders("llama", scaling)
    try pack(Self.matrices, scaling, &packed, &plain, plainType: "F32")
    #expect(
      try checksums(packed.write(), quantisation: .q8_0)
        == checksums(plain.write(), quantisation: .q8_0))
  }

  @Test(arguments: [ElementType?.none, .q4_0])
  func `Any number of threads unpacks the same`(quantisation: ElementType?) throws {
    let scaling = Scaling(block: (24, 20))
    var (packed, plain) = try folders("llama", scaling)
    try pack(Self.matrices, scaling, &packed, &plain)
    let folder = packed.write()
    let expected = try checksums(folder, quantisation: quantisation, threadCount: 1)
    for threadCount in [2, 5] {
      #expect(
        try checksums(folder, quantisation: quantisation, threadCount: threadCount) == expected)
    }
  }

  @Test func `Scales belong to the rows of a fused matrix`() throws {
    let scaling = Scaling(block: (24, 32))
    var (packed, plain) = try folders("mistral", scaling)
    for layer in 0..<2 {
      try packed.fuse(
        ["q", "k", "v"].map { "model.layers.\(layer).self_attn.\($0)_proj.weight" },
        as: "model.layers.\(layer).self_attn.qkv_proj.weight")
      try plain.fuse(
        ["q", "k", "v"].map { "model.layers.\(layer).self_attn.\($0)_proj.weight" },
        as: "model.layers.\(layer).self_attn.qkv_proj.weight")
    }
    try pack(
      (0..<2).map { "model.layers.\($0).self_attn.qkv_proj.weight" }, scaling, &packed, &plain)
    #expect(try checksums(packed.write()) == checksums(plain.write()))
  }

  @Test func `Experts have scales of their own, apart or stacked`() throws {
    let scaling = Scaling(block: (24, 20))
    var (packed, plain) = try folders("qwen3moe", scaling)
    let experts = packed.tensors.keys.filter { $0.contains(".experts.") }.sorted()
    try pack(experts, scaling, &packed, &plain)
    #expect(experts.count == 48)
    #expect(try checksums(packed.write()) == checksums(plain.write()))
    (packed, plain) = try folders("qwen3moe", scaling)
    var names: [String] = []
    for layer in 0..<2 {
      let prefix = "model.layers.\(layer).mlp.experts."
      for (name, parts) in [("gate_up_proj", ["gate", "up"]), ("down_proj", ["down"])] {
        var whole: EditedFolder.Tensor?
        for expert in 0..<8 {
          for part in parts {
            let next = try packed.take("\(prefix)\(expert).\(part)_proj.weight")
            plain.tensors["\(prefix)\(expert).\(part)_proj.weight"] = nil
            let rows = parts.count * next.shape[0]
            whole = whole ?? .init(type: "BF16", shape: [8, rows, next.shape[1]], bytes: [])
            whole?.bytes += next.bytes
          }
        }
        packed.tensors[prefix + name] = whole
        names.append(prefix + name)
      }
    }
    try pack(names, scaling, &packed, &plain)
    #expect(try checksums(packed.write()) == checksums(plain.write()))
  }

  @Test func `A folder of floats of 8 bits is not run, and it is said what to do`() throws {
    var (packed, plain) = try folders("llama", Scaling())
    try pack(Self.matrices, Scaling(), &packed, &plain)
    let folder = packed.write()
    let source = try ModelSource.open(folder.path)
    let configuration = try #require(source.description.configuration)
    #expect {
      try VectorModel.logits(source, configuration)
    } throws: { error in
      "\(error)".contains("F8_E4M3 with scales") && "\(error)".contains("flashinfer-convert")
    }
  }

  @Test func `Floats that are none, and scales that do not fit, are named`() throws {
    let name = "model.layers.1.mlp.up_proj.weight"
    var (packed, plain) = try folders("llama", Scaling())
    try pack([name], Scaling(), &packed, &plain)
    var other = packed
    // The first is named, whichever thread meets it.
    for row in [5, 6, 20, 41] { other.tensors[name]?.bytes[row * 32 + 3] = 0x7F }
    var message = error(other.write())
    #expect(message.contains("row 5 of tensor 'blk.1.ffn_up.weight'"), "\(message)")
    #expect(message.contains("column 3"), "\(message)")
    other = packed
    other.tensors[name + "_scale_inv"]?.shape = [2, 3]
    message = error(other.write())
    #expect(message.contains("\(name)\" has scales of F32 [2, 3], which do not fit"), "\(message)")
    other.tensors[name + "_scale_inv"] = nil
    message = error(other.write())
    #expect(message.contains("has no \"\(name)_scale_inv\""), "\(message)")
    other = packed
    other.tensors[name]?.type = "F8_E4M3FNUZ"
    message = error(other.write())
    #expect(message.contains("F8_E4M3FNUZ"), "\(message)")
  }

  // MARK: - Integers of 4 bits

  private static let int4 =
    #""quantization_config":{"quant_method":"compressed-tensors","format":"pack-quantized","#
    + #""config_groups":{"group_0":{"targets":["Linear"],"weights":{"num_bits":4,"type":"int","#
    + #""symmetric":true,"strategy":"group","group_size":32}}}}"#

  /// A matrix as llm-compressor packs it, and its values.
  private func packInt4(
    _ name: String, _ folder: inout EditedFolder, scale: (Int) -> UInt16
  ) throws -> [Float] {
    let shape = try folder.take(name).shape
    var generator = SeededGenerator(seed: 5)
    var (words, scales, values): ([UInt8], [UInt8], [Float]) = ([], [], [])
    for block in 0..<shape[0] * shape[1] / 32 {
      let bits = scale(block)
      scales += [UInt8(truncatingIfNeeded: bits), UInt8(bits >> 8)]
      for _ in 0..<16 {
        let byte = UInt8(truncatingIfNeeded: generator.next())
        words.append(byte)
        for quant in [byte & 15, byte >> 4] {
          values.append((Float(quant) - 8) * Float(bitPattern: UInt32(bits) << 16))
        }
      }
    }
    folder.tensors[name + "_packed"] = .init(
      type: "I32", shape: [shape[0], shape[1] / 8], bytes: words)
    folder.tensors[name + "_scale"] = .init(
      type: "BF16", shape: [shape[0], shape[1] / 32], bytes: scales)
    let stated = shape.flatMap { side in
      withUnsafeBytes(of: Int64(side).littleEndian, Array.init)
    }
    folder.tensors[name + "_shape"] = .init(type: "I64", shape: [2], bytes: stated)
    return values
  }

  @Test func `Symmetric integers of 4 bits become Q4_0, value for value`() throws {
    let name = "model.layers.1.mlp.down_proj.weight"
    var folder = try EditedFolder("llama")
    let expected = try packInt4(name, &folder) { UInt16(0x3C00 + 37 * $0 % 256) }
    folder.configure(Self.int4)
    let target = folder.write()
    let path = target.path + "/model.bin"
    try Converter(try ModelSource.open(target.path), quantisation: .q8_0).write(to: path)
    let image = try ModelSource.open(path)
    let index = try #require(
      image.description.tensors.firstIndex { $0.name == "blk.1.ffn_down.weight" })
    let record = image.description.tensors[index]
    #expect(record.type == .q4_0)
    var found: [Float] = []
    try image.readTensors([index]) { _, address in
      let group = RowGroup.byteCount(record.type, columnCount: record.columnCount)
      for row in 0..<record.rowCount {
        var values = [Float](repeating: 0, count: record.columnCount)
        Dequantisation.row(
          inGroup: address + row / 16 * group, row: row % 16, type: record.type,
          columnCount: record.columnCount, into: &values)
        found += values
      }
    }
    #expect(found == expected)
  }

  @Test func `Scales that Q4_0 cannot store are refused`() throws {
    let name = "model.layers.0.mlp.up_proj.weight"
    for bits in [0x3001, 0x47F0, 0x7F80] as [UInt16] {
      var folder = try EditedFolder("llama")
      _ = try packInt4(name, &folder) { $0 == 9 ? bits : 0x3C80 }
      folder.configure(Self.int4)
      let message = error(folder.write())
      #expect(message.contains("row 9 of tensor 'blk.0.ffn_up.weight' has the scale"), "\(message)")
    }
  }

  @Test func `Shapes and groups that are stated otherwise are refused`() throws {
    let name = "model.layers.0.mlp.down_proj.weight"
    var whole = try EditedFolder("llama")
    _ = try packInt4(name, &whole) { _ in 0x3C80 }
    whole.configure(Self.int4)
    #expect(error(whole.write()) == "converted")
    // A row fewer; a column more.
    for (byte, change) in [(0, -1), (8, 1)] {
      var folder = whole
      let value = Int(folder.tensors[name + "_shape"]?.bytes[byte] ?? 0)
      folder.tensors[name + "_shape"]?.bytes[byte] = UInt8(truncatingIfNeeded: value + change)
      let message = error(folder.write())
      #expect(message.contains("weight_shape of tensor 'blk.0.ffn_down.weight'"), "\(message)")
    }
    var folder = whole
    folder.tensors[name + "_shape"]?.type = "F64"
    var message = error(folder.write())
    #expect(message.contains("\"\(name)_shape\" of F64 [2], not I64 [2]"), "\(message)")
    for (stated, words) in [
      (#""group_size":64"#, "states groups of 64"),
      (#""strategy":"channel","group_size":null"#, "states groups of whole rows"),
    ] {
      folder = whole
      folder.config = folder.config.replacing(
        #""strategy":"group","group_size":32"#, with: stated)
      message = error(folder.write())
      #expect(
        message.contains("a scale for each 32 columns") && message.contains(words), "\(message)")
    }
  }

  @Test func `Tensors of methods that config.json does not state are named`() throws {
    for (ending, method) in [
      ("qweight", "GPTQ or AWQ"), ("weight.absmax", "bitsandbytes"), ("biases", "MLX"),
    ] {
      var folder = try EditedFolder("llama")
      folder.tensors["model.layers.0.mlp.up_proj.\(ending)"] = .init(
        type: "I32", shape: [1, 1], bytes: [0, 0, 0, 0])
      let message = error(folder.write())
      #expect(message.contains(method) && message.contains("GGUF file"), "\(message)")
    }
  }

  @Test func `Methods that are not read are refused with what to take instead`() throws {
    let group = #""config_groups":{"a":{"weights":"#
    let cases = [
      (#""quantization_config":{"quant_method":"gptq","bits":4}"#, "GPTQ"),
      (#""quantization_config":{"quant_method":"awq"}"#, "AWQ"),
      (#""quantization_config":{"quant_method":"bitsandbytes"}"#, "bitsandbytes"),
      (#""quantization":{"group_size":64,"bits":4}"#, "MLX"),
      (#""quantization_config":{"group_size":64,"bits":4}"#, "MLX"),
      (#""quantization_config":{"quant_method":"new"}"#, "by new "),
      (
        #""quantization_config":{"quant_method":"compressed-tensors",\#(group){"num_bits":4,"type":"int","symmetric":false}}}}"#,
        "zero points"
      ),
      (
        #""quantization_config":{"quant_method":"compressed-tensors",\#(group){"num_bits":4,"type":"int","symmetric":true,"actorder":"group"}}}}"#,
        "another order"
      ),
      (
        #""quantization_config":{"quant_method":"compressed-tensors",\#(group){"num_bits":4,"type":"float"}}}}"#,
        "float of 4 bits"
      ),
    ]
    for (members, words) in cases {
      var folder = try EditedFolder("llama")
      folder.configure(members)
      let message = error(folder.write())
      #expect(message.contains(words) && message.contains("GGUF file"), "\(message)")
    }
  }
}
