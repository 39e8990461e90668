public import BlockIO
import Calibration
import ModelFormat
public import Runtime
public import WeightLoader

extension ResourceOptions {
  /// Opens a model, with its mirrors, as many reads in flight as the drive's calibration says, or more.
  ///
  /// - Parameter needsVocabulary: whether one without a vocabulary that can be used is refused.
  public func open(_ path: String, needsVocabulary: Bool = true) throws -> LanguageModel {
    try checkLimits()
    let profile = CalibrationCache.standard.driveProfile(forFileAt: path, backend: io)
    let model = try Progress.showing("opening \(Progress.name(path))") { _ in
      try LanguageModel.open(
        path, mirrors: mirror, backend: io,
        queueDepth: max(Self.leastQueueDepth, (profile?.queueDepth ?? 0) + Self.rowReadCount),
        needsVocabulary: needsVocabulary)
    }
    let trained = model.configuration.contextLength
    if let context, context > trained {
      Terminal.warn(
        "--context \(context) is more than the \(trained) tokens that the model was trained for")
    }
    return model
  }

  /// Reads that finish while the processors compute are replaced only afterwards; a deeper queue than
  /// the drive needs bridges that.
  private static let leastQueueDepth = 64

  /// Reads that a stream keeps free for embedding rows.
  private static let rowReadCount = 16

  /// What memory is planned from, as the options say.
  ///
  /// - Parameter callerByteCount: what is needed beside the model.
  public func memoryRequest(
    _ model: LanguageModel, _ keyValues: KeyValueArguments, _ neurons: NeuronArguments,
    _ verification: VerifyArguments, contextLength: Int, promptLength: Int, callerByteCount: Int
  ) -> MemoryPlan.Request {
    var request = MemoryPlan.Request(
      budgetByteCount: budget, contextLength: contextLength, promptLength: promptLength,
      threadCount: threadCount, callerByteCount: callerByteCount,
      preferredReadByteCount: preferredReadByteCount(forFileAt: model.source.path))
    request.keyValues = keyValues.options(io)
    request.neurons = neurons.options
    request.verification = verification.verify
    return request
  }

  /// Bytes of one read of weights, as the drive's calibration says.
  public func preferredReadByteCount(forFileAt path: String) -> Int {
    CalibrationCache.standard.driveProfile(forFileAt: path, backend: io)?.blockByteCount
      ?? MemoryPlan.defaultReadByteCount
  }
}

extension Terminal {
  /// What a device has to say to people, e.g. that a slower way of reading had to do.
  public static func warn(notesOf device: any BlockDevice) {
    for note in device.notes { warn(note) }
  }

  /// As of its device, and how the file is read.
  public static func warn(notesOf source: ModelSource) {
    warn(notesOf: source.device)
    for note in source.description.notes { warn(note) }
  }

  /// What a session does without, e.g. threads that the system refused.
  public static func warn(notesOf session: Session) {
    for note in session.notes { warn(note) }
  }

  /// Keeps what was measured for later runs; if there is no place for it, this run goes on without.
  public static func warnWhereNotKept(_ store: () throws(BlockIOError) -> Void) {
    do throws(BlockIOError) { try store() } catch {
      warn("the calibration is not kept for later runs: \(error)")
    }
  }
}
