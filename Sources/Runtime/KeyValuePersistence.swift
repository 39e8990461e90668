import BlockIO
public import KVCache
import Kernels
import ModelFormat
public import TensorBasics
import Tokenization
import WeightLoader

/// What a run takes from a store of keys and values, and gives back to it.
///
/// Opened before the session, whose request it fills in; ``resume(_:)`` follows that, ``store(_:of:)`` the
/// answer. Nothing that goes wrong with the store ends a run: `warn` is told in one line, and the run goes
/// on without.
public final class KeyValuePersistence {
  private let directory: KeyValueDirectory
  private let source: ModelSource
  /// What stood for the model before its weights were read; nil if nothing can.
  private let references: ModelReferences?
  private let tokenizer: Tokenizer
  private let warn: (String) -> Void
  private var prefix: KeyValuePrefix
  /// The new entry; nil if none can be written.
  private var writer: KeyValueEntryWriter?

  /// Looks for the beginning of `prompt` in the store.
  ///
  /// - Parameters:
  ///   - request: what the session will be planned from; tells it where keys and values come from and go.
  ///   - reuses: whether to take anything from the store.
  ///   - warn: is told what keeps the store from being used.
  /// - Throws: ``RuntimeError`` if the model cannot be read.
  public init(
    _ directory: KeyValueDirectory, _ model: LanguageModel, prompt: [Int32],
    for request: inout MemoryPlan.Request, reuses: Bool = true,
    warn: @escaping (String) -> Void
  ) throws(RuntimeError) {
    let shape = KeyValueShape(
      model.configuration, contextLength: request.contextLength, type: request.keyValues.type)
    let selector = try NeuronSelector.resolve(
      request.neurons.selector, for: model.source, model.configuration)
    self.directory = directory
    self.warn = warn
    source = model.source
    tokenizer = model.tokenizer
    do { references = try source.references() } catch { throw RuntimeError(error) }
    guard let references else {
      warn(
        "\(source.path): neither checksums nor change times identify this model; its keys and "
          + "values are not kept")
      prefix = .none
      return
    }
    let origin = KeyValueOrigin(
      model: KeyValueOrigin.Model(references.best),
      graph: source.keyValueGraph(selector, contextLength: request.contextLength),
      type: shape.type.rawValue, layerCount: shape.layerCount,
      keyValueHeadCount: shape.keyValueHeadCount, headDim: shape.headDim,
      pageByteCount: shape.pageByteCount, pageStride: shape.pageStride)
    prefix =
      reuses
      ? directory.prefix(
        of: prompt, origin: origin, models: references.all.map(KeyValueOrigin.Model.init),
        dividingPageGroups: !shape.quantises) : .none
    if case .files = references.best { request.callerByteCount += source.learningByteCount }
    do {
      writer = try KeyValueEntryWriter(
        in: directory, origin: origin, pageGroupCapacity: shape.pageGroupCount,
        modelName: model.source.description.name ?? "")
    } catch {
      warn("\(error); this run's keys and values are not kept")
      writer = nil
    }
    request.keyValues.ownFile = writer.map {
      KeyValueOptions.OwnFile(path: $0.path, dataOffset: $0.dataOffset)
    }
    request.keyValues.prefix = KeyValueStore.Prefix(
      parts: prefix.sources.map {
        KeyValueStore.Prefix.Part(
          path: $0.path, dataOffset: $0.dataOffset, firstPageGroup: 0,
          pageGroupCount: $0.pageGroupCount,
          checksums: $0.pageChecksums)
      })
  }

  /// Gives a new session the stored part of the page group in which the prompt diverges from the store.
  ///
  /// If that is damaged, its tokens are computed like those that follow.
  public func resume(_ session: Session) {
    guard let tail = prefix.tail else { return }
    session.resume(positionCount: tail.positionCount) { tail.read(layer: $0, into: $1) }
  }

  /// Deletes what the run could not read, which it computes again and keeps in its place.
  public func removePrefix(because error: KeyValueError) {
    for source in prefix.sources where source.path == error.unreadablePath {
      warn("\(directory.remove(source)): damaged; deleted, and the prompt computed again")
    }
    prefix = .none
  }

  /// Keeps what `session` computed of `tokens`, up to the first of them that a policy let attend over less
  /// than everything: what follows is no other run's.
  ///
  /// - Parameter tokens: the prompt and the answer.
  public func store(_ tokens: [Int32], of session: Session) {
    defer { writer = nil }
    let keyValues = session.keyValues
    // A context that was truncated has less of it.
    let prefix = prefix.beginning(
      pageGroupCount: keyValues.prefixPositionCount / KeyValueOrigin.pageGroupPositionCount)
    let exact = keyValues.exactPositionCount
    let end = min(keyValues.finish(), exact / KeyValueOrigin.pageGroupPositionCount)
    // A drive that failed was reported when it did.
    guard let writer, keyValues.writeFailure == nil, end > prefix.pageGroupCount else { return }
    guard let references, source.isUnchanged(since: references) else {
      warn("\(source.path) was changed during the run; this run's keys and values are not kept")
      return
    }
    let checksums = keyValues.pageChecksums(ofPageGroups: prefix.pageGroupCount..<end)
    // After a page that was not written, the next page group does not belong to the entry.
    let isNext = session.position / KeyValueOrigin.pageGroupPositionCount == end
    let rest = min(
      keyValues.partialPositionCount, exact - end * KeyValueOrigin.pageGroupPositionCount)
    let partial =
      isNext && rest > 0
      ? KeyValueEntryWriter.PartialPageGroup(positionCount: rest, page: keyValues.partialPage) : nil
    do {
      let outcome = try writer.commit(
        after: prefix, tokens: tokens, pageChecksums: checksums, partial: partial,
        text: opening(of: tokens))
      if outcome == .tooLarge {
        warn("\(directory.path): this run's keys and values exceed the store's limit; not kept")
      }
    } catch { warn("\(error); this run's keys and values are not kept") }
  }

  /// Spends a moment at the end of a run on learning the model's checksums, by which a copy of it, or the file
  /// under another name, can use what is stored.
  public func learnModel(cancellation: CancellationFlag) {
    guard case .files = references?.best else { return }
    source.learnIdentity(within: Self.learningMilliseconds, cancellation: cancellation)
  }

  /// Too short to be noticed after an answer; some 500 MB from a usual drive.
  private static let learningMilliseconds = 200

  /// The beginning of the text, for a listing.
  private func opening(of tokens: [Int32]) -> [UInt8] {
    var text: [UInt8] = []
    var detokenizer = StreamingDetokenizer(tokenizer)
    for token in tokens.prefix(Self.openingTokenCount) { detokenizer.append(token, to: &text) }
    return text
  }

  private static let openingTokenCount = 64
}
