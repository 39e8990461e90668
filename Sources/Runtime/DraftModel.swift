public import BlockIO
import Glibc
import HostResources
import KVCache
import ModelFormat
import TensorBasics
import Tokenization
import WeightLoader

/// A smaller model in memory, or a layer of the model itself, which drafts tokens.
///
/// ```swift
/// let drafter = try DraftModel(LanguageModel.open("small.bin"), for: model, request)
/// drafter.reserve(in: &request)
/// let session = try Session(model.source, model.configuration, request)
/// options.draft = .model(drafter)
/// ```
///
/// All of its weights and its keys and values stay in memory. One thread uses it.
public final class DraftModel: @unchecked Sendable {
  // Safety: only the thread that sweeps the other model's weights uses it.
  /// Memory that it takes, from the first draft on.
  public let byteCount: Int
  /// What drafts.
  public let model: LanguageModel
  /// Where its memory goes.
  public let plan: MemoryPlan
  private let request: MemoryPlan.Request
  private var opened: EngineCore?
  var sampler: Sampler

  /// Whether it is a layer of the model that it drafts for, which is given that model's hidden states.
  let isPredictor: Bool

  /// Plans the memory of a smaller model, of which the first draft takes possession.
  ///
  /// - Parameters:
  ///   - model: the one that drafts.
  ///   - target: the one that it drafts for.
  ///   - request: what the other is planned with.
  /// - Throws: ``RuntimeError/notRunnable(path:reason:)`` where its vocabulary is another or it is not smaller;
  ///   ``RuntimeError/budgetTooSmall(budget:minimum:fitting:)`` where it alone does not fit the budget; errors of
  ///   ``Session/init(_:_:_:cancellation:decodeAttention:)``.
  public convenience init(
    _ model: LanguageModel, for target: LanguageModel, _ request: MemoryPlan.Request
  ) throws(RuntimeError) {
    try Self.check(model, for: target)
    try self.init(model, request, isPredictor: false)
  }

  /// Plans the memory of the first layer of a model that predicts further tokens.
  ///
  /// - Parameters:
  ///   - target: the model, which is opened once more, for reads of its own.
  ///   - request: what the model is planned with.
  /// - Throws: ``RuntimeError/notRunnable(path:reason:)`` where it has no such layer, or none that can draft; otherwise as
  ///   ``init(_:for:_:)``.
  public convenience init(
    predictorOf target: LanguageModel, backend: StorageBackend, _ request: MemoryPlan.Request
  ) throws(RuntimeError) {
    try self.init(target.openPredictor(backend: backend), request, isPredictor: true)
  }

  private init(
    _ model: LanguageModel, _ request: MemoryPlan.Request, isPredictor: Bool
  ) throws(RuntimeError) {
    (self.model, self.isPredictor) = (model, isPredictor)
    let longestChunk = isPredictor ? StateWindow.capacity : Self.longestChunk
    var own = MemoryPlan.Request(
      budgetByteCount: 0, contextLength: request.contextLength,
      promptLength: min(request.contextLength, longestChunk),
      threadCount: request.threadCount, maximumChunkLength: longestChunk)
    own.sequenceCount = request.sequenceCount
    own.assumedProcessByteCount = 0
    own.keyValues.backend = request.keyValues.backend
    own.verification = request.verification
    own.budgetByteCount = try Self.residentByteCount(model, own, within: request.budgetByteCount)
    let configuration = model.configuration
    byteCount =
      own.budgetByteCount + Sampler.byteCount(vocabularyCount: configuration.vocabularyCount)
      + (isPredictor
        ? request.sequenceCount
          * PredictionDrafter.byteCount(hiddenSize: configuration.hiddenSize) : 0)
    sampler = Sampler(forAnyOptionsOf: configuration.vocabularyCount)
    plan = try MemoryPlan.make(own, source: model.source, configuration: configuration)
    self.request = own
  }

  /// What computes, opened when it is first needed.
  ///
  /// Until then the budget is the other model's alone, so that one that is refused has taken nothing.
  func core() throws(RuntimeError) -> EngineCore {
    if let opened { return opened }
    let core = try EngineCore(model.source, model.configuration, request)
    opened = core
    return core
  }

  /// Tokens that it reads for what a sweep verifies, about: of a smaller model as many in prose, where it is right less often, as in
  /// code.
  public var usualStepCount: Int { isPredictor ? 4 : 24 }

  /// Draws the token that follows a path, and says how sure it is.
  func draw(
    _ logits: UnsafeBufferPointer<Float>, _ sampling: SamplingOptions, path: [Int32],
    answerStart: Int
  ) -> (token: Int32, grade: Int) {
    let token = sampler.draw(logits, sampling, path: path, answerStart: answerStart, mask: nil)
    let total = Self.sum(logits)
    let probability = exp(Double(logits[Int(token)] - total.highest)) / total.sum
    return (token, DraftAcceptance.grade(probability: probability))
  }

  /// The highest logit, and the sum of the others' exponentials in its proportion.
  static func sum(
    _ logits: UnsafeBufferPointer<Float>
  ) -> (highest: Float, sum: Double) {
    guard let highest = logits.max() else { return (0, 1) }
    var sum = 0.0
    // What is left out adds a thousandth to a vocabulary of 100,000 tokens.
    for logit in logits where logit > highest - 18 { sum += exp(Double(logit - highest)) }
    return (highest, sum)
  }

  /// Has the plan of the model that it drafts for leave it its memory.
  public func reserve(in request: inout MemoryPlan.Request) {
    request.callerByteCount += byteCount
  }

  /// Tokens that it reads at once, between two sweeps of the other model.
  private static let longestChunk = 512

  private static func check(
    _ model: LanguageModel, for target: LanguageModel
  ) throws(RuntimeError) {
    func refuse(_ reason: String) -> RuntimeError {
      .notRunnable(path: model.source.path, reason: "as a draft model: " + reason)
    }
    guard model.configuration.scans.isEmpty else {
      throw refuse(
        "some of its layers have states, which cannot be cut where drafts part; all must attend")
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
    let least = try MemoryPlan.leastBudget(above: 0, from: 4 << 20, isResident)
    guard least <= limit else {
      throw .budgetTooSmall(budget: ByteCount(limit), minimum: ByteCount(least))
    }
    return least
  }
}

extension LanguageModel {
  /// Bytes of all weights.
  fileprivate var weightByteCount: Int {
    source.description.tensors.reduce(0) { $0 + $1.byteCount }
  }
}
