public import KVCache
public import TensorBasics

/// What one context takes from a store of keys and values, and gives back to it.
///
/// Made before the context, whose pages come from its ``files`` and go to them; ``resume(_:)`` follows that,
/// ``store(_:of:)`` the answer. Nothing that goes wrong with the store ends a run: the archive's `warn` is told in one
/// line, and the run goes on without.
public final class KeyValuePersistence {
  private let archive: KeyValueArchive
  private var prefix: KeyValuePrefix
  /// The new entry; nil if none can be written, or it is complete.
  private var writer: KeyValueEntryWriter?
  /// Tokens after which states were kept last; nil = none were.
  private var keptEnd: Int?
  /// Where they are to be kept next.
  private var stop: Int?

  /// Looks for the beginning of `tokens` in the store.
  ///
  /// - Parameters:
  ///   - reuses: whether to take anything from the store.
  ///   - usesLogits: whether logits after the tokens are taken from it, and those after the prompt given to it.
  public init(
    _ archive: KeyValueArchive, tokens: [Int32], reuses: Bool = true, usesLogits: Bool = false
  ) {
    self.archive = archive
    prefix = reuses ? archive.prefix(of: tokens, usingLogits: usesLogits) : .none
    writer = archive.makeWriter(after: prefix, keepingLogits: usesLogits)
  }

  /// As ``init(_:tokens:reuses:usesLogits:)``, for a session.
  ///
  /// - Parameters:
  ///   - request: what the session will be planned from; tells it where keys and values come from and go.
  ///   - warn: is told what keeps the store from being used.
  /// - Throws: ``RuntimeError`` if the model cannot be read.
  public convenience init(
    _ directory: KeyValueDirectory, _ model: LanguageModel, prompt: [Int32],
    for request: inout MemoryPlan.Request, reuses: Bool = true,
    warn: @escaping (String) -> Void
  ) throws(RuntimeError) {
    let archive = try KeyValueArchive(directory, model, request, warn: warn)
    self.init(archive, tokens: prompt, reuses: reuses)
    request.callerByteCount += archive.learningByteCount
    request.keyValues.files = files
  }

  /// Where the context's pages come from, and go to.
  public var files: KeyValueStore.Files {
    KeyValueStore.Files(
      prefix: KeyValueStore.Prefix(
        parts: prefix.sources.map {
          KeyValueStore.Prefix.Part(
            path: $0.path, dataOffset: $0.dataOffset, firstPageGroup: 0,
            pageGroupCount: $0.pageGroupCount, checksums: $0.pageChecksums)
        }),
      own: ownFile)
  }

  private var ownFile: KeyValueStore.OwnFile? {
    writer.map { KeyValueStore.OwnFile(path: $0.path, dataOffset: $0.dataOffset) }
  }

  /// Gives a new session what the store has of its prompt beside complete pages.
  ///
  /// That is the part of the page group in which the prompt diverges from it, and states of layers. The session's own are kept as it
  /// reads.
  ///
  /// If the part of a page group is damaged, its tokens are computed like those that follow; if states are, all tokens.
  public func resume(_ session: Session) {
    resume(session.keyValues)
    session.take(self)
  }

  /// As ``resume(_:)``, with the keys and values alone.
  func resume(_ keyValues: KeyValueStore) {
    var isWhole = true
    if let tail = prefix.tail {
      isWhole = keyValues.resume(positionCount: tail.positionCount) {
        tail.read(layer: $0, into: $1)
      }
    }
    guard let states = prefix.states else { return }
    if isWhole, keyValues.restoreStates(states.read) { return }
    archive.warn(
      "\(archive.directory.remove(states)): damaged; deleted, and the prompt computed again")
    (prefix, keptEnd) = (.none, nil)
    keyValues.reset()
  }

  /// Tokens that need not be computed.
  var tokenCount: Int { prefix.tokenCount }

  /// Whether the store has the logits after the tokens.
  var hasLogits: Bool { prefix.hasLogits }

  /// Reads the logits after the tokens; false if the store has none, or others than were written, or not all that comes before
  /// them.
  func readLogits(
    of keyValues: KeyValueStore, into values: UnsafeMutableBufferPointer<Float>
  ) -> Bool {
    keyValues.positionCount == prefix.tokenCount && prefix.readLogits(into: values)
  }

  /// Keeps the logits after the prompt, with what is kept of it in the end.
  func keep(logits: UnsafeBufferPointer<Float>, after position: Int) {
    do { try writer?.keep(logits: logits, after: position) } catch {
      archive.warn("\(error); the logits after a prompt are not kept")
    }
  }

  // MARK: States of layers

  /// Of a prompt that is asked again, the part that may be read again.
  private static let rereadShare = 64

  /// Where the states of a prompt's layers are to be kept next, and a sweep is to end therefore; nil where nowhere.
  ///
  /// They are kept after ``KeyValueArchive/stateDistance`` tokens, after twice as many and so on, and in prompts as long as that where
  /// the last page group ends before they do, unless it is not far from there to the last ones: the same prompt can be gone on
  /// with from there.
  ///
  /// - Parameters:
  ///   - position: tokens that are read.
  ///   - promptEnd: those of the prompt.
  func nextStates(after position: Int, promptEnd: Int) -> Int? {
    stop = nil
    guard archive.shape.hasStates, writer != nil else { return nil }
    let (distance, length) = (archive.stateDistance, KeyValueOrigin.pageGroupPositionCount)
    var next = distance
    while next <= position { next *= 2 }
    let edge = (promptEnd - 1) / length * length
    if next >= edge {
      next = edge
      let fresh = edge - (keptEnd ?? prefix.tokenCount)
      guard edge > position, edge >= distance, fresh >= max(length, edge / Self.rereadShare) else {
        return nil
      }
    }
    stop = isWorthStates(next) ? next : nil
    return stop
  }

  /// Whether states after so many tokens, and those after the last, take no more than the keys and values up to there that the
  /// store gets.
  private func isWorthStates(_ position: Int) -> Bool {
    let kept = writer?.statesByteCount ?? 0
    let pageGroupCount = position / KeyValueOrigin.pageGroupPositionCount - prefix.pageGroupCount
    return kept + 2 * archive.shape.stateByteCount
      <= archive.stateShare * pageGroupCount * archive.shape.layerCount * archive.shape.pageStride
  }

  /// Keeps the states of a context whose prompt is read up to where it ends now, if they are wanted there, or all of it is read.
  func keepStates(of keyValues: KeyValueStore, promptEnd: Int) {
    let position = keyValues.positionCount
    guard position == stop || position == promptEnd, isWorthStates(position) else { return }
    writeStates(of: keyValues)
  }

  private func writeStates(of keyValues: KeyValueStore) {
    guard let writer, let states = keyValues.wholeStates else { return }
    do {
      try writer.keep(states: states, after: keyValues.positionCount)
      keyValues.noteKeptStates()
      keptEnd = keyValues.positionCount
    } catch { archive.warn("\(error); the states of a context are not kept") }
  }

  /// Has a context that goes on after ``store(_:of:)`` give to the store what follows.
  func follow(_ keyValues: KeyValueStore) {
    let known = min(
      prefix.pageGroupCount, keyValues.positionCount / KeyValueOrigin.pageGroupPositionCount)
    do { try keyValues.setOwnFile(ownFile, after: known) } catch {
      archive.warn("\(error); keys and values are not kept")
      writer = nil
    }
  }

  /// Deletes what the run could not read, which it computes again and keeps in its place.
  public func removePrefix(because error: KeyValueError) {
    for source in prefix.sources where source.path == error.unreadablePath {
      archive.warn(
        "\(archive.directory.remove(source)): damaged; deleted, and the prompt computed again")
    }
    (prefix, keptEnd) = (.none, nil)
  }

  /// Keeps what `session` computed of `tokens`, up to the first of them that a policy let attend over less
  /// than everything: what follows is no other run's.
  ///
  /// - Parameter tokens: the prompt and the answer.
  public func store(_ tokens: [Int32], of session: Session) { store(tokens, of: session.keyValues) }

  /// As ``store(_:of:)``, with the keys and values alone.
  func store(_ tokens: [Int32], of keyValues: KeyValueStore) {
    defer { writer = nil }
    keyValues.rejectUndecided()
    let length = KeyValueOrigin.pageGroupPositionCount
    // A context that was truncated has less of it.
    let prefix = prefix.beginning(pageGroupCount: keyValues.prefixPositionCount / length)
    let exact = keyValues.exactPositionCount
    let end = min(
      keyValues.finish(after: prefix.pageGroupCount), min(exact, keyValues.positionCount) / length)
    // A drive that failed was reported when it did.
    if let failure = keyValues.writeFailure { archive.directory.note(failure: failure) }
    guard let writer, keyValues.writeFailure == nil, end > prefix.pageGroupCount,
      archive.checkModel()
    else { return }
    let checksums = keyValues.pageChecksums(ofPageGroups: prefix.pageGroupCount..<end)
    // After a page that was not written, the next page group does not belong to the entry.
    let isNext = keyValues.positionCount / length == end
    let rest = min(keyValues.partialPositionCount, exact - end * length)
    let partial =
      isNext && rest > 0
      ? KeyValueEntryWriter.PartialPageGroup(
        positionCount: rest, pageByteCount: archive.shape.openPageByteCount,
        page: keyValues.partialPage) : nil
    let storedEnd = end * length + (partial?.positionCount ?? 0)
    if keyValues.positionCount == storedEnd,
      keptEnd != storedEnd || keyValues.keptStates.last != storedEnd
    {
      writeStates(of: keyValues)
    }
    writer.forgetStates { !keyValues.keptStates.contains($0) }
    do {
      let outcome = try writer.commit(
        after: prefix, tokens: tokens, pageChecksums: checksums, partial: partial,
        text: archive.opening(of: tokens))
      if outcome == .tooLarge { archive.warnOfLimit() }
    } catch { archive.warn("\(error); keys and values are not kept") }
  }

  /// As ``KeyValueArchive/learnModel(cancellation:)``.
  public func learnModel(cancellation: CancellationFlag) {
    archive.learnModel(cancellation: cancellation)
  }
}
