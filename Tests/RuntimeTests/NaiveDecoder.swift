import Glibc
import Kernels
import ModelFormat
import TensorBasics
import Testing
import WeightLoader

/// A decoder in f64 loops, as a textbook writes it: no tiles, no quantised activations, no cache.
///
/// Independent of every kernel; weights come as plain numbers. Keys and values are rounded to f16, as
/// the runtime stores them.
struct NaiveDecoder {
  let configuration: DecoderConfiguration
  /// A tensor's values, row by row, or nil where the model has none of that name.
  let tensor: (String) -> [Double]?
  /// What RoPE's frequencies are chosen for.
  var contextLength = 24

  /// Logits after each of `tokens`: [tokens.count][vocabularyCount].
  ///
  /// - Parameter states: as ``hiddenStates(_:joining:)``.
  func logits(_ tokens: [Int32], joining states: [[Double]] = []) -> [[Double]] {
    hiddenStates(tokens, joining: states).map { logits(of: $0) }
  }

  /// Logits after what the output head is given.
  func logits(of state: [Double]) -> [Double] {
    let head = tensor("output.weight") == nil ? "token_embd.weight" : "output.weight"
    return product(head, state).map {
      capped($0 * Double(configuration.logitScale), configuration.logitSoftCap)
    }
  }

  /// What the output head is given of each of `tokens`: [tokens.count][hiddenSize].
  ///
  /// - Parameter states: what each token is joined with, in a layer that predicts further tokens (DeepSeek-V3, arXiv:2412.19437,
  ///   eq. 21, with the halves as files have them).
  func hiddenStates(_ tokens: [Int32], joining states: [[Double]] = []) -> [[Double]] {
    let width = configuration.hiddenSize
    let table = weights("token_embd.weight")
    var residual = tokens.map { token in
      (0..<width).map {
        table[Int(token) * width + $0] * Double(configuration.embeddingScale)
      }
    }
    for (row, state) in states.enumerated() {
      let halves =
        norm(residual[row], "blk.0.nextn.enorm.weight") + norm(state, "blk.0.nextn.hnorm.weight")
      residual[row] = product("blk.0.nextn.eh_proj.weight", halves)
    }
    for layer in 0..<configuration.layerCount {
      let prefix = "blk.\(layer)."
      for (number, block) in configuration.layers[layer].blocks.enumerated() {
        let name = prefix + (number == 0 ? "attn_norm.weight" : "ffn_norm.weight")
        let inputs =
          block.preNorm == nil ? residual : residual.map { norm($0, name, block.preNorm ?? .rms) }
        let outputs = block.branches.map { branch in
          switch branch {
          case .attention(let spec): attention(spec, layer, inputs)
          case .scan(let spec): scan(spec, "blk.\(layer).", inputs)
          case .feedForward(let spec):
            inputs.map { feedForward(prefix, "", $0, isGated: spec.isGated) }
          case .experts(let spec): inputs.map { mixture(spec, prefix, $0) }
          }
        }
        let postNorm = number == 0 ? "post_attention_norm.weight" : "post_ffw_norm.weight"
        for row in residual.indices {
          var sum = outputs.dropFirst().reduce(outputs[0][row]) { zip($0, $1[row]).map(+) }
          if block.postNorm != nil { sum = norm(sum, prefix + postNorm) }
          residual[row] = zip(residual[row], sum).map { $0 + Double(block.scale) * $1 }
        }
      }
    }
    return residual.map { norm($0, "output_norm.weight", configuration.outputNorm) }
  }

  /// down · (activation(gate · x) ⊙ up · x), of all rows or of one expert's; without gate down · activation(up · x).
  private func feedForward(
    _ prefix: String, _ suffix: String, _ x: [Double], part: (index: Int, count: Int) = (0, 1),
    isGated: Bool = true
  ) -> [Double] {
    func project(_ name: String, _ x: [Double]) -> [Double] {
      let y = product("\(prefix)ffn_\(name)\(suffix).weight", x, part)
      guard let bias = tensor("\(prefix)ffn_\(name)\(suffix).bias") else { return y }
      return zip(y, bias[(part.index * y.count)...]).map(+)
    }
    let up = project("up", x)
    return project(
      "down", isGated ? zip(project("gate", x), up).map(gated) : up.map { gated($0, 1) })
  }

  /// Experts as they are chosen, the lower number first among equals, with their weights.
  func route(
    _ experts: ExpertConfiguration, _ prefix: String, _ x: [Double]
  ) -> [(expert: Int, weight: Double)] {
    var scores = product(prefix + "ffn_gate_inp.weight", x)
    if experts.routing.hasBias {
      scores = zip(scores, weights(prefix + "ffn_gate_inp.bias")).map(+)
    }
    let probabilities: [Double]
    switch experts.routing.score {
    case .softmax:
      let highest = scores.max()!
      let powers = scores.map { exp($0 - highest) }
      let sum = powers.reduce(0, +)
      probabilities = powers.map { $0 / sum }
    case .sigmoid: probabilities = scores.map { 1 / (1 + exp(-$0)) }
    }
    var keys = probabilities
    if experts.routing.hasSelectionBias {
      keys = zip(keys, weights(prefix + "exp_probs_b.bias")).map(+)
    }
    if let groups = experts.routing.groups {
      let length = keys.count / groups.count
      let sums = (0..<groups.count).map { group in
        keys[group * length..<(group + 1) * length].sorted(by: >).prefix(2).reduce(0, +)
      }
      let kept = sums.indices.sorted { (sums[$1], $0) < (sums[$0], $1) }.prefix(groups.usedCount)
      keys = keys.indices.map { kept.contains($0 / length) ? keys[$0] : -.infinity }
    }
    let order = keys.indices.sorted { (keys[$1], $0) < (keys[$0], $1) }
    let chosen = order.prefix(experts.expertsPerToken)
    let total =
      experts.normalisesWeights ? chosen.reduce(0) { $0 + probabilities[$1] } : 1
    return chosen.map { ($0, probabilities[$0] / total * Double(experts.routing.scale)) }
  }

  private func mixture(
    _ experts: ExpertConfiguration, _ prefix: String, _ x: [Double]
  ) -> [Double] {
    var sum = [Double](repeating: 0, count: x.count)
    for (expert, weight) in route(experts, prefix, x) {
      let output = feedForward(prefix, "_exps", x, part: (expert, experts.expertCount))
      for column in sum.indices { sum[column] += weight * output[column] }
    }
    guard experts.sharedFeedForwardLength != nil else { return sum }
    let gate =
      experts.gatesSharedExpert ? product(prefix + "ffn_gate_inp_shexp.weight", x)[0] : .infinity
    let shared = feedForward(prefix, "_shexp", x)
    return zip(sum, shared).map { $0 + $1 / (1 + exp(-gate)) }
  }

  private func attention(
    _ spec: AttentionSpec, _ layer: Int, _ inputs: [[Double]]
  ) -> [[Double]] {
    let prefix = "blk.\(layer)."
    let heads = spec.queryHeadCount ?? configuration.queryHeadCount
    let keyHeads = spec.keyValueHeadCount ?? configuration.keyValueHeadCount
    let length = configuration.headDim
    let valueLength = spec.valueLength ?? length
    func project(_ name: String, _ x: [Double]) -> [Double] {
      let y = product(prefix + name + ".weight", x)
      guard let bias = tensor(prefix + name + ".bias") else { return y }
      return zip(y, bias).map(+)
    }
    func prepared(_ name: String, _ count: Int, _ x: [Double], position: Int) -> [[Double]] {
      var y = project(name, x)
      if spec.headNorm == .projection { y = norm(y, prefix + name + "_norm.weight") }
      return (0..<count).map { head in
        var part = Array(y[head * length..<(head + 1) * length])
        if spec.headNorm == .heads { part = norm(part, prefix + name + "_norm.weight") }
        return spec.rope.map { rotate(part, position: position, $0) } ?? part
      }
    }
    let sinks = spec.hasSinks ? weights(prefix + "attn_sinks.weight") : nil
    // With gates, each head's rows are its query's and then its gate's.
    let both = spec.hasGate ? inputs.map { project("attn_q", $0) } : []
    let queries = inputs.enumerated().map { position, x in
      guard spec.hasGate else { return prepared("attn_q", heads, x, position: position) }
      return (0..<heads).map { head in
        var part = Array(both[position][2 * head * length..<(2 * head + 1) * length])
        if spec.headNorm == .heads { part = norm(part, prefix + "attn_q_norm.weight") }
        return spec.rope.map { rotate(part, position: position, $0) } ?? part
      }
    }
    let keys = inputs.enumerated().map { position, x in
      prepared("attn_k", keyHeads, x, position: position).map { $0.map(Self.roundedToHalf) }
    }
    let values = inputs.map { x in
      project("attn_v", x).map { Self.roundedToHalf(Double(spec.valueScale) * $0) }
    }
    return inputs.indices.map { position in
      var first = 0
      if let window = spec.window { first = max(0, position - window + 1) }
      var output: [Double] = []
      for head in 0..<heads {
        let keyHead = head / (heads / keyHeads)
        let scores = (first...position).map { past in
          zip(queries[position][head], keys[past][keyHead]).reduce(0) { $0 + $1.0 * $1.1 }
            * Double(configuration.attentionScale)
        }.map { capped($0, configuration.attentionSoftCap) }
        let sink = sinks?[head] ?? -.infinity
        let highest = max(scores.max()!, sink)
        let weights = scores.map { exp($0 - highest) }
        let total = weights.reduce(exp(sink - highest), +)
        for element in 0..<valueLength {
          var sum = 0.0
          for (index, weight) in weights.enumerated() {
            sum += weight * values[first + index][keyHead * valueLength + element]
          }
          let gate =
            spec.hasGate ? both[position][(2 * head + 1) * length + element] : .infinity
          output.append(sum / total / (1 + exp(-gate)))
        }
      }
      return project("attn_output", output)
    }
  }

  private func rotate(
    _ head: [Double], position: Int, _ table: AttentionSpec.RopeTable
  ) -> [Double] {
    let count = configuration.ropeDimensionCount
    let slidingBase = table == .sliding ? configuration.slidingRopeBase : nil
    let base = slidingBase ?? configuration.ropeBase
    let scale = slidingBase == nil ? configuration.ropeLinearScale : 1
    let factors =
      slidingBase == nil
      ? tensor(configuration.ropeFactorsName(contextLength: contextLength)) : nil
    var result = head
    for pair in 0..<count / 2 {
      let frequency = pow(base, -2 * Double(pair) / Double(count)) / (factors?[pair] ?? 1) / scale
      let angle = Double(position) * frequency
      let (i, j) =
        configuration.ropePairing == .adjacent ? (2 * pair, 2 * pair + 1) : (pair, pair + count / 2)
      let magnitude = slidingBase == nil ? Double(configuration.ropeMagnitude) : 1
      result[i] = magnitude * (head[i] * cos(angle) - head[j] * sin(angle))
      result[j] = magnitude * (head[i] * sin(angle) + head[j] * cos(angle))
    }
    return result
  }

  private func capped(_ x: Double, _ cap: Float?) -> Double {
    guard let cap = cap.map(Double.init) else { return x }
    return cap * tanh(x / cap)
  }

  private func gated(_ x: Double, _ y: Double) -> Double {
    switch configuration.activation {
    case .silu: x / (1 + exp(-x)) * y
    case .geluTanh:
      0.5 * x * (1 + tanh((2 / Double.pi).squareRoot() * (x + 0.044715 * x * x * x))) * y
    case .relu: max(0, x) * y
    case .reluSquared: max(0, x) * max(0, x) * y
    case .clampedSwiGLU:
      min(x, 7) / (1 + exp(-1.702 * min(x, 7))) * (max(-7, min(y, 7)) + 1)
    }
  }

  func norm(_ x: [Double], _ name: String, _ kind: NormKind = .rms) -> [Double] {
    let centre = kind == .layer ? x.reduce(0, +) / Double(x.count) : 0
    let x = x.map { $0 - centre }
    let mean = x.reduce(0) { $0 + $1 * $1 } / Double(x.count)
    let factor = 1 / (mean + Double(configuration.normEpsilon)).squareRoot()
    let y = zip(x, weights(name)).map { $0 * factor * $1 }
    guard kind == .layer else { return y }
    return zip(y, weights(name.replacingSuffix(".weight", ".bias"))).map(+)
  }

  /// Products of x with a matrix's rows, or with those of one of the parts that are stacked in it.
  func product(
    _ name: String, _ x: [Double], _ part: (index: Int, count: Int) = (0, 1)
  ) -> [Double] {
    let matrix = weights(name)
    let rowCount = matrix.count / x.count / part.count
    let factor = tensor(name.replacingSuffix(".weight", ".scale"))?[part.index] ?? 1
    return (part.index * rowCount..<(part.index + 1) * rowCount).map { row in
      var sum = 0.0
      for column in x.indices { sum += matrix[row * x.count + column] * x[column] }
      return sum * factor
    }
  }

  func weights(_ name: String) -> [Double] {
    guard let values = tensor(name) else { fatalError("the test model lacks \(name)") }
    return values
  }

  private static func roundedToHalf(_ x: Double) -> Double { Double(Float16(Float(x))) }
}

extension String {
  fileprivate func replacingSuffix(_ suffix: String, _ other: String) -> String {
    hasSuffix(suffix) ? dropLast(suffix.count) + other : self
  }
}

extension NaiveDecoder {
  /// A reference for the model at `path`, weights dequantised; stacked experts one after the other.
  static func reading(_ path: String) throws -> NaiveDecoder {
    try reading(ModelSource.open(path))
  }

  /// As ``reading(_:)``, of an open model.
  static func reading(_ source: ModelSource) throws -> NaiveDecoder {
    var weights: [String: [Double]] = [:]
    let tensors = source.description.tensors
    let stored = tensors.indices.filter { source.description.derivations[tensors[$0].name] == nil }
    try source.readTensors(stored) { index, address in
      let tensor = tensors[stored[index]]
      var values: [Double] = []
      for number in 0..<(tensor.stack?.count ?? 1) {
        values += rows(
          of: tensor.part(number), address + number * (tensor.stack?.byteStride ?? 0))
      }
      weights[tensor.name] = values
    }
    for case (let name, .values(let values)) in source.description.derivations {
      weights[name] = values.map(Double.init)
    }
    let configuration = try #require(source.description.configuration)
    return NaiveDecoder(configuration: configuration) { weights[$0] }
  }

  private static func rows(of tensor: TensorRecord, _ address: UnsafeRawPointer) -> [Double] {
    var values: [Double] = []
    var row = [Float](repeating: 0, count: tensor.columnCount)
    let groupByteCount = RowGroup.byteCount(tensor.type, columnCount: tensor.columnCount)
    for number in 0..<tensor.rowCount {
      row.withUnsafeMutableBufferPointer {
        switch tensor.layout {
        case .rowMajor:
          Dequantisation.row(
            address + number * (tensor.byteCount / tensor.rowCount), type: tensor.type,
            columnCount: tensor.columnCount, into: $0.baseAddress!)
        case .interleaved:
          Dequantisation.row(
            inGroup: address + number / 16 * groupByteCount, row: number % 16, type: tensor.type,
            columnCount: tensor.columnCount, into: $0.baseAddress!)
        }
      }
      values += row.map(Double.init)
    }
    return values
  }
}
