import Kernels
import ModelFormat
import TensorBasics

/// Memory of the experts' steps for chunks of up to `tokenCapacity` tokens.
final class ExpertWorkspace {
  /// Router scores [tokenCapacity, expertCount].
  let scores: UnsafeMutablePointer<Float>
  /// The experts of each token by rank [tokenCapacity, expertsPerToken], and their weights.
  let chosen: UnsafeMutablePointer<Int32>
  let weights: UnsafeMutablePointer<Float>
  /// Outputs of each token's experts by rank [tokenCapacity, expertsPerToken, hiddenSize].
  let outputs: UnsafeMutablePointer<Float>
  /// Hidden rows of an expert's tokens, then its outputs [tokenCapacity, hiddenSize].
  let gathered: UnsafeMutablePointer<Float>
  /// [max(tokenCapacity, expertsPerToken), feedForwardLength]
  let gate: UnsafeMutablePointer<Float>
  let up: UnsafeMutablePointer<Float>
  /// Int8 activations of the current product; one row takes ``blockRowByteCount``.
  let blocks: UnsafeMutableRawPointer
  let blockRowByteCount: Int
  /// Ranks that are computed together, and those that were [expertsPerToken].
  let ranks: UnsafeMutablePointer<Int>
  let isDone: UnsafeMutablePointer<Bool>
  /// Ranks whose experts were in memory when the token came to the layer [expertsPerToken].
  let isResident: UnsafeMutablePointer<Bool>
  /// Experts that a chunk needs, in the order of their turn [expertCount].
  let needed: UnsafeMutablePointer<Int32>
  /// For each expert where its entries in `entries` begin [expertCount + 1].
  private let starts: UnsafeMutablePointer<Int32>
  /// token · expertsPerToken + rank, by expert [tokenCapacity, expertsPerToken].
  private let entries: UnsafeMutablePointer<Int32>

  private let experts: ExpertConfiguration
  private let memory: PartitionedBuffer

  /// - Throws: ``AllocationError``.
  init(
    _ configuration: DecoderConfiguration, _ experts: ExpertConfiguration, tokenCapacity: Int
  ) throws(AllocationError) {
    self.experts = experts
    let sizes = Self.sizes(configuration, experts, tokenCapacity: tokenCapacity)
    let memory = try PartitionedBuffer(sizes)
    scores = memory.pointer(0, as: Float.self)
    chosen = memory.pointer(1, as: Int32.self)
    weights = memory.pointer(2, as: Float.self)
    outputs = memory.pointer(3, as: Float.self)
    gathered = memory.pointer(4, as: Float.self)
    gate = memory.pointer(5, as: Float.self)
    up = memory.pointer(6, as: Float.self)
    blocks = memory.address(7)
    ranks = memory.pointer(8, as: Int.self)
    isDone = memory.pointer(9, as: Bool.self)
    needed = memory.pointer(10, as: Int32.self)
    starts = memory.pointer(11, as: Int32.self)
    entries = memory.pointer(12, as: Int32.self)
    isResident = memory.pointer(13, as: Bool.self)
    self.memory = memory
    blockRowByteCount = Self.blockRowByteCount(configuration, experts)
  }

  /// Bytes that a workspace of that capacity takes.
  static func byteCount(
    _ configuration: DecoderConfiguration, _ experts: ExpertConfiguration, tokenCapacity: Int
  ) -> Int {
    PartitionedBuffer.byteCount(sizes(configuration, experts, tokenCapacity: tokenCapacity))
  }

  private static func blockRowByteCount(
    _ configuration: DecoderConfiguration, _ experts: ExpertConfiguration
  ) -> Int {
    let columns = max(configuration.hiddenSize, experts.feedForwardLength)
    return PartitionedBuffer.roundedUp(
      ActivationBlocks.byteCount(tokenCapacity: 1, columnCount: (columns + 31) / 32 * 32))
  }

  private static func sizes(
    _ configuration: DecoderConfiguration, _ experts: ExpertConfiguration, tokenCapacity: Int
  ) -> [Int] {
    let (width, used) = (configuration.hiddenSize, experts.expertsPerToken)
    let rows = max(tokenCapacity, used)
    func words(_ count: Int) -> Int { PartitionedBuffer.roundedUp(count * 4) }
    return [
      words(tokenCapacity * experts.expertCount), words(tokenCapacity * used),
      words(tokenCapacity * used), words(tokenCapacity * used * width),
      words(tokenCapacity * width), words(rows * experts.feedForwardLength),
      words(rows * experts.feedForwardLength),
      rows * blockRowByteCount(configuration, experts), words(2 * used), words(used),
      words(experts.expertCount), words(experts.expertCount + 1), words(tokenCapacity * used),
      words(used),
    ]
  }

  /// Sorts the choices of `tokenCount` tokens by expert; returns how many experts are ``needed``, those
  /// in memory first, otherwise ascending.
  func sortByExpert(tokenCount: Int, isResident: (_ expert: Int) -> Bool) -> Int {
    let (count, total) = (experts.expertCount, tokenCount * experts.expertsPerToken)
    starts.update(repeating: 0, count: count + 1)
    for place in 0..<total { starts[Int(chosen[place]) + 1] += 1 }
    var neededCount = 0
    for wanted in [true, false] {
      for expert in 0..<count where starts[expert + 1] > 0 && isResident(expert) == wanted {
        needed[neededCount] = Int32(expert)
        neededCount += 1
      }
    }
    for expert in 0..<count { starts[expert + 1] += starts[expert] }
    // Each entry moves its expert's start on; afterwards they are moved back.
    for place in 0..<total {
      let expert = Int(chosen[place])
      entries[Int(starts[expert])] = Int32(place)
      starts[expert] += 1
    }
    for expert in stride(from: count, to: 0, by: -1) { starts[expert] = starts[expert - 1] }
    starts[0] = 0
    return neededCount
  }

  /// Where an expert's outputs go: token · expertsPerToken + rank, by token.
  func places(of expert: Int) -> UnsafeBufferPointer<Int32> {
    UnsafeBufferPointer(
      start: entries + Int(starts[expert]), count: Int(starts[expert + 1] - starts[expert]))
  }
}
