public import BlockIO
public import ModelFormat
import Synchronization
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
  /// The file's chat templates that were asked for, by their text.
  let templates = Mutex<[String: ChatTemplate]>([:])

  /// Opens a GGUF file or flash image that holds a decoder and a vocabulary.
  ///
  /// - Parameters:
  ///   - mirrors: whole copies of it on other drives.
  ///   - queueDepth: most reads in flight.
  ///   - needsVocabulary: whether a model without a vocabulary that can be used is refused; otherwise its
  ///     tokens stand for nothing, and prompts are ids.
  /// - Throws: ``RuntimeError``.
  public static func open(
    _ path: String, mirrors: [String] = [], backend: StorageBackend = .auto, queueDepth: Int = 64,
    needsVocabulary: Bool = true
  ) throws(RuntimeError) -> LanguageModel {
    let source: ModelSource
    do {
      source = try ModelSource.open(
        path, mirrors: mirrors, backend: backend, queueDepth: queueDepth)
    } catch { throw RuntimeError(error) }
    return try LanguageModel(source, needsVocabulary: needsVocabulary)
  }

  /// - Throws: ``RuntimeError/notRunnable(path:reason:)``, ``RuntimeError/tokenizer(_:)``.
  public init(_ source: ModelSource, needsVocabulary: Bool = true) throws(RuntimeError) {
    self.source = source
    try source.description.expectRunnable(source.path)
    guard let configuration = source.description.configuration else {
      throw .notRunnable(
        path: source.path, reason: "the file holds a vocabulary and no model to run")
    }
    self.configuration = configuration
    var own: Tokenizer?
    do throws(TokenizerError) { own = try Tokenizer(of: source.description) } catch {
      if needsVocabulary { throw RuntimeError(error, in: source.path) }
    }
    if own == nil, needsVocabulary {
      throw .notRunnable(path: source.path, reason: source.description.vocabularyProblem)
    }
    tokenizer = own ?? Tokenizer(idsBelow: configuration.vocabularyCount)
  }

  private init(
    _ source: ModelSource, _ configuration: DecoderConfiguration, _ tokenizer: Tokenizer
  ) {
    (self.source, self.configuration, self.tokenizer) = (source, configuration, tokenizer)
  }

  /// Its first layer that predicts further tokens, as a model that reads through a device of its own.
  ///
  /// - Throws: ``RuntimeError/notRunnable(path:reason:)`` where there is none, or it cannot draft.
  func openPredictor(backend: StorageBackend) throws(RuntimeError) -> LanguageModel {
    func refuse(_ reason: String) -> RuntimeError {
      .notRunnable(path: source.path, reason: reason)
    }
    guard let layers = source.description.predictionLayers else {
      throw refuse(
        "no layer in it predicts further tokens; GGUF files keep such layers, flash images and folders none that drafts"
      )
    }
    if let problem = layers.problem { throw refuse(problem) }
    let opened: ModelSource
    do { opened = try ModelSource.open(source.path, backend: backend) } catch {
      throw RuntimeError(error)
    }
    guard let predictor = opened.predictor, let own = predictor.description.configuration else {
      throw refuse("the file has changed since it was opened")
    }
    try predictor.description.expectRunnable(source.path)
    return LanguageModel(predictor, own, tokenizer)
  }
}

extension ModelDescription {
  /// Throws if weights lie in a way that no product takes.
  func expectRunnable(_ path: String) throws(RuntimeError) {
    if let needsConversion { throw .notRunnable(path: path, reason: needsConversion) }
  }
}
