/// A family of decoder-only transformers: how its files' hyper-parameters become a
/// ``DecoderConfiguration``.
///
/// A further dense family is one more file here and one more entry in ``Architectures/all``.
protocol Architecture: Sendable {
  /// ggml's name, the value of `general.architecture`.
  static var name: String { get }

  /// Reads a GGUF file's hyper-parameters.
  static func configuration(
    gguf parameters: GGUFHyperparameters
  ) throws(FormatError) -> DecoderConfiguration
}

/// The families this project runs.
enum Architectures {
  static let all: [any Architecture.Type] = [Llama.self, Qwen2.self, Qwen3.self, Gemma3.self]

  /// The family called `name`.
  static func named(_ name: String, path: String?) throws(FormatError) -> any Architecture.Type {
    if let match = all.first(where: { $0.name == name }) { return match }
    let known = all.map { $0.name }.joined(separator: ", ")
    throw FormatError(
      .unsupported, path: path, "architecture \"\(name)\" is not supported; \(known) are")
  }
}
