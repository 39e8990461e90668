import Glibc
import ModelFormat

extension NaiveDecoder {
  /// The gated delta rule as its paper writes it (arXiv:2412.06464, eq. 10), over whole matrices.
  func scan(_ spec: ScanSpec, _ prefix: String, _ inputs: [[Double]]) -> [[Double]] {
    if spec.inputs == .mamba2 { return mamba(spec, prefix, inputs) }
    if spec.inputs == .gatedConvolution { return convolution(spec, prefix, inputs) }
    let rows = inputs.map { split(spec, prefix, $0) }
    let channels = convolved(spec, prefix, rows.map(\.channels))
    let (decay, bias) = (weights(prefix + "ssm_a"), weights(prefix + "ssm_dt.bias"))
    let (keyLength, valueLength) = (spec.keyLength, spec.valueLength)
    let empty = [[Double]](
      repeating: [Double](repeating: 0, count: valueLength), count: keyLength)
    var states = [[[Double]]](repeating: empty, count: spec.valueHeadCount)
    return inputs.indices.map { token in
      var output: [Double] = []
      for head in 0..<spec.valueHeadCount {
        let group =
          spec.takesKeysInTurn
          ? head % spec.keyHeadCount : head / (spec.valueHeadCount / spec.keyHeadCount)
        func unit(_ first: Int) -> [Double] {
          let part = channels[token][first..<first + keyLength]
          let length = (part.reduce(0) { $0 + $1 * $1 } + 1e-6).squareRoot()
          return part.map { $0 / length }
        }
        let query = unit(group * keyLength).map { $0 / Double(keyLength).squareRoot() }
        let key = unit((spec.keyHeadCount + group) * keyLength)
        let first = 2 * spec.keyHeadCount * keyLength + head * valueLength
        let value = Array(channels[token][first..<first + valueLength])
        let alpha = exp(decay[head] * log1p(exp(rows[token].alpha[head] + bias[head])))
        let beta = 1 / (1 + exp(-rows[token].beta[head]))
        var state = states[head]
        for i in 0..<keyLength { for j in 0..<valueLength { state[i][j] *= alpha } }
        let known = (0..<valueLength).map { j in
          (0..<keyLength).reduce(0) { $0 + state[$1][j] * key[$1] }
        }
        for i in 0..<keyLength {
          for j in 0..<valueLength { state[i][j] += key[i] * beta * (value[j] - known[j]) }
        }
        states[head] = state
        let read = (0..<valueLength).map { j in
          (0..<keyLength).reduce(0) { $0 + state[$1][j] * query[$1] }
        }
        let z = rows[token].z[head * valueLength..<(head + 1) * valueLength]
        output += zip(norm(read, prefix + "ssm_norm.weight"), z).map { $0 * $1 / (1 + exp(-$1)) }
      }
      return product(prefix + "ssm_out.weight", output)
    }
  }

  /// C ⊙ convolution(B ⊙ x), with B, C and x one after the other.
  private func convolution(
    _ spec: ScanSpec, _ prefix: String, _ inputs: [[Double]]
  ) -> [[Double]] {
    let count = spec.valueLength
    let rows = inputs.map { product(prefix + "ssm_in.weight", $0) }
    let gated = rows.map { row in (0..<count).map { row[$0] * row[2 * count + $0] } }
    return zip(rows, convolved(spec, prefix, gated, activates: false)).map { row, output in
      product(prefix + "ssm_out.weight", (0..<count).map { row[count + $0] * output[$0] })
    }
  }

  /// Mamba-2 as its paper has it (arXiv:2405.21060, §5), token by token.
  private func mamba(_ spec: ScanSpec, _ prefix: String, _ inputs: [[Double]]) -> [[Double]] {
    let (inner, keys) = (
      spec.valueHeadCount * spec.valueLength, spec.keyHeadCount * spec.keyLength
    )
    let rows = inputs.map { product(prefix + "ssm_in.weight", $0) }
    let channels = convolved(spec, prefix, rows.map { Array($0[inner..<2 * inner + 2 * keys]) })
    let (decay, bias) = (weights(prefix + "ssm_a"), weights(prefix + "ssm_dt.bias"))
    let skip = weights(prefix + "ssm_d")
    let norms = spec.hasNorm ? weights(prefix + "ssm_norm.weight") : []
    let empty = [[Double]](
      repeating: [Double](repeating: 0, count: spec.valueLength), count: spec.keyLength)
    var states = [[[Double]]](repeating: empty, count: spec.valueHeadCount)
    return rows.indices.map { token in
      var output: [Double] = []
      for head in 0..<spec.valueHeadCount {
        let group = head / (spec.valueHeadCount / spec.keyHeadCount)
        let step = log1p(exp(rows[token][2 * inner + 2 * keys + head] + bias[head]))
        for column in 0..<spec.valueLength {
          let x = channels[token][head * spec.valueLength + column]
          var sum = skip[head] * x
          for key in 0..<spec.keyLength {
            let b = channels[token][inner + group * spec.keyLength + key]
            let c = channels[token][inner + keys + group * spec.keyLength + key]
            let state = exp(step * decay[head]) * states[head][key][column] + step * b * x
            states[head][key][column] = state
            sum += c * state
          }
          let z = rows[token][head * spec.valueLength + column]
          output.append(sum * z / (1 + exp(-z)))
        }
      }
      let length = inner / spec.keyHeadCount
      for first in stride(from: 0, to: norms.count, by: length) {
        let mean = output[first..<first + length].reduce(0) { $0 + $1 * $1 } / Double(length)
        let factor = 1 / (mean + Double(configuration.normEpsilon)).squareRoot()
        for index in first..<first + length { output[index] *= factor * norms[index] }
      }
      return product(prefix + "ssm_out.weight", output)
    }
  }

  private struct Row {
    var channels: [Double] = []
    var z: [Double] = []
    var beta: [Double] = []
    var alpha: [Double] = []
  }

  /// What a token's projections hold, by kinds.
  private func split(_ spec: ScanSpec, _ prefix: String, _ x: [Double]) -> Row {
    var row = Row()
    let groupSize = spec.valueHeadCount / spec.keyHeadCount
    switch spec.inputs {
    case .byKind, .apart:
      row.channels = product(prefix + "attn_qkv.weight", x)
      row.z = product(prefix + "attn_gate.weight", x)
    case .mamba2, .gatedConvolution, .lightning, .gatedLinear, .activatedConvolution, .taylor:
      fatalError("these inputs are not sorted by kinds")
    case .byKeyHead:
      var left = product(prefix + "ssm_in.weight", x)[...]
      var (queries, keys, values): ([Double], [Double], [Double]) = ([], [], [])
      for _ in 0..<spec.keyHeadCount {
        func take(_ count: Int, _ list: inout [Double]) {
          list += left.prefix(count)
          left = left.dropFirst(count)
        }
        take(spec.keyLength, &queries)
        take(spec.keyLength, &keys)
        take(groupSize * spec.valueLength, &values)
        take(groupSize * spec.valueLength, &row.z)
      }
      row.channels = queries + keys + values
    }
    guard spec.inputs != .apart else {
      row.beta = product(prefix + "ssm_beta.weight", x)
      row.alpha = product(prefix + "ssm_alpha.weight", x)
      return row
    }
    var left = product(prefix + "ssm_ba.weight", x)[...]
    for _ in 0..<spec.keyHeadCount {
      row.beta += left.prefix(groupSize)
      row.alpha += left.dropFirst(groupSize).prefix(groupSize)
      left = left.dropFirst(2 * groupSize)
    }
    return row
  }

  private func convolved(
    _ spec: ScanSpec, _ prefix: String, _ rows: [[Double]], activates: Bool = true
  ) -> [[Double]] {
    let taps = weights(prefix + "ssm_conv1d.weight")
    let bias = spec.hasTapBias ? weights(prefix + "ssm_conv1d.bias") : nil
    return rows.indices.map { token in
      rows[token].indices.map { channel in
        var sum = bias?[channel] ?? 0
        for tap in 0..<spec.tapCount where token - spec.tapCount + 1 + tap >= 0 {
          sum +=
            taps[channel * spec.tapCount + tap] * rows[token - spec.tapCount + 1 + tap][channel]
        }
        return activates ? sum / (1 + exp(-sum)) : sum
      }
    }
  }
}
