import KVCache
import ModelFormat
import TensorBasics
import Tokenization
import WeightLoader

/// A smaller model in memory, which drafts tokens for another one.
///
/// ```swift
/// let drafter = try DraftModel(LanguageModel.open("small.bin"), for: model, request)
/// request.callerByteCount += drafter.byteCount
/// let session = try Session(model.source, model.configuration, request)
/// options.draft = .model(drafter)
/// ```
///
/// All of its weights and its keys and values stay in memory. One thread uses it.
public final class DraftModel: @unchecked Sendable {
  // Safety: only the thread that sweeps the other model's weights uses it.
  /// Memory that it takes: part of ``MemoryPlan/Request/callerByteCount`` of the model that it drafts for.
  public let byteCount: Int
  let core: EngineCore
  let vocabularyCount: Int
  var sampler: Sampler

  /// Plans its memory; weights are read by the first drafts.
  ///
  /// - Parameters:
  ///   - model: the one that drafts.
  ///   - target: the one that it drafts for.
  ///   - request: what the other is planned with.
  /// - Throws: ``RuntimeError/notRunnable(path:reason:)`` where its vocabulary is another, it is not smaller, or it does
  ///   not fit the budget beside the other; errors of ``Session/init(_:_:_:cancellation:decodeAttention:)``.
  public init(
    _ model: LanguageModel, for target: LanguageModel, _ request: MemoryPlan.Request
  ) throws(RuntimeError) {
    try Self.check(model, for: target)
    var own = MemoryPlan.Request(
      budgetByteCount: 0, contextLength: request.contextLength,
      promptLength: min(request.contextLength, Self.longestChunk),
      threadCount: request.threadCount, maximumChunkLength: Self.longestChunk)
    own.sequenceCount = request.sequenceCount
    own.assumedProcessByteCount = 0
    own.keyValues.backend = request.keyValues.backend
    own.verification = request.verification
    own.budgetByteCount = try Self.residentByteCount(model, own, within: request.budgetByteCount)
    vocabularyCount = model.configuration.vocabularyCount
    byteCount = own.budgetByteCount + Sampler.byteCount(vocabularyCount: vocabularyCount)
    sampler = Sampler(forAnyOptionsOf: vocabularyCount)
    core = try EngineCore(model.source, model.configuration, own)
  }

  /// Tokens that it reads at once, between two sweeps of the other model.
  private static let longestChunk = 512

  private static func check(
    _ model: LanguageModel, for target: LanguageModel
  ) throws(RuntimeError) {
    func refuse(_ reason: String) -> RuntimeError {
      .notRunnable(path: model.source.path, reason: "as a draft model: " + reason)
    }
    let (own, other) = (model.tokenizer, target.tokenizer)
    guard own.vocabularyCount == other.vocabularyCount else {
      throw refuse(
        "its vocabulary has \(own.vocabularyCount) tokens, that of \(target.source.path) has "
          + "\(other.vocabularyCount); a draft model must have the same one")
    }
    for token in 0..<Int32(own.vocabularyCount) {
      var (mine, theirs): ([UInt8], [UInt8]) = ([], [])
      own.decode(token, into: &mine, includesControl: true)
      other.decode(token, into: &theirs, includesControl: true)
      guard mine == theirs else {
        throw refuse(
          "its token \(token) is another than that of \(target.source.path); a draft model must have the same "
            + "vocabulary")
      }
    }
    let (size, limit) = (model.weightByteCount, target.weightByteCount)
    guard size < limit else {
      throw refuse(
        "its weights take \(ByteCount(size)), those of \(target.source.path) \(ByteCount(limit)); a draft model must "
          + "be the smaller")
    }
  }

  /// The least budget in which everything stays in memory.
  private static func residentByteCount(
    _ model: LanguageModel, _ request: MemoryPlan.Request, within limit: Int
  ) throws(RuntimeError) -> Int {
    func isResident(_ budget: Int) throws(RuntimeError) -> Bool {
      var request = request
      request.budgetByteCount = budget
      do throws(RuntimeError) {
        let plan = try MemoryPlan.make(
          request, source: model.source, configuration: model.configuration)
        return plan.residency.streamedByteCount == 0 && !plan.keyValues.hasTier
          && plan.expertSlotCount >= plan.expertCount
      } catch {
        if case .budgetTooSmall = error { return false }
        throw error
      }
    }
    guard try isResident(limit) else {
      throw .notRunnable(
        path: model.source.path,
        reason: "as a draft model: it does not fit the budget of \(ByteCount(limit)); give more "
          + "--ram or a smaller draft model")
    }
    var (low, high) = (0, limit)
    while high - low > 256 << 10 {
      let middle = (low + high) / 2
      if try isResident(middle) { high = middle } else { low = middle }
    }
    return high
  }
}

extension LanguageModel {
  /// Bytes of all weights.
  fileprivate var weightByteCount: Int {
    source.description.tensors.reduce(0) { $0 + $1.byteCount }
  }
}
