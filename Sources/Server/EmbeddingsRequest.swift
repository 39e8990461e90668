import ModelFormat
import Runtime

/// The body of `/v1/embeddings`.
struct EmbeddingsRequest {
  let model: String?
  let inputs: [CompletionRequest.Prompt]
  let pooling: Pooling
  /// Whether vectors are told as their bytes and not as numbers.
  let isBase64: Bool

  static let names = FieldNames(
    "EmbeddingsRequest", taken: ["input", "model", "encoding_format", "dimensions", "pooling"],
    neutral: ["user": .anyText])

  /// - Parameters:
  ///   - usual: how hidden states are pooled where the request does not say it.
  ///   - size: numbers of a vector.
  init(_ body: [UInt8], usual: Pooling, size: Int) throws {
    let fields = try RequestFields(body, Self.names)
    model = try fields.text("model")
    inputs = try CompletionRequest.prompts(fields.required("input"), "input")
    isBase64 =
      try fields.text("encoding_format", of: ["float", "base64"]) ?? "float" == "base64"
    let word = try fields.text("pooling", of: Pooling.allCases.map(\.rawValue))
    pooling = word.flatMap(Pooling.init(rawValue:)) ?? usual
    if let asked = try fields.integer("dimensions", in: 1...Int.max), asked != size {
      throw APIError.bad(
        "dimensions",
        "'dimensions' must be \(size), the model's own: a part of a vector means something only of models trained for it",
        code: "unsupported_parameter")
    }
  }
}
