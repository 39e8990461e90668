import TensorBasics

/// Computes what tells a model from others: ``ModelDescription/identity``.
///
/// It is XXH3-64 over, each as an 8-byte little-endian integer: layer count, embedding length,
/// feed-forward length, query heads, key-value heads, head length, vocabulary, and experts, those used
/// and their length (0 in a dense model); then for each tensor, in ascending order of its name's bytes:
/// the name, a zero byte, ggml's number of its type, its columns and its rows as 8-byte integers, and its
/// first 4096 bytes, or all of them where there are fewer.
public struct ModelIdentity: ~Copyable {
  /// Bytes of a tensor that count at most.
  public static let tensorByteCount = 4096

  private var checksum = RunningChecksum()

  public init(_ configuration: DecoderConfiguration) {
    let experts = configuration.experts
    add([
      configuration.layerCount, configuration.embeddingLength, configuration.feedForwardLength,
      configuration.queryHeadCount, configuration.keyValueHeadCount, configuration.headLength,
      configuration.vocabularyCount, experts?.expertCount ?? 0, experts?.usedExpertCount ?? 0,
      experts?.feedForwardLength ?? 0,
    ])
  }

  /// Tensors in the order that ``add(_:_:)`` wants.
  public static func order(_ tensors: [TensorRecord]) -> [TensorRecord] {
    tensors.sorted { $0.name.utf8.lexicographicallyPrecedes($1.name.utf8) }
  }

  /// Takes the next tensor.
  ///
  /// - Parameter bytes: its first ``tensorByteCount`` bytes, or all.
  public mutating func add(_ tensor: TensorRecord, _ bytes: UnsafeRawBufferPointer) {
    let name = Array(tensor.name.utf8) + [0]
    name.withUnsafeBytes { checksum.update($0) }
    add([Int(tensor.type.rawValue), tensor.columnCount, tensor.rowCount])
    checksum.update(bytes)
  }

  public mutating func finish() -> UInt64 { checksum.finish() }

  /// An identity as people see it: sixteen hexadecimal digits.
  public static func text(_ identity: UInt64) -> String {
    let digits = String(identity, radix: 16)
    return String(repeating: "0", count: 16 - digits.count) + digits
  }

  private mutating func add(_ values: [Int]) {
    var bytes: [UInt8] = []
    for value in values { bytes.appendLittleEndian(UInt64(value)) }
    bytes.withUnsafeBytes { checksum.update($0) }
  }
}
