import ModelFormat
import TensorBasics

extension FuzzTarget {
  /// Safetensors headers: two bytes for the length of the data, then the JSON; or a file as it is, where
  /// the first byte is 0.
  static let safetensors = FuzzTarget(
    name: "safetensors",
    dictionary: [
      "\"dtype\":", "\"shape\":", "\"data_offsets\":", "__metadata__", "\"F32\"", "\"BF16\"",
      "\"F16\"", "\"I64\"", "\"BOOL\"", "\"F8_E4M3\"", "9223372036854775807",
    ],
    seeds: { SafetensorsTarget.seeds }, run: SafetensorsTarget.run)
}

enum SafetensorsTarget {
  static let seeds: [[UInt8]] = [
    #"{"__metadata__":{"format":"pt"},"b":{"dtype":"BF16","shape":[2,3],"data_offsets":[4,16]},"#
      + #""a":{"dtype":"F32","shape":[],"data_offsets":[0,4]}}"#,
    #"{"x":{"dtype":"I64","shape":[0,2],"data_offsets":[0,0]},"y":{"dtype":"F16","shape":[4],"#
      + #""data_offsets":[0,8]}}"#,
    "{}",
  ].map { [16, 0] + Array($0.utf8) }

  static func run(_ input: UnsafeRawBufferPointer) throws(FuzzFinding) -> Bool {
    var reader = InputReader(input)
    let dataByteCount = Int(reader.integer(byteCount: 2))
    let json = reader.rest()
    if dataByteCount & 0xFF == 0 {
      // The length is then part of the input.
      _ = try check(Array(json), fileByteCount: json.count + dataByteCount)
    }
    var bytes: [UInt8] = []
    bytes.appendLittleEndian(UInt64(json.count))
    bytes.append(contentsOf: json)
    guard let file = try check(bytes, fileByteCount: bytes.count + dataByteCount) else {
      return false
    }
    try checkWriting(file)
    return true
  }

  private static func check(
    _ bytes: [UInt8], fileByteCount: Int
  ) throws(FuzzFinding) -> SafetensorsFile? {
    func parse() -> Outcome<SafetensorsFile> {
      bytes.withUnsafeBytes { bytes in
        Outcome { () throws(FormatError) in
          try Safetensors.parse(bytes, fileByteCount: fileByteCount, path: "fuzz")
        }
      }
    }
    let parsed = parse()
    try parsed.check(prefixByteCount: bytes.count, fileByteCount: fileByteCount)
    guard let file = parsed.value else { return nil }
    var end = file.dataOffset
    for tensor in file.tensors {
      try require(tensor.offset >= end || tensor.byteCount == 0, "\(tensor.name) overlaps")
      try require(
        tensor.offset >= file.dataOffset && tensor.byteCount <= fileByteCount - tensor.offset,
        "\(tensor.name) does not lie in the file")
      end = max(end, tensor.offset + tensor.byteCount)
    }
    let again = parse().value
    try require(
      again?.tensors == file.tensors && again?.metadata == file.metadata, "parsed otherwise again")
    return file
  }

  /// Writes a header for the same tensors and reads that.
  private static func checkWriting(_ file: SafetensorsFile) throws(FuzzFinding) {
    var tensors: [SafetensorsLayout.Tensor] = []
    // The layout's dictionary compares names as Swift does.
    var names: Set<String> = ["__metadata__"]
    for tensor in file.tensors where names.insert(tensor.name).inserted {
      guard let type = tensor.type.elementType, [.f32, .f16, .bf16].contains(type) else { continue }
      tensors.append(SafetensorsLayout.Tensor(tensor.name, type, tensor.shape))
    }
    let layout = SafetensorsLayout(tensors, metadata: file.metadata)
    guard let copy = try check(layout.header, fileByteCount: layout.fileByteCount) else {
      throw FuzzFinding("a header that was written is refused")
    }
    try require(
      copy.metadata == file.metadata && copy.tensors.count == tensors.count,
      "a header that was written says something else")
  }
}
