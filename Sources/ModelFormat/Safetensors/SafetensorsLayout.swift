import FoundationEssentials
public import TensorBasics

/// Where the tensors of a safetensors file to be written will lie, and the header that says so.
public struct SafetensorsLayout: Sendable {
  /// What a file is to hold.
  public struct Tensor: Sendable {
    public let name: String
    public let type: ElementType
    /// Outermost dimension first.
    public let shape: [Int]

    public init(_ name: String, _ type: ElementType, _ shape: [Int]) {
      self.name = name
      self.type = type
      self.shape = shape
    }

    var byteCount: Int { shape.reduce(type.blockByteCount, *) }
  }

  /// The file's first bytes: the length, the JSON, and spaces to a multiple of eight.
  public let header: [UInt8]
  /// Byte offsets of the tensors in the file, in the order given.
  public let offsets: [Int]
  /// Length of the whole file.
  public let fileByteCount: Int

  /// Lays `tensors` out in their order, without gaps.
  ///
  /// - Parameters:
  ///   - tensors: F32, F16 or BF16, under names that differ.
  ///   - metadata: texts for the header's `__metadata__`.
  public init(_ tensors: [Tensor], metadata: [String: String]) {
    var members = ["__metadata__": Member.metadata(metadata)]
    var starts: [Int] = []
    var end = 0
    for tensor in tensors {
      guard let type = Self.typeName(tensor.type) else {
        preconditionFailure("safetensors holds no \(tensor.type.name)")
      }
      precondition(members[tensor.name] == nil, "two tensors are named \(tensor.name)")
      starts.append(end)
      end += tensor.byteCount
      members[tensor.name] = .tensor(type: type, shape: tensor.shape, offsets: [starts.last!, end])
    }
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
    guard let json = try? encoder.encode(members) else {
      preconditionFailure("strings and integers are always JSON")
    }
    var header = [UInt8](json)
    while header.count % 8 != 0 { header.append(UInt8(ascii: " ")) }
    header = withUnsafeBytes(of: UInt64(header.count).littleEndian) { Array($0) } + header
    let dataOffset = header.count
    self.header = header
    offsets = starts.map { dataOffset + $0 }
    fileByteCount = dataOffset + end
  }

  private static func typeName(_ type: ElementType) -> String? {
    switch type {
    case .f32: "F32"
    case .f16: "F16"
    case .bf16: "BF16"
    default: nil
    }
  }

  private enum Member: Encodable {
    case metadata([String: String])
    case tensor(type: String, shape: [Int], offsets: [Int])

    private enum Key: String, CodingKey {
      case type = "dtype"
      case shape
      case offsets = "data_offsets"
    }

    func encode(to encoder: any Encoder) throws {
      switch self {
      case .metadata(let texts): try texts.encode(to: encoder)
      case .tensor(let type, let shape, let offsets):
        var container = encoder.container(keyedBy: Key.self)
        try container.encode(type, forKey: .type)
        try container.encode(shape, forKey: .shape)
        try container.encode(offsets, forKey: .offsets)
      }
    }
  }
}
