import Kernels
import ModelFormat
import TensorBasics

/// Memory of the experts' steps for sweeps of up to `tokenCapacity` rows.
final class ExpertWorkspace {
  /// Router scores [tokenCapacity, ``ExpertChoice/rowLength``].
  let scores: UnsafeMutablePointer<Float>
  /// The experts of each row by rank [tokenCapacity, expertsPerToken], and their weights.
  let chosen: UnsafeMutablePointer<Int32>
  let weights: UnsafeMutablePointer<Float>
  /// Expert after expert, the rows that chose it: its input, then its output
  /// [tokenCapacity · expertsPerToken, hiddenSize].
  let rows: UnsafeMutablePointer<Float>
  /// Of the experts that are computed together: one with any rows, or several with no more than
  /// ``sufficientRowCount`` in all [group's rows, feedForwardLength].
  let gate: UnsafeMutablePointer<Float>
  let up: UnsafeMutablePointer<Float>
  /// Int8 activations of the experts that are computed together; one row takes ``blockRowByteCount``.
  let blocks: UnsafeMutableRawPointer
  let blockRowByteCount: Int
  /// The experts that any row chose, in the order in which they are asked for [expertCount].
  let needed: UnsafeMutablePointer<Int32>
  /// Those that were asked for and are not computed yet, the oldest first [expertCount].
  let waiting: UnsafeMutablePointer<Int32>
  /// Those that are computed together [expertCount].
  let group: UnsafeMutablePointer<Int32>
  /// For each expert where its rows in ``rows`` begin [expertCount + 1].
  private let starts: UnsafeMutablePointer<Int32>
  /// The place of each of ``rows`` in ``chosen`` [tokenCapacity · expertsPerToken], and the other way around.
  private let places: UnsafeMutablePointer<Int32>
  private let rowOfPlace: UnsafeMutablePointer<Int32>

  private let experts: ExpertConfiguration
  private let memory: PartitionedBuffer

  /// Rows from which waking the workers costs little beside the products. With more, the drive would wait
  /// longer for the next requests, and fewer would still be in the processors' caches.
  static let sufficientRowCount = 128

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
    rows = memory.pointer(3, as: Float.self)
    gate = memory.pointer(4, as: Float.self)
    up = memory.pointer(5, as: Float.self)
    blocks = memory.address(6)
    needed = memory.pointer(7, as: Int32.self)
    waiting = memory.pointer(8, as: Int32.self)
    group = memory.pointer(9, as: Int32.self)
    starts = memory.pointer(10, as: Int32.self)
    places = memory.pointer(11, as: Int32.self)
    rowOfPlace = memory.pointer(12, as: Int32.self)
    self.memory = memory
    blockRowByteCount = Self.blockRowByteCount(configuration, experts)
  }

  /// Bytes that a workspace of that capacity takes.
  static func byteCount(
    _ configuration: DecoderConfiguration, _ experts: ExpertConfiguration, tokenCapacity: Int
  ) -> Int {
    PartitionedBuffer.byteCount(sizes(configuration, experts, tokenCapacity: tokenCapacity))
  }

  /// Most rows of the experts that are computed together.
  private static func groupCapacity(_ experts: ExpertConfiguration, tokenCapacity: Int) -> Int {
    max(tokenCapacity, min(tokenCapacity * experts.expertsPerToken, sufficientRowCount))
  }

  private static func blockRowByteCount(
    _ configuration: DecoderConfiguration, _ experts: ExpertConfiguration
  ) -> Int {
    let columns = max(configuration.hiddenSize, experts.feedForwardLength)
    return PartitionedBuffer.roundedUp(
      ActivationBlocks.byteCount(tokenCapacity: 1, columnCount: (columns + 31) / 32 * 32))
  }

  /// Most rows of their int8 activations, of which an expert's last tile may have more than it has rows.
  private static func blockRowCapacity(
    _ experts: ExpertConfiguration, tokenCapacity: Int
  ) -> Int {
    guard tokenCapacity > 1 else { return groupCapacity(experts, tokenCapacity: tokenCapacity) }
    // Two rows take as many as four.
    return max(
      ActivationBlocks.rowCount(tokenCount: tokenCapacity),
      2 * min(tokenCapacity * experts.expertsPerToken, sufficientRowCount))
  }

  private static func sizes(
    _ configuration: DecoderConfiguration, _ experts: ExpertConfiguration, tokenCapacity: Int
  ) -> [Int] {
    let choices = tokenCapacity * experts.expertsPerToken
    let groupCapacity = groupCapacity(experts, tokenCapacity: tokenCapacity)
    func words(_ count: Int) -> Int { PartitionedBuffer.roundedUp(count * 4) }
    return [
      words(tokenCapacity * ExpertChoice.rowLength(experts)), words(choices), words(choices),
      words(choices * configuration.hiddenSize),
      words(groupCapacity * experts.feedForwardLength),
      words(groupCapacity * experts.feedForwardLength),
      blockRowCapacity(experts, tokenCapacity: tokenCapacity)
        * blockRowByteCount(configuration, experts),
      words(experts.expertCount), words(experts.expertCount), words(experts.expertCount),
      words(experts.expertCount + 1), words(choices), words(choices),
    ]
  }

  /// Sorts the choices of `tokenCount` rows by expert, and names those that are ``needed``: those in memory
  /// first, otherwise ascending.
  ///
  /// - Returns: how many are needed, and how many of them are in memory.
  func sortByExpert(
    tokenCount: Int, isResident: (_ expert: Int) -> Bool
  ) -> (needed: Int, resident: Int) {
    let (count, total) = (experts.expertCount, tokenCount * experts.expertsPerToken)
    starts.update(repeating: 0, count: count + 1)
    for place in 0..<total { starts[Int(chosen[place]) + 1] += 1 }
    var neededCount = 0
    func name(resident: Bool) {
      for expert in 0..<count where starts[expert + 1] > 0 && isResident(expert) == resident {
        needed[neededCount] = Int32(expert)
        neededCount += 1
      }
    }
    name(resident: true)
    let residentCount = neededCount
    name(resident: false)
    for expert in 0..<count { starts[expert + 1] += starts[expert] }
    // Each entry moves its expert's start on; afterwards they are moved back.
    for place in 0..<total {
      let expert = Int(chosen[place])
      let row = starts[expert]
      places[Int(row)] = Int32(place)
      rowOfPlace[place] = row
      starts[expert] += 1
    }
    for expert in stride(from: count, to: 0, by: -1) { starts[expert] = starts[expert - 1] }
    starts[0] = 0
    return (neededCount, residentCount)
  }

  /// Which of ``rows`` are an expert's, in the order of the sweep's rows.
  func rows(of expert: Int) -> Range<Int> { Int(starts[expert])..<Int(starts[expert + 1]) }

  /// The row of the sweep that one of ``rows`` belongs to.
  func token(ofRow row: Int) -> Int { Int(places[row]) / experts.expertsPerToken }

  /// What the expert that a token chose at `rank` gave [hiddenSize].
  func output(token: Int, rank: Int, width: Int) -> UnsafeMutablePointer<Float> {
    rows + Int(rowOfPlace[token * experts.expertsPerToken + rank]) * width
  }
}
