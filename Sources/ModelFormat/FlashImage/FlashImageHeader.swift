import FoundationEssentials
import TensorBasics

/// The image's JSON header: property names are the keys of `docs/format.md`, section 3.
struct FlashImageHeader: Codable {
  var dataOffset: Int
  var name: String?
  var chatTemplate: String?
  var otherTemplates: [String: String]?
  var pooling: String?
  var configuration: DecoderConfiguration?
  var tokenizer: Tokenizer?
  var tensors: [Tensor]
  var neurons: Neurons?
  var sourceIdentity: HexChecksum?
  var extents: [Extent]

  struct Tensor: Codable {
    var name: String
    var type: String
    var columnCount: Int
    var rowCount: Int
    var layout: RowLayout
    var offset: Int
    var byteCount: Int
    var stack: ExpertStack?
  }

  struct Extent: Codable {
    var offset: Int
    var byteCount: Int
    var checksum: HexChecksum
  }

  struct Neurons: Codable {
    var layers: [Layer]
    var predictor: NeuronPredictor?
    var thresholds: NeuronThresholds?

    struct Layer: Codable {
      var neuronsPerBundle: Int
      var bundleCount: Int
      var offset: Int
      var byteStride: Int
      var parts: [Part]
      var checksumOffset: Int
    }

    struct Part: Codable {
      var role: NeuronBundles.Role
      var type: String
      var byteCount: Int
    }
  }

  struct Tokenizer: Codable {
    var model: TokenizerDefinition.Model
    var preTokenizer: String?
    var pipeline: TokenizerPipeline?
    var stopTokens: [Int]?
    var bosToken: Int?
    var eosToken: Int?
    var eotToken: Int?
    var unknownToken: Int?
    var addsBOS: Bool?
    var addsEOS: Bool?
    var addsSpacePrefix: Bool?
    var removesExtraWhitespace: Bool?
    var tokenCount: Int
    var tokenByteCount: Int
    var mergeCount: Int
    var mergeByteCount: Int
    var hasScores: Bool
    var hasKinds: Bool
    var hasFlags: Bool?
    var offset: Int
    var byteCount: Int
    var checksum: HexChecksum
  }

  /// The header's bytes: keys sorted, so that equal models make equal files.
  func encode() throws(FormatError) -> [UInt8] {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
    do {
      return [UInt8](try encoder.encode(self))
    } catch {
      throw FormatError(.malformed, "the header cannot be encoded: \(error)")
    }
  }

  /// - Parameter offset: Where the header lies in the file, for errors.
  init(
    _ bytes: UnsafeRawBufferPointer, at offset: Int, path: String
  ) throws(FormatError) {
    do {
      self = try JSONDecoder().decode(Self.self, from: Data(bytes))
    } catch {
      throw FormatError(
        .malformed, at: offset, path: path, "the header is not valid: \(Self.explain(error))")
    }
  }

  init(
    dataOffset: Int, description: ModelDescription, tokenizer: Tokenizer?
  ) {
    self.dataOffset = dataOffset
    name = description.name
    chatTemplate = description.chatTemplate
    otherTemplates = description.otherTemplates.isEmpty ? nil : description.otherTemplates
    pooling = description.pooling
    configuration = description.configuration
    self.tokenizer = tokenizer
    tensors = description.tensors.map { tensor in
      Tensor(
        name: tensor.name, type: tensor.type.name, columnCount: tensor.columnCount,
        rowCount: tensor.rowCount, layout: tensor.layout, offset: tensor.offset,
        byteCount: tensor.byteCount, stack: tensor.stack)
    }
    neurons = description.neurons.map(Neurons.init)
    sourceIdentity = description.sourceIdentity.map { HexChecksum($0.number) }
    extents = description.extents.map { extent in
      Extent(
        offset: extent.offset, byteCount: extent.byteCount,
        checksum: HexChecksum(extent.checksum))
    }
  }

  private static func explain(_ error: any Error) -> String {
    let context: DecodingError.Context
    switch error {
    case DecodingError.typeMismatch(_, let found), DecodingError.valueNotFound(_, let found),
      DecodingError.keyNotFound(_, let found), DecodingError.dataCorrupted(let found):
      context = found
    default: return "\(error)"
    }
    let place = context.codingPath.map(\.stringValue).joined(separator: ".")
    return place.isEmpty ? context.debugDescription : "\(place): \(context.debugDescription)"
  }
}

extension FlashImageHeader.Neurons {
  init(_ layout: NeuronLayout) {
    layers = layout.layers.map { layer in
      Layer(
        neuronsPerBundle: layer.neuronsPerBundle, bundleCount: layer.bundleCount,
        offset: layer.offset, byteStride: layer.byteStride,
        parts: layer.parts.map {
          Part(role: $0.role, type: $0.type.name, byteCount: $0.byteCount)
        },
        checksumOffset: layer.checksumOffset)
    }
    predictor = layout.predictor
    thresholds = layout.thresholds
  }

  /// What the header says, not yet validated.
  func layout(path: String) throws(FormatError) -> NeuronLayout {
    var bundles: [NeuronBundles] = []
    for layer in layers {
      var parts: [NeuronBundles.Part] = []
      for part in layer.parts {
        guard let type = ElementType(name: part.type) else {
          throw FormatError(
            .unsupported, path: path,
            "bundles of neurons have type \(part.type), which is not supported")
        }
        parts.append(
          NeuronBundles.Part(role: part.role, type: type, byteCount: part.byteCount))
      }
      bundles.append(
        NeuronBundles(
          neuronsPerBundle: layer.neuronsPerBundle, bundleCount: layer.bundleCount,
          offset: layer.offset, byteStride: layer.byteStride, parts: parts,
          checksumOffset: layer.checksumOffset))
    }
    return NeuronLayout(layers: bundles, predictor: predictor, thresholds: thresholds)
  }
}

/// A checksum as JSON has it: sixteen hexadecimal digits, because numbers lose bits over 2^53 in many
/// readers, and so that a header's length does not depend on its checksums.
struct HexChecksum: Codable {
  let value: UInt64

  init(_ value: UInt64) { self.value = value }

  init(from decoder: any Decoder) throws {
    let container = try decoder.singleValueContainer()
    let text = try container.decode(String.self)
    guard text.utf8.count == 16, let value = UInt64(text, radix: 16) else {
      throw DecodingError.dataCorruptedError(
        in: container, debugDescription: "checksums and identities are sixteen hexadecimal digits")
    }
    self.value = value
  }

  func encode(to encoder: any Encoder) throws {
    var container = encoder.singleValueContainer()
    try container.encode(ModelIdentity.text(of: value))
  }
}
