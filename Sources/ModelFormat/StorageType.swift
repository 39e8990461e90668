public import TensorBasics

/// How the elements of a file's tensor are stored, whether or not a model can compute with them.
public struct StorageType: Hashable, Sendable {
  /// The name in the file's format, e.g. `BF16`, `I64`, `Q4_K`.
  public let name: String
  /// Elements in one block: 1 but for quantised types.
  public let blockElementCount: Int
  /// Bytes of one block.
  public let blockByteCount: Int
  /// The type that models compute with; nil for integers and other types that only are carried along.
  public let elementType: ElementType?

  public init(_ type: ElementType) {
    name = type.name
    blockElementCount = type.blockElementCount
    blockByteCount = type.blockByteCount
    elementType = type
  }

  private init(_ name: String, byteCount: Int) {
    self.name = name
    blockElementCount = 1
    blockByteCount = byteCount
    elementType = nil
  }

  /// The type that safetensors names `name`; nil for one that the format does not have, or whose elements
  /// are not whole bytes.
  public static func safetensors(_ name: String) -> StorageType? { safetensorsTypes[name] }

  private static let safetensorsTypes: [String: StorageType] = {
    var types = [
      "F32": StorageType(.f32), "F16": StorageType(.f16), "BF16": StorageType(.bf16),
    ]
    let others = [
      ("BOOL", 1), ("U8", 1), ("I8", 1), ("F8_E4M3", 1), ("F8_E5M2", 1), ("F8_E8M0", 1), ("I16", 2),
      ("U16", 2), ("I32", 4), ("U32", 4), ("I64", 8), ("U64", 8), ("F64", 8), ("C64", 8),
    ]
    for (name, byteCount) in others { types[name] = StorageType(name, byteCount: byteCount) }
    return types
  }()
}
