/// Model files of any format this project reads from one file.
public enum ModelFile {
  /// What the first bytes of a file say it is.
  public enum Kind: String, Sendable {
    case gguf = "GGUF"
    case flashImage = "flash image"
    case stripeMember = "member of a striped image"
    case safetensors
    case unknown
  }

  /// How long a prefix to read at first; most headers without a vocabulary fit.
  public static let firstReadByteCount = 1 << 20

  /// Recognises a file by its first 16 bytes or more; fewer are enough for GGUF (4), images and their
  /// stripes (8).
  ///
  /// Safetensors files have no magic number: a JSON object at byte 8 of a plausible length is one.
  public static func recognise(_ prefix: UnsafeRawBufferPointer) -> Kind {
    if prefix.starts(with: "GGUF".utf8) { return .gguf }
    if prefix.starts(with: FlashImage.magic) { return .flashImage }
    if prefix.starts(with: StripeMember.magic) { return .stripeMember }
    guard prefix.count >= 9 else { return .unknown }
    let length = UInt64(littleEndian: prefix.loadUnaligned(as: UInt64.self))
    let looksLikeJSON = prefix[8] == UInt8(ascii: "{")
    return looksLikeJSON && length >= 2 && length <= UInt64(Int32.max) ? .safetensors : .unknown
  }

  /// Parses and describes a GGUF file or a flash image, whichever `prefix` begins.
  ///
  /// - Parameters:
  ///   - prefix: The file's first bytes; only read during the call.
  ///   - fileByteCount: Length of the whole file.
  ///   - path: The file's name.
  /// - Returns: The model, or how long a prefix is needed at least.
  /// - Throws: ``FormatError``; of kind `unrecognised` for any other file.
  public static func describe(
    _ prefix: UnsafeRawBufferPointer, fileByteCount: Int, path: String
  ) throws(FormatError) -> ParseProgress<ModelDescription> {
    if prefix.count < min(16, fileByteCount) { return .needsMore(atLeast: min(16, fileByteCount)) }
    switch recognise(prefix) {
    case .gguf:
      switch try GGUF.parse(prefix, fileByteCount: fileByteCount, path: path) {
      case .complete(let file):
        if let split = file.split, split.count > 1 {
          throw FormatError(
            .unrecognised, path: path,
            "member \(split.index + 1) of \(split.count) of a split model is not a model by itself")
        }
        return .complete(try GGUF.describe([file], header: prefix))
      case .needsMore(let byteCount): return .needsMore(atLeast: byteCount)
      }
    case .flashImage:
      return try FlashImage.parse(prefix, fileByteCount: fileByteCount, path: path)
    case .stripeMember:
      throw FormatError(
        .unrecognised, at: 0, path: path, "a member of a striped image is not a model by itself")
    case .safetensors:
      throw FormatError(
        .unrecognised, path: path,
        "a file of safetensors, which is a model together with the config.json beside it: name the folder"
      )
    case .unknown:
      throw FormatError(
        .unrecognised, at: 0, path: path, "neither a GGUF file nor a flash image")
    }
  }
}
