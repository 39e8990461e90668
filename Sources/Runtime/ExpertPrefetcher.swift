import Kernels
import ModelFormat
import TensorBasics
import WeightLoader

/// The next layer's router, run early on the current hidden state, so that its experts are read while
/// this layer's compute (speculative loading, arXiv:2312.17238, §3.2).
///
/// Its predictions are only read ahead, so they change no bit. How often they are right is measured as it
/// goes; while that is rare, nothing is read, and every few tokens it is tried again.
final class ExpertPrefetcher {
  private let experts: ExpertConfiguration
  private let width: Int
  private let epsilon: Float
  private let stream: WeightStream
  /// Routers whose weights are floats; the others are not worth int8 activations.
  private let types: [ElementType?]
  private let memory: PartitionedBuffer
  private let hidden: UnsafeMutablePointer<Float>
  private let scores: UnsafeMutablePointer<Float>
  private let named: UnsafeMutablePointer<Int32>
  private var namedCount = 0
  /// Share of the experts named, of those not in memory, that the router chose: a running mean.
  private var precision = 0.5
  private var tokenCount = 0

  /// Experts that were named and not in memory, and those of them that the router then chose.
  private(set) var namedTotal = 0
  private(set) var rightTotal = 0

  /// A wrong prediction costs a read and an eviction; a right one saves a wait of the same length.
  private static let leastPrecision = 0.5
  private static let tokensBetweenTrials = 8
  private static let weightOfNew = 1.0 / 256

  /// - Throws: ``AllocationError``.
  init(
    _ configuration: DecoderConfiguration, _ experts: ExpertConfiguration, stream: WeightStream
  ) throws(AllocationError) {
    self.experts = experts
    width = configuration.hiddenSize
    epsilon = configuration.normEpsilon
    self.stream = stream
    types = stream.source.description.tensors.map { $0.type.isQuantised ? nil : $0.type }
    memory = try PartitionedBuffer([
      PartitionedBuffer.roundedUp(4 * width), PartitionedBuffer.roundedUp(4 * experts.expertCount),
      PartitionedBuffer.roundedUp(4 * experts.expertsPerToken),
    ])
    hidden = memory.pointer(0, as: Float.self)
    scores = memory.pointer(1, as: Float.self)
    named = memory.pointer(2, as: Int32.self)
  }

  /// What the next layer's router is, and what it will see but for this layer's experts.
  struct Next {
    var layer: DecoderWeights.Experts
    var norm: UnsafePointer<Float>
    /// [hiddenSize]
    var residual: UnsafePointer<Float>
  }

  /// Names the next layer's experts and, where that has been worth it, reads those not in memory.
  func prefetchNextLayer(_ next: Next) throws(LoaderError) {
    namedCount = 0
    if next.layer.family == 1 { tokenCount += 1 }
    let isWorth = precision >= Self.leastPrecision
    guard isWorth || tokenCount % Self.tokensBetweenTrials == 0,
      let type = types[next.layer.router],
      let address = stream.residentAddress(ofTensor: next.layer.router)
    else { return }
    VectorOps.rmsNorm(
      next.residual, weight: next.norm, epsilon: epsilon, count: width, into: hidden)
    MatrixProduct.multiply(
      MatrixOperand(
        address: address, type: type, layout: .interleaved, rowCount: experts.expertCount,
        columnCount: width),
      groups: 0..<RowGroup.groupCount(rows: experts.expertCount),
      by: Activations(
        values: UnsafePointer(hidden), stride: width, blocks: nil, tokenCount: 1),
      into: scores, outputStride: experts.expertCount, scratch: nil)
    for _ in 0..<experts.expertsPerToken {
      var best = -1
      for expert in 0..<experts.expertCount
      where scores[expert] > -.infinity && (best < 0 || scores[expert] > scores[best]) {
        best = expert
      }
      guard best >= 0 else { break }
      scores[best] = -.infinity
      guard !stream.holds(bundle: best, of: next.layer.family) else { continue }
      named[namedCount] = Int32(best)
      namedCount += 1
      if isWorth, stream.hasRoomForBundle(of: next.layer.family), stream.canReadAhead {
        try stream.prefetch(bundle: best, of: next.layer.family)
      }
    }
  }

  /// Discards the predictions for a layer that will not be computed.
  func abandon() { namedCount = 0 }

  /// Compares what the router chose with what was predicted.
  func learn(chosen: UnsafeBufferPointer<Int32>) {
    guard namedCount > 0 else { return }
    for index in 0..<namedCount {
      let isRight = chosen.contains(named[index])
      namedTotal += 1
      rightTotal += isRight ? 1 : 0
      precision += ((isRight ? 1 : 0) - precision) * Self.weightOfNew
    }
    namedCount = 0
  }
}
