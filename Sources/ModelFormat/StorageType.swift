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

  /// Whether nothing is known of the type but its name: a tensor's bytes are there, and its rows cannot be
  /// told apart. A block is then a byte.
  public let isOpaque: Bool

  public init(_ type: ElementType) {
    isOpaque = false
    name = type.name
    blockElementCount = type.blockElementCount
    blockByteCount = type.blockByteCount
    elementType = type
  }

  private init(
    _ name: String, elementCount: Int = 1, byteCount: Int = 1, isOpaque: Bool = false
  ) {
    self.isOpaque = isOpaque
    self.name = name
    blockElementCount = elementCount
    blockByteCount = byteCount
    elementType = nil
  }

  /// The type that safetensors names `name`; nil for one that the format does not have.
  public static func safetensors(_ name: String) -> StorageType? { safetensorsTypes[name] }

  private static let safetensorsTypes: [String: StorageType] = {
    var types = [
      "F32": StorageType(.f32), "F16": StorageType(.f16), "BF16": StorageType(.bf16),
    ]
    let others = [
      ("BOOL", 1), ("U8", 1), ("I8", 1), ("F8_E4M3", 1), ("F8_E5M2", 1), ("F8_E8M0", 1), ("I16", 2),
      ("U16", 2), ("I32", 4), ("U32", 4), ("I64", 8), ("U64", 8), ("F64", 8), ("C64", 8),
      ("F8_E4M3FNUZ", 1), ("F8_E5M2FNUZ", 1),
    ]
    for (name, byteCount) in others { types[name] = StorageType(name, byteCount: byteCount) }
    // Elements of less than a byte, packed.
    for (name, elementCount, byteCount) in [("F4", 2, 1), ("F6_E2M3", 4, 3), ("F6_E3M2", 4, 3)] {
      types[name] = StorageType(name, elementCount: elementCount, byteCount: byteCount)
    }
    return types
  }()

  /// The type that GGUF numbers so; an opaque one where its layout is not known.
  static func gguf(_ number: UInt32) -> StorageType {
    if let type = ElementType(rawValue: number) { return StorageType(type) }
    return ggufTypes[number] ?? StorageType("type \(number)", isOpaque: true)
  }

  /// ggml's types that models do not compute with. Of those that were removed only the names are left.
  private static let ggufTypes: [UInt32: StorageType] = {
    var types: [UInt32: StorageType] = [
      9: StorageType("Q8_1", elementCount: 32, byteCount: 36),
      15: StorageType("Q8_K", elementCount: 256, byteCount: 292),
      24: StorageType("I8"), 25: StorageType("I16", byteCount: 2),
      26: StorageType("I32", byteCount: 4), 27: StorageType("I64", byteCount: 8),
      28: StorageType("F64", byteCount: 8),
    ]
    let removed: [UInt32: String] = [
      4: "Q4_2", 5: "Q4_3", 31: "Q4_0_4_4", 32: "Q4_0_4_8", 33: "Q4_0_8_8", 36: "IQ4_NL_4_4",
      37: "IQ4_NL_4_8", 38: "IQ4_NL_8_8",
    ]
    for (number, name) in removed { types[number] = StorageType(name, isOpaque: true) }
    return types
  }()
}
