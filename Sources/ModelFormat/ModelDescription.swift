public import TensorBasics

/// Everything a model file says about its model, whatever the file's format.
///
/// Readers of GGUF files, Hugging Face folders and flash images produce it; everything after them
/// works on it alone.
public struct ModelDescription: Sendable {
  /// Shape and arithmetic of the decoder; nil in a file that holds only a vocabulary.
  public var configuration: DecoderConfiguration?
  /// Vocabulary and merge rules; nil if the file has none.
  public var tokenizer: TokenizerDefinition?
  /// Why ``tokenizer`` is nil although the file has one: it is not of a supported kind.
  public var tokenizerProblem: FormatError?
  /// What keeps the model from being run, of a description that was made to show it; otherwise empty, as
  /// reading ends with the first problem.
  public var problems: [FormatError] = []
  /// The chat template's source (Jinja), where the file has one that is not blank.
  public var chatTemplate: String?
  /// Further templates by name; `tool_use` is for conversations with tools.
  public var otherTemplates: [String: String] = [:]
  /// Which hidden states a text's vector is made of, by its name in llama.cpp: `mean`, `last`, `cls` or `rank`; nil where no
  /// file says it.
  public var pooling: String?
  /// The model's own name, for people.
  public var name: String?
  /// The files that tensors lie in; ``TensorRecord/fileIndex`` points here.
  public var files: [String]
  /// Tensors under their GGUF names (`blk.0.attn_q.weight`), in the order of the file.
  public var tensors: [TensorRecord]
  /// By name, the tensors that are not used as they are stored.
  public var derivations: [String: TensorDerivation] = [:]
  /// Checksums over the data, in ascending file offsets; empty if the format has none.
  public var extents: [ExtentRecord]
  /// FFNs in bundles of neurons; nil if gate, up and down are tensors.
  public var neurons: NeuronLayout?
  /// Of an image, the identity of the model that it was converted from; nil if it is not known.
  public var sourceIdentity: ModelIdentity?
  /// Layers that predict further tokens and are left out; nil = there are none.
  public var predictionLayers: PredictionLayers?
  /// What people should know of how the file is read; mostly nothing.
  public var notes: [String] = []

  public init(
    configuration: DecoderConfiguration? = nil, tokenizer: TokenizerDefinition? = nil,
    chatTemplate: String? = nil, name: String? = nil, files: [String] = [],
    tensors: [TensorRecord] = [], extents: [ExtentRecord] = []
  ) {
    self.configuration = configuration
    self.tokenizer = tokenizer
    self.chatTemplate = Self.unlessBlank(chatTemplate)
    self.name = name
    self.files = files
    self.tensors = tensors
    self.extents = extents
  }

  /// A template's text; nil where it is nothing but white space, as of files whose template was taken out.
  static func unlessBlank(_ template: String?) -> String? {
    template.flatMap { $0.allSatisfy(\.isWhitespace) ? nil : $0 }
  }

  /// Why there is no vocabulary, in a sentence's end: what is wrong with the one that the model has, or that it has none.
  public var vocabularyProblem: String {
    tokenizerProblem.map { "its vocabulary cannot be used: \($0)" } ?? "it holds no vocabulary"
  }

  /// The template for a conversation, with or without tools.
  public func chatTemplate(hasTools: Bool) -> String? {
    hasTools ? otherTemplates["tool_use"] ?? chatTemplate : chatTemplate
  }

  /// What the files hold: ``tensors``, each part of its own where they are scattered, without those that no
  /// file holds.
  public var storedTensors: [TensorRecord] {
    guard !derivations.isEmpty || tensors.contains(where: isScattered) else { return tensors }
    return tensors.flatMap { tensor -> [TensorRecord] in
      switch derivations[tensor.name] {
      case .values: return []
      // The bytes are another matrix's too, which comes first.
      case .packed(let matrix) where matrix.rowStep > 1 && matrix.firstRow > 0: return []
      case .transposed(let firstColumn, _, _) where firstColumn > 0: return []
      case .everyOther(let first) where first > 0: return []
      case .packed(let matrix): return stored(tensor, matrix)
      case .transposed, .everyOther, .plusOne, .negatedPower, nil: break
      }
      guard let stack = tensor.stack, isScattered(tensor) else { return [tensor] }
      return (0..<stack.count).map(tensor.part)
    }
  }

  /// The parts of a packed matrix, and their scales.
  private func stored(_ tensor: TensorRecord, _ matrix: PackedMatrix) -> [TensorRecord] {
    let scales = matrix.scales
    return scales.places.enumerated().flatMap { number, place in
      [
        tensor.part(number),
        TensorRecord(
          name: tensor.name + "_scale", type: .f32, columnCount: scales.columnCount,
          rowCount: scales.rowCount, layout: .rowMajor, fileIndex: place.fileIndex,
          offset: place.offset, byteCount: scales.byteCount),
      ]
    }
  }

  /// Adds a vector that no file holds; its record only says its shape.
  mutating func append(_ name: String, values: [Float]) {
    tensors.append(TensorRecord(name, values: values))
    derivations[name] = .values(values)
  }

  /// Whether a tensor's parts lie apart, each for itself: bundles of an image are extents.
  private func isScattered(_ tensor: TensorRecord) -> Bool {
    tensor.stack?.places != nil || (tensor.isBundled && extents.isEmpty)
  }
}

/// One tensor: a matrix of `rowCount` rows of `columnCount` elements (a vector has one row).
public struct TensorRecord: Sendable, Codable, Equatable {
  /// GGUF name.
  public var name: String
  public var type: ElementType
  /// Elements of a row, the dimension that products run along.
  public var columnCount: Int
  /// Rows; for tensors of more than two dimensions the product of the outer ones.
  public var rowCount: Int
  public var layout: RowLayout
  /// Index into ``ModelDescription/files``.
  public var fileIndex: Int
  /// Byte offset of the tensor in that file.
  public var offset: Int
  /// Bytes in the file, with the padding of the last row group when interleaved.
  ///
  /// Of a stacked tensor the sum of its parts, which need not lie together.
  public var byteCount: Int
  /// How one matrix an expert is stacked in the tensor; nil for a plain tensor.
  public var stack: ExpertStack?

  public init(
    name: String, type: ElementType, columnCount: Int, rowCount: Int, layout: RowLayout,
    fileIndex: Int, offset: Int, byteCount: Int, stack: ExpertStack? = nil
  ) {
    self.name = name
    self.type = type
    self.columnCount = columnCount
    self.rowCount = rowCount
    self.layout = layout
    self.fileIndex = fileIndex
    self.offset = offset
    self.byteCount = byteCount
    self.stack = stack
  }
}

extension TensorRecord {
  /// The layer that it belongs to, by its name; nil = none, as the embedding table.
  public var layer: Int? {
    let prefix = "blk."
    guard name.hasPrefix(prefix) else { return nil }
    return Int(name.dropFirst(prefix.count).prefix { $0 != "." })
  }

  /// The shape of a vector that no file holds.
  init(_ name: String, values: [Float]) {
    self.init(
      name: name, type: .f32, columnCount: values.count, rowCount: 1, layout: .rowMajor,
      fileIndex: 0, offset: 0, byteCount: 4 * values.count)
  }
}

/// A contiguous, 4 KiB-aligned byte range of a flash image and its checksum.
public struct ExtentRecord: Sendable, Codable, Equatable {
  /// Byte offset in the file, a multiple of 4096.
  public var offset: Int
  /// Bytes, a multiple of 4096.
  public var byteCount: Int
  /// XXH3-64 over those bytes.
  public var checksum: UInt64

  public init(offset: Int, byteCount: Int, checksum: UInt64) {
    self.offset = offset
    self.byteCount = byteCount
    self.checksum = checksum
  }
}
