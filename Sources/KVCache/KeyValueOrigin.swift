import TensorBasics

/// What two runs must have in common for equal tokens to have equal keys and values.
public struct KeyValueOrigin: Sendable, Hashable {
  /// Whose weights they were computed with.
  public let model: Model
  /// A number for everything else that decides the values: the graph, a selector of neurons, the arithmetic.
  public let graph: UInt64
  /// How elements are stored, in up to eight characters of ASCII: `f16`, `q8`, `q4`.
  public let type: String
  public let layerCount: Int
  public let keyValueHeadCount: Int
  public let headDim: Int
  /// Bytes of a page, one layer's part of a page group; what its checksum covers.
  public let pageByteCount: Int
  /// Bytes from a page to the next, a multiple of 4096.
  public let pageStride: Int
  /// Bytes of the states that layers have in place of keys and values, a multiple of 4096; 0 = no layer has one.
  public let stateByteCount: Int

  /// What identifies a model's weights.
  public enum Model: Sendable, Hashable, CustomStringConvertible {
    /// A checksum of all of them, whatever file they lie in.
    case content(UInt64)
    /// The unchanged file of a model whose checksums were not known.
    case file(UInt64)

    /// How a header states it: 1 or 2, and the number.
    var stated: (kind: UInt32, number: UInt64) {
      switch self {
      case .content(let number): (1, number)
      case .file(let number): (2, number)
      }
    }

    init?(statedKind kind: UInt32, number: UInt64) {
      switch kind {
      case 1: self = .content(number)
      case 2: self = .file(number)
      default: return nil
      }
    }

    public var description: String {
      switch self {
      case .content(let number): "model \(KeyValueDirectory.text(of: number))"
      case .file(let number): "file \(KeyValueDirectory.text(of: number))"
      }
    }
  }

  /// Positions of a page group.
  public static let pageGroupPositionCount = 128

  /// - Precondition: sizes are positive, and a header can hold them.
  public init(
    model: Model, graph: UInt64, type: String, layerCount: Int, keyValueHeadCount: Int,
    headDim: Int, pageByteCount: Int, pageStride: Int, stateByteCount: Int = 0
  ) {
    self.model = model
    self.graph = graph
    self.type = type
    self.layerCount = layerCount
    self.keyValueHeadCount = keyValueHeadCount
    self.headDim = headDim
    self.pageByteCount = pageByteCount
    self.pageStride = pageStride
    self.stateByteCount = stateByteCount
    precondition(isPlausible, "a header cannot hold this shape: \(self)")
  }

  /// What a header says, which may be anything; nil if no cache has such a shape.
  init?(
    stated model: Model, graph: UInt64, type: String, layerCount: Int, keyValueHeadCount: Int,
    headDim: Int, pageByteCount: Int, pageStride: Int, stateByteCount: Int
  ) {
    self.model = model
    self.graph = graph
    self.type = type
    self.layerCount = layerCount
    self.keyValueHeadCount = keyValueHeadCount
    self.headDim = headDim
    self.pageByteCount = pageByteCount
    self.pageStride = pageStride
    self.stateByteCount = stateByteCount
    guard isPlausible else { return nil }
  }

  /// The same keys and values under another name of their model.
  public func of(_ model: Model) -> KeyValueOrigin {
    KeyValueOrigin(
      model: model, graph: graph, type: type, layerCount: layerCount,
      keyValueHeadCount: keyValueHeadCount, headDim: headDim, pageByteCount: pageByteCount,
      pageStride: pageStride, stateByteCount: stateByteCount)
  }

  /// Bytes of a page group: the pages of all layers.
  public var pageGroupByteCount: Int { layerCount * pageStride }

  /// Bytes that a header holds for each page group: its tokens and the checksums of its pages.
  var tableByteCount: Int { 4 * Self.pageGroupPositionCount + 8 * layerCount }

  /// The name of the entry whose last complete page group, or where layers have states whose last token, ends `tokens`.
  func id(of tokens: ArraySlice<Int32>) -> UInt64 {
    var bytes: [UInt8] = []
    bytes.appendLittleEndian(model.stated.kind)
    bytes.appendLittleEndian(model.stated.number)
    bytes.appendLittleEndian(graph)
    bytes.append(contentsOf: type.utf8)
    bytes.append(0)
    for token in tokens { bytes.appendLittleEndian(token) }
    return bytes.withUnsafeBytes(Checksum.of)
  }

  /// Whether layers have states.
  var hasStates: Bool { stateByteCount > 0 }

  static let pageByteLimit = 1 << 32

  /// Sizes whose products cannot overflow.
  private var isPlausible: Bool {
    (1...1 << 12).contains(layerCount) && (1...1 << 16).contains(keyValueHeadCount)
      && (1...1 << 16).contains(headDim) && (1...Self.pageByteLimit).contains(pageStride)
      && pageStride % KeyValueEntryHeader.byteCount == 0
      && (1...pageStride).contains(pageByteCount)
      && (0...Self.pageByteLimit).contains(stateByteCount)
      && stateByteCount % KeyValueEntryHeader.byteCount == 0
      && (1...8).contains(type.utf8.count) && type.utf8.allSatisfy { (0x21...0x7E).contains($0) }
  }
}

extension [UInt8] {
  /// Appends an integer's bytes, least significant first.
  mutating func appendLittleEndian(_ value: some FixedWidthInteger) {
    Swift.withUnsafeBytes(of: value.littleEndian) { append(contentsOf: $0) }
  }
}
