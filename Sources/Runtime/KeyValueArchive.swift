import BlockIO
public import KVCache
import Kernels
import ModelFormat
public import TensorBasics
import Tokenization
import WeightLoader

/// A store of keys and values, as one model and one form of its context use it.
///
/// One thread uses it.
public final class KeyValueArchive {
  let directory: KeyValueDirectory
  let tokenizer: Tokenizer
  /// Told of what keeps the store from being used, in one line.
  let warn: (String) -> Void
  private let source: ModelSource
  private let modelName: String
  let shape: KeyValueShape
  private let vocabularyCount: Int
  /// Tokens that are worth a sweep more, so that the states after them are kept.
  let stateDistance: Int
  /// Bytes that states may take for each byte of keys and values that is kept with them, those at a turn's end apart.
  let stateShare: Int
  /// What stood for the model before its weights were read; nil if nothing can.
  private let references: ModelReferences?
  private var isOverBudget = false
  private var hasWarnedOfLimit = false
  /// What entries must come from; nil where nothing identifies the model.
  private let origin: KeyValueOrigin?

  /// - Parameters:
  ///   - request: what contexts are planned from.
  ///   - warn: is told what keeps the store from being used.
  /// - Throws: ``RuntimeError`` if the model cannot be read.
  public init(
    _ directory: KeyValueDirectory, _ model: LanguageModel, _ request: MemoryPlan.Request,
    warn: @escaping (String) -> Void
  ) throws(RuntimeError) {
    self.directory = directory
    self.warn = warn
    source = model.source
    tokenizer = model.tokenizer
    modelName = model.source.description.name ?? ""
    vocabularyCount = model.configuration.vocabularyCount
    (stateDistance, stateShare) = (request.stateDistance, request.stateShare)
    shape = KeyValueShape(
      model.configuration, contextLength: request.contextLength, type: request.keyValues.type)
    let selector = try NeuronSelector.resolve(
      request.neurons.selector, for: model.source, model.configuration)
    do { references = try source.references() } catch { throw RuntimeError(error) }
    // Entries are made of page groups of attention's keys and values.
    origin = (shape.layerCount > 0 ? references : nil).map { [shape, source] in
      KeyValueOrigin(
        model: KeyValueOrigin.Model($0.best),
        graph: source.keyValueGraph(selector, contextLength: request.contextLength),
        type: shape.type.rawValue, layerCount: shape.layerCount,
        keyValueHeadCount: shape.keyValueHeadCount, headDim: shape.headDim,
        pageByteCount: shape.pageByteCount, pageStride: shape.pageStride,
        stateByteCount: shape.stateByteCount)
    }
    if shape.layerCount == 0 {
      warn("\(source.path): no layer attends, and a store keeps nothing of such a model")
    } else if origin == nil {
      warn(
        "\(source.path): neither checksums nor change times identify this model; its keys and "
          + "values are not kept")
    }
    if isTooSmall {
      warn(
        "\(directory.path): \(ByteCount(directory.byteLimit)) are too few for a context's first "
          + "\(KeyValueOrigin.pageGroupPositionCount) tokens; keys and values are not kept (--kv-store-limit)"
      )
    }
  }

  /// Whether no entry ever has room in the store.
  private var isTooSmall: Bool { origin.map { directory.isTooSmall(for: $0) } ?? false }

  /// Memory that ``learnModel(cancellation:)`` takes.
  public var learningByteCount: Int {
    if case .files? = references?.best { source.learningByteCount } else { 0 }
  }

  /// The longest beginning of `tokens` that the store has.
  ///
  /// - Parameter usingLogits: whether all of them may be taken where there are logits after the last.
  func prefix(of tokens: [Int32], usingLogits: Bool) -> KeyValuePrefix {
    guard let origin, let references else { return .none }
    return directory.prefix(
      of: tokens, origin: origin, models: references.all.map(KeyValueOrigin.Model.init),
      dividingPageGroups: !shape.quantises, usingLogits: usingLogits)
  }

  /// Of the entries that can be used: the same keys and values under all names of the model.
  var origins: Set<KeyValueOrigin> {
    guard let origin, let references else { return [] }
    return Set(references.all.map { origin.of(KeyValueOrigin.Model($0)) } + [origin])
  }

  /// A new entry; nil if none can be written.
  ///
  /// - Parameters:
  ///   - prefix: what it continues.
  ///   - keepingLogits: whether those after a prompt may be kept with it.
  func makeWriter(after prefix: KeyValuePrefix, keepingLogits: Bool) -> KeyValueEntryWriter? {
    guard let origin, !isTooSmall, mayWrite(), directory.hasSpace() else { return nil }
    guard !directory.isTooSmall(for: origin, after: prefix) else {
      warnOfLimit()
      return nil
    }
    do {
      return try KeyValueEntryWriter(
        in: directory, origin: origin, pageGroupCapacity: shape.pageGroupCount,
        logitCount: keepingLogits ? vocabularyCount : 0, modelName: modelName)
    } catch {
      warn("\(error); keys and values are not kept")
      return nil
    }
  }

  /// Says once that a context is larger than the store may be.
  func warnOfLimit() {
    if !hasWarnedOfLimit {
      warn(
        "\(directory.path): a context's keys and values exceed the store's limit of \(ByteCount(directory.byteLimit)); what "
          + "goes beyond is not kept (--kv-store-limit)")
    }
    hasWarnedOfLimit = true
  }

  /// Whether the store takes more today; says once when it does not.
  private func mayWrite() -> Bool {
    let mayWrite = directory.mayWrite
    if !mayWrite, !isOverBudget {
      warn(
        directory.budgetProblem.map { "\($0); keys and values are not kept" }
          ?? "\(directory.path): \(ByteCount(directory.writtenTodayByteCount)) were written today; keys and values are "
          + "kept again from midnight (UTC) on")
    }
    isOverBudget = !mayWrite
    return mayWrite
  }

  /// Whether the model is still what it was before its weights were read; says so where it is not.
  func checkModel() -> Bool {
    guard let references, source.isUnchanged(since: references) else {
      warn("\(source.path) was changed meanwhile; keys and values are not kept")
      return false
    }
    return true
  }

  /// Spends a moment at the end of a run on learning the model's checksums, by which a copy of it, or the file
  /// under another name, can use what is stored.
  public func learnModel(cancellation: CancellationFlag) {
    guard case .files? = references?.best else { return }
    source.learnIdentity(within: Self.learningMilliseconds, cancellation: cancellation)
  }

  /// Too short to be noticed after an answer; some 500 MB from a usual drive.
  private static let learningMilliseconds = 200

  /// The beginning of the text, for a listing.
  func opening(of tokens: [Int32]) -> [UInt8] {
    var text: [UInt8] = []
    var detokenizer = StreamingDetokenizer(tokenizer)
    for token in tokens.prefix(Self.openingTokenCount) { detokenizer.append(token, to: &text) }
    return text
  }

  private static let openingTokenCount = 64
}
