import Kernels
import ModelFormat
import TensorBasics
import WeightLoader

/// The next layer's predictor, run early on the current hidden state, so that its neurons are read while
/// this layer and the next attention compute.
///
/// The residual stream turns slowly from layer to layer (Deja Vu, arXiv:2310.17157, §4.3, asynchronous
/// lookahead). What is named is only read ahead, so it changes no bit. How much of it was needed is
/// measured as it goes; while more than a tenth is not, nothing is read but every few tokens: the drive
/// is what such a model waits for.
final class NeuronPrefetcher {
  private let width: Int
  private let length: Int
  private let epsilon: Float
  private let neuronsPerBundle: Int
  private let ranks: [Int]
  private let stream: WeightStream
  private let linear: LinearExecutor
  private let memory: PartitionedBuffer
  private let hidden: UnsafeMutablePointer<Float>
  private let inner: UnsafeMutablePointer<Float>
  private let scores: UnsafeMutablePointer<Float>
  private let named: UnsafeMutablePointer<Int32>

  /// Share of what was read ahead that was needed: a running mean.
  private var precision = 1.0
  private var tokenCount = 0
  private var learnt = NeuronStatistics()

  private static let leastPrecision = 0.9
  private static let tokensBetweenTrials = 16
  private static let weightOfNew = 0.25

  /// What the next layer is, and what it will see but for this FFN and its own attention.
  struct Next {
    var layer: DecoderWeights.Neurons
    var norm: DecoderWeights.Norm
    /// [hiddenSize]
    var residual: UnsafePointer<Float>
  }

  /// - Throws: ``AllocationError``.
  init(
    _ configuration: DecoderConfiguration, _ layout: NeuronLayout, stream: WeightStream,
    linear: LinearExecutor
  ) throws(AllocationError) {
    width = configuration.hiddenSize
    length = configuration.feedForwardLength
    epsilon = configuration.normEpsilon
    neuronsPerBundle = layout.layers.first?.neuronsPerBundle ?? 1
    ranks = layout.predictor?.ranks ?? []
    self.stream = stream
    self.linear = linear
    memory = try PartitionedBuffer(Self.sizes(configuration, layout))
    hidden = memory.pointer(0, as: Float.self)
    inner = memory.pointer(1, as: Float.self)
    scores = memory.pointer(2, as: Float.self)
    named = memory.pointer(3, as: Int32.self)
  }

  /// Bytes that one takes.
  static func byteCount(_ configuration: DecoderConfiguration, _ layout: NeuronLayout) -> Int {
    PartitionedBuffer.byteCount(sizes(configuration, layout))
  }

  private static func sizes(_ configuration: DecoderConfiguration, _ layout: NeuronLayout) -> [Int]
  {
    [
      configuration.hiddenSize, layout.predictor?.ranks.max() ?? 0,
      configuration.feedForwardLength, configuration.feedForwardLength,
    ].map { PartitionedBuffer.roundedUp(4 * $0) }
  }

  /// Names the next layer's neurons and reads those not in memory; all that is held must be there.
  func prefetchNextLayer(_ next: Next) throws(RuntimeError) {
    guard case .predictor(let a, let b, let bias) = next.layer.choice else { return }
    if next.layer.layer == 1 { learn() }
    guard
      precision >= Self.leastPrecision || tokenCount % Self.tokensBetweenTrials == 0,
      stream.residentAddress(ofTensor: a) != nil, stream.residentAddress(ofTensor: b) != nil
    else { return }
    next.norm.apply(next.residual, epsilon: epsilon, count: width, into: hidden)
    let rank = ranks[next.layer.layer]
    try linear.multiply(
      activations(hidden, width), LinearTask(tensor: a, output: inner, outputStride: rank))
    try linear.multiply(
      activations(inner, rank), LinearTask(tensor: b, output: scores, outputStride: length))
    VectorOps.add(scores, bias, count: length)
    var count = VectorOps.indexesAbove(0, in: scores, count: length, into: named)
    if neuronsPerBundle > 1 { count = bundles(count) }
    do {
      try stream.expectNeurons(
        layer: next.layer.layer, bundles: UnsafeBufferPointer(start: named, count: count))
    } catch { throw RuntimeError(error) }
  }

  /// Turns ascending neurons into ascending bundles; their count.
  private func bundles(_ count: Int) -> Int {
    var kept = 0
    for index in 0..<count {
      let bundle = named[index] / Int32(neuronsPerBundle)
      guard kept == 0 || named[kept - 1] != bundle else { continue }
      named[kept] = bundle
      kept += 1
    }
    return kept
  }

  /// Learns, once a token, how much of what was read ahead was needed.
  private func learn() {
    tokenCount += 1
    let statistics = stream.neuronStatistics
    let token = statistics - learnt
    learnt = statistics
    guard token.readsAhead > 0 else { return }
    let share = Double(token.readsAheadUsed) / Double(token.readsAhead)
    precision += (share - precision) * Self.weightOfNew
  }

  private func activations(_ x: UnsafePointer<Float>, _ count: Int) -> Activations {
    Activations(values: x, stride: count, blocks: nil, tokenCount: 1)
  }
}
