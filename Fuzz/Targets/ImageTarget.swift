import ModelFormat
import TensorBasics
import TestSupport

extension FuzzTarget {
  /// Flash images in parts, which the target puts together with checksums that agree: eight bytes for the
  /// file's length, the JSON header up to a zero, the tokenizer section. In the header
  /// `@@@@@@@@@@@@@@@@` stands for the section's checksum. An input that begins with the magic number is
  /// a file as it is.
  static let image = FuzzTarget(
    name: "image", inputByteLimit: 16384, dictionary: ImageTarget.words, seeds: ImageTarget.seeds,
    run: ImageTarget.run)
}

enum ImageTarget {
  private static let placeholder = [UInt8](repeating: UInt8(ascii: "@"), count: 16)

  static func run(_ input: UnsafeRawBufferPointer) throws(FuzzFinding) -> Bool {
    if input.starts(with: "FLASHIMG".utf8) {
      return try check(Array(input), fileByteCount: input.count) != nil
    }
    var reader = InputReader(input)
    let fileByteCount = Int(clamping: reader.integer(byteCount: 8))
    let header = Array(reader.bytes(upTo: 0))
    let image = assemble(header, section: Array(reader.rest()), fileByteCount: fileByteCount)
    guard let description = try check(image, fileByteCount: max(fileByteCount, 64)) else {
      return false
    }
    if let definition = description.tokenizer {
      try TokenizerChecks.check(definition, text: Array(" a the 12\n".utf8))
    }
    return true
  }

  /// The image's bytes up to the end of the section.
  private static func assemble(
    _ header: [UInt8], section: [UInt8], fileByteCount: Int
  ) -> [UInt8] {
    var header = header
    let place = header.indices.first { header[$0...].starts(with: placeholder) }
    if let place {
      let checksum = section.withUnsafeBytes(Checksum.of)
      let digits = String(checksum, radix: 16)
      let zeros = [UInt8](repeating: UInt8(ascii: "0"), count: 16 - digits.utf8.count)
      header.replaceSubrange(place..<place + 16, with: zeros + Array(digits.utf8))
    }
    var bytes = Array("FLASHIMG".utf8)
    bytes.appendLittleEndian(UInt32(1))
    bytes.appendLittleEndian(UInt32(0))
    bytes.appendLittleEndian(UInt64(64))
    bytes.appendLittleEndian(UInt64(header.count))
    bytes.appendLittleEndian(header.withUnsafeBytes(Checksum.of))
    bytes.appendLittleEndian(UInt64(max(fileByteCount, 64)))
    bytes.appendLittleEndian(UInt64(0))
    bytes.appendLittleEndian(bytes.withUnsafeBytes(Checksum.of))
    bytes += header
    bytes.padWithZeros(to: (bytes.count + 4095) / 4096 * 4096)
    bytes += section
    bytes.padWithZeros(to: (bytes.count + 4095) / 4096 * 4096)
    return bytes
  }

  private static func check(
    _ bytes: [UInt8], fileByteCount: Int
  ) throws(FuzzFinding) -> ModelDescription? {
    func parse() -> Outcome<ModelDescription> {
      bytes.withUnsafeBytes { bytes in
        Outcome { () throws(FormatError) in
          try ModelFile.describe(bytes, fileByteCount: fileByteCount, path: "fuzz")
        }
      }
    }
    let parsed = parse()
    try parsed.check(
      prefixByteCount: min(bytes.count, fileByteCount), fileByteCount: fileByteCount)
    guard let description = parsed.value else { return nil }
    try description.checkPlaces(fileByteCount: fileByteCount)
    guard let again = parse().value else { throw FuzzFinding("accepted once, then not") }
    try description.checkEqual(again, "a second time")
    return description
  }

  @Sendable static func seeds() throws -> [[UInt8]] {
    var inputs: [[UInt8]] = []
    for (architecture, bundling) in [
      ("llama", Bundling.none), ("llama", .neurons), ("gemma3", .none), ("qwen2moe", .experts),
      ("mamba2", .none), ("falcon-h1", .none),
    ] {
      var model = TinyModel(architecture: architecture)
      model.layerCount = 1
      model.experts?.expertCount = 3
      var description = try ImageBuilder.description(of: model.gguf(seed: 1).bytes())
      description.tokenizer = TokenizerChecks.shortened(description.tokenizer)
      inputs.append(try input(of: description, bundling))
    }
    return inputs
  }

  private static func input(
    of description: ModelDescription, _ bundling: Bundling
  ) throws(FormatError) -> [UInt8] {
    let layout = try FlashImage.Layout(
      for: description, bundling: bundling, extentByteCount: 1 << 20)
    let preamble = try layout.preamble(
      checksums: layout.description.extents.map { _ in 0x0123_4567_89AB_CDEF })
    let length = (0..<8).reduce(0) { $0 | Int(preamble[24 + $1]) << (8 * $1) }
    var header = Array(preamble[64..<64 + length])
    // After the section's last string there are zeros up to the data.
    let rest = preamble[(64 + length + 4095) / 4096 * 4096..<layout.dataOffset]
    let section = Array(rest[...(rest.lastIndex { $0 != 0 } ?? rest.startIndex)])
    // The checksum that is no extent's is the section's.
    let marks = Array(#""checksum":""#.utf8)
    let extents = Array("0123456789abcdef".utf8)
    for index in header.indices where header[index...].starts(with: marks) {
      let value = index + marks.count..<index + marks.count + 16
      if value.upperBound <= header.count, Array(header[value]) != extents {
        header.replaceSubrange(value, with: placeholder)
      }
    }
    var input: [UInt8] = []
    input.appendLittleEndian(UInt64(layout.fileByteCount))
    return input + header + [0] + section
  }

  static let words = [
    "FLASHIMG", "@@@@@@@@@@@@@@@@", "\"dataOffset\":", "\"tensors\":", "\"extents\":",
    "\"neurons\":", "\"layers\":", "\"neuronsPerBundle\":", "\"bundleCount\":", "\"byteStride\":",
    "\"checksumOffset\":", "\"parts\":", "\"role\":", "\"predictor\":", "\"thresholds\":",
    "\"stack\":", "\"count\":", "\"columnCount\":", "\"rowCount\":", "\"byteCount\":",
    "\"offset\":", "\"layout\":", "\"configuration\":", "\"layerCount\":", "\"tokenizer\":",
    "\"experts\":", "\"identity\":", "9223372036854775807", "-1", "4096", "null", "\"Q8_0\"",
    "\"F32\"", "\"slidingLayers\":", "\"positionOffset\":", "\"headLength\":",
  ]
}
