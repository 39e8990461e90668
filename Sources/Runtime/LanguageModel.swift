public import BlockIO
public import ModelFormat
import TensorBasics
public import Tokenization
public import WeightLoader

/// An open model with its tokenizer; sessions run it.
///
/// ```swift
/// let model = try LanguageModel.open("model.bin")
/// let prompt = try model.tokenizer.encodePrompt(Array("Once upon a time".utf8))
/// let session = try Session(
///   model.source, model.configuration,
///   MemoryPlan.Request(
///     budgetByteCount: 2 << 30, contextLength: 512, promptLength: prompt.count, threadCount: 2))
/// let result = try TextGenerator(session: session, tokenizer: model.tokenizer)
///   .generate(GenerationOptions(prompt: prompt, maximumTokenCount: 100)) { _ in }
/// ```
public final class LanguageModel {
  public let source: ModelSource
  public let configuration: DecoderConfiguration
  public let tokenizer: Tokenizer

  /// Opens a GGUF file or flash image that holds a decoder and a vocabulary.
  ///
  /// - Parameters:
  ///   - mirrors: whole copies of it on other drives.
  ///   - queueDepth: most reads in flight.
  /// - Throws: ``RuntimeError``.
  public static func open(
    _ path: String, mirrors: [String] = [], backend: StorageBackend = .auto, queueDepth: Int = 64
  ) throws(RuntimeError) -> LanguageModel {
    let source: ModelSource
    do {
      source = try ModelSource.open(
        path, mirrors: mirrors, backend: backend, queueDepth: queueDepth)
    } catch { throw RuntimeError(error) }
    return try LanguageModel(source)
  }

  /// - Throws: ``RuntimeError/notRunnable(path:reason:)``, ``RuntimeError/tokenizer(_:)``.
  public init(_ source: ModelSource) throws(RuntimeError) {
    self.source = source
    guard let configuration = source.description.configuration else {
      throw .notRunnable(
        path: source.path, reason: "the file holds a vocabulary and no model to run")
    }
    guard let definition = source.description.tokenizer else {
      throw .notRunnable(path: source.path, reason: "the file holds no vocabulary")
    }
    self.configuration = configuration
    do { tokenizer = try Tokenizer(definition) } catch { throw .tokenizer(error) }
  }
}
