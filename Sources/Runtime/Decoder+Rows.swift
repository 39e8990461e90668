import Kernels
import ModelFormat

/// What happens to each row of a batch by itself, between products and attention.
///
/// A region made of a closure would allocate, so these steps are values and the decoder is their region.
extension Decoder: ParallelRegion {
  /// Plain values: a batch, which its caller keeps, would be counted several times for each step.
  enum RowStep: BitwiseCopyable {
    /// residual *= embeddingScale
    case scaleEmbedding
    /// joined = norm(residual) and norm(states)
    case join(embeddingNorm: DecoderWeights.Norm, stateNorm: DecoderWeights.Norm)
    /// Cosines and sines of every row's position.
    case fillRope(Unmanaged<Batch>)
    /// hidden = norm(x); of the rows with these numbers, or of all.
    case normalise(UnsafePointer<Float>, rows: UnsafePointer<Int32>?, DecoderWeights.Norm)
    /// residual = scale · hidden
    case keepNormalised(scale: Float)
    /// Queries, keys and values as attention wants them; keys and values enter their caches.
    case storeHeads(Unmanaged<Batch>, layer: Int, rope: UnsafePointer<Float>)
    /// Keys and values of all branches, one KV head at a time.
    case storeBranches(Unmanaged<Batch>, layer: Int)
    /// Attention's output times the sigmoids of its gates.
    case gateHeads(layer: Int)
    /// gate = activation(gate) * up
    case gate(length: Int)
    /// up += bias
    case addUpBias(UnsafePointer<Float>, length: Int)
    /// up = activation(up)
    case activate(length: Int)
    /// mixed += shared, times the sigmoid of gate · hidden where there is a gate.
    case addShared(gate: UnsafePointer<Float>?)
    /// hidden = mixed
    case takeMixed
    /// hidden += mixed + bias, of attention beside an FFN or a scan.
    case addAttention(bias: UnsafePointer<Float>?)
    /// residual += scale · (hidden + bias), through the norm on outputs where the block has one.
    case addToResidual(bias: UnsafePointer<Float>?, norm: DecoderWeights.Norm?, scale: Float)
    /// Scales and caps logits, and notes the rows with these numbers whose logits are not finite, a part of a row at a time.
    case finishLogits(rows: UnsafePointer<Int32>)
  }

  /// Logits that one worker checks, and in how many parts a row of them is checked.
  private static let checkedLogitCount = 1 << 16
  var logitPartCount: Int {
    (configuration.vocabularyCount + Self.checkedLogitCount - 1) / Self.checkedLogitCount
  }

  /// Does a step for each of `count` rows, or parts of rows.
  func forEach(_ count: Int, _ step: RowStep) {
    rowStep = step
    clock.measure(.elementwise) { pool.run(count: count, self) }
  }

  /// Does the current step for one row.
  func perform(index row: Int, worker: Int) {
    let (width, epsilon) = (configuration.hiddenSize, configuration.normEpsilon)
    let hidden = workspace.hidden + row * width
    let residual = workspace.residual + row * width
    switch rowStep {
    case .scaleEmbedding:
      VectorOps.scale(residual, by: configuration.embeddingScale, count: width)
    case .join(let embeddingNorm, let stateNorm):
      let joined = workspace.joined + 2 * row * width
      let state = workspace.states + row * width
      let isFinite = embeddingNorm.apply(residual, epsilon: epsilon, count: width, into: joined)
      finite.note(
        stateNorm.apply(state, epsilon: epsilon, count: width, into: joined + width) && isFinite,
        row: row)
    case .fillRope(let batch):
      batch._withUnsafeGuaranteedRef { fillRope($0, row) }
    case .normalise(let x, let rows, let norm):
      let number = rows.map { Int($0[row]) } ?? row
      finite.note(
        norm.apply(x + number * width, epsilon: epsilon, count: width, into: hidden), row: number)
    case .keepNormalised(let scale):
      residual.update(from: hidden, count: width)
      VectorOps.scale(residual, by: scale, count: width)
    case .storeHeads(let batch, let layer, let rope):
      let rope = rope + row * configuration.ropeDimensionCount
      batch._withUnsafeGuaranteedRef { storeHeads($0, row, layer: layer, rope: rope) }
    case .storeBranches(let batch, let layer):
      batch._withUnsafeGuaranteedRef { storeBranches($0, layer: layer, head: row) }
    case .gateHeads(let layer): gateHeads(row, layer: layer)
    case .gate(let length):
      configuration.activation.gate(
        workspace.gate + row * length, by: workspace.up + row * length, count: length)
    case .addUpBias(let bias, let length):
      VectorOps.add(workspace.up + row * length, bias, count: length)
    case .activate(let length):
      configuration.activation.apply(workspace.up + row * length, count: length)
    case .addShared(let gate):
      let shared = workspace.shared + row * width
      if let gate {
        VectorOps.scale(
          shared, by: Self.sigmoid(of: gate, times: hidden, count: width), count: width)
      }
      VectorOps.add(workspace.mixed + row * width, shared, count: width)
    case .takeMixed:
      hidden.update(from: workspace.mixed + row * width, count: width)
    case .addAttention(let bias):
      if let bias { VectorOps.add(hidden, bias, count: width) }
      VectorOps.add(hidden, workspace.mixed + row * width, count: width)
    case .addToResidual(let bias, let norm, let scale):
      if let bias { VectorOps.add(hidden, bias, count: width) }
      norm?.apply(hidden, epsilon: epsilon, count: width, into: hidden)
      if scale != 1 { VectorOps.scale(hidden, by: scale, count: width) }
      VectorOps.add(residual, hidden, count: width)
    case .finishLogits(let rows):
      finishLogits(part: row, rows)
    }
  }

  private func finishLogits(part index: Int, _ rows: UnsafePointer<Int32>) {
    let (row, part) = index.quotientAndRemainder(dividingBy: logitPartCount)
    let (count, first) = (configuration.vocabularyCount, part * Self.checkedLogitCount)
    let logits = workspace.logits + row * count + first
    let partCount = min(Self.checkedLogitCount, count - first)
    if configuration.logitScale != 1 {
      VectorOps.scale(logits, by: configuration.logitScale, count: partCount)
    }
    finite.check(logits, count: partCount, row: Int(rows[row]))
    if let cap = configuration.logitSoftCap { VectorOps.softCap(logits, at: cap, count: partCount) }
  }

  /// 1 / (1 + e^−(a · b)), the products added one after the other.
  private static func sigmoid(
    of a: UnsafePointer<Float>, times b: UnsafePointer<Float>, count: Int
  ) -> Float {
    var power: Float = 0
    for index in 0..<count { power -= a[index] * b[index] }
    VectorOps.exp(&power, count: 1)
    return 1 / (1 + power)
  }
}
