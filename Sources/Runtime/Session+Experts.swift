import ModelFormat
public import WeightLoader

extension Session {
  /// Loads the expert history that ``saveExpertUsage(note:)`` kept at the end of an earlier run.
  ///
  /// It decides what stays in memory, and the experts used most are read while the drive has little to do.
  ///
  /// No token depends on it. Call it before the first token; later, and for a model without
  /// experts, it does nothing.
  ///
  /// - Parameter note: is told in one line why a file that is there was ignored.
  /// - Throws: ``RuntimeError`` if the drive fails.
  public func loadExpertUsage(note: (String) -> Void = { _ in }) throws(RuntimeError) {
    try checkCondition()
    guard stream.bundleStatistics.uses == 0, let values = hotness?.load(note: note) else { return }
    try step { () throws(RuntimeError) in
      do throws(LoaderError) { try stream.seedBundles(values) } catch {
        throw RuntimeError(error)
      }
    }
  }

  /// Saves how often each expert was used, for ``loadExpertUsage(note:)`` of a later run.
  ///
  /// The file lies beside the model or in the user's cache folder. Does nothing if no expert was used. Reads
  /// nothing, so it may follow an interruption or a failure of the drive.
  ///
  /// - Parameter note: is told in one line why nothing could be kept.
  public func saveExpertUsage(note: (String) -> Void = { _ in }) {
    guard stream.bundleStatistics.uses > 0, let hotness else { return }
    do { try hotness.save(stream.expertUsage) } catch {
      note("the expert history is not saved: \(error)")
    }
  }

  /// Starts recording which experts each decoded token uses; does nothing for a model without experts.
  ///
  /// - Parameter tokenCount: tokens for which recording allocates nothing.
  public func recordExperts(tokenCount: Int) {
    guard let shape = decoder.configuration.experts else { return }
    var trace = ExpertTrace(
      layerCount: decoder.weights.families.count, expertCount: shape.expertCount,
      usedCount: shape.expertsPerToken, modelName: stream.source.description.name ?? "")
    trace.reserve(tokenCount: tokenCount)
    decoder.experts?.trace = trace
  }

  /// What was recorded since ``recordExperts(tokenCount:)``.
  public var expertTrace: ExpertTrace? { decoder.experts?.trace }

  /// Experts that the next layer's router, run early, named although they were not in memory, and those
  /// of them that it chose when its turn came.
  public var expertPrefetcher: (named: Int, right: Int) {
    (decoder.experts?.prefetcher.namedTotal ?? 0, decoder.experts?.prefetcher.rightTotal ?? 0)
  }

  /// The file of this model's expert history; nil for a model without experts.
  private var hotness: ExpertUsage? {
    guard let shape = stream.bundleShape else { return nil }
    guard let references = try? stream.source.references() else { return nil }
    return ExpertUsage(
      modelPath: stream.source.path, references,
      layerCount: shape.familyCount, expertCount: shape.bundleCount)
  }
}
