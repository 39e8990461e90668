/// A product's matrix and what is added to it.
///
/// Where a file holds several matrices in one tensor, each is a record of some of the tensor's rows
/// (`FusedTensors`), so that a projection is always a record by itself.
public struct Projection: Sendable {
  public let weight: TensorSpec
  public let bias: TensorSpec?

  /// - Parameter name: without its ending.
  init(_ name: String, columns: Int, rows: Int, hasBias: Bool = false) {
    weight = .product(name + ".weight", columns: columns, rows: rows)
    bias = hasBias ? .vector(name + ".bias", rows) : nil
  }

  var all: [TensorSpec] { [weight] + [bias].compactMap { $0 } }
}

/// A norm's tensors.
public struct NormTensors: Sendable {
  public let kind: NormKind
  public let weight: TensorSpec
  public let bias: TensorSpec?

  init(_ kind: NormKind, _ name: String, count: Int) {
    self.kind = kind
    weight = .vector(name + ".weight", count)
    bias = kind == .layer ? .vector(name + ".bias", count) : nil
  }

  var all: [TensorSpec] { [weight] + [bias].compactMap { $0 } }
}

/// The tensors of one block by their places in it: what files are checked against, sweeps are ordered by, and the
/// forward pass looks up once.
public struct BlockTensors: Sendable {
  public let preNorm: NormTensors?
  public let branches: [Branch]
  public let postNorm: NormTensors?
  public let scale: Float
  /// As `BlockSpec.residualScale`.
  public let residualScale: Float?

  public enum Branch: Sendable {
    case attention(AttentionTensors)
    case scan(ScanTensors)
    case feedForward(GatedTensors)
    case experts(ExpertTensors)
    case neurons(NeuronTensors)
  }

  public struct AttentionTensors: Sendable {
    public let spec: AttentionSpec
    public let query: Projection
    public let key: Projection
    public let value: Projection
    public let queryNorm: TensorSpec?
    public let keyNorm: TensorSpec?
    public let sinks: TensorSpec?
    public let output: Projection
  }

  public struct ScanTensors: Sendable {
    public let spec: ScanSpec
    /// All inputs, or queries, keys and values, or queries, as `ScanSpec.inputs` says.
    public let input: Projection
    /// Keys and values, where they have matrices of their own.
    public let key: Projection?
    public let value: Projection?
    /// z, where it has a matrix of its own.
    public let gate: Projection?
    /// What β comes from, and α unless that has a matrix of its own; nil where the input has it.
    public let beta: Projection?
    public let alpha: Projection?
    /// All channels' taps one after the other; nil where nothing is convolved.
    public let taps: TensorSpec?
    public let tapBias: TensorSpec?
    /// What share of a value is added to the output of its head; nil = none.
    public let skip: TensorSpec?
    /// What α is multiplied by to be a number for each key, row by row.
    public let decayFactor: TensorSpec?
    /// nil where decays depend on no token.
    public let timeBias: TensorSpec?
    /// nil of a convolution alone, and where each key has its decay.
    public let decay: TensorSpec?
    public let norm: TensorSpec?
    public let output: Projection

    /// Vectors first.
    var all: [TensorSpec] {
      [taps, tapBias, decayFactor, timeBias, decay, skip, norm].compactMap { $0 }
        + products + [input.bias, output.bias].compactMap { $0 }
    }

    /// In the order of use.
    package var products: [TensorSpec] {
      [input, key, value, gate, beta, alpha, output].compactMap { $0?.weight }
    }
  }

  public struct GatedTensors: Sendable {
    public let gate: Projection?
    public let up: Projection
    public let down: Projection

    /// Biases come last.
    var all: [TensorSpec] {
      [gate?.weight, up.weight, down.weight, up.bias, down.bias].compactMap { $0 }
    }
  }

  public struct ExpertTensors: Sendable {
    public let spec: ExpertConfiguration
    public let router: Projection
    public let selectionBias: TensorSpec?
    public let sharedGate: TensorSpec?
    public let shared: GatedTensors?
    /// Of gate, up and down, all experts' one after the other; empty where there are none.
    public let biases: [TensorSpec]
    /// What lies together in an expert's bundle: gate, up, down.
    public let parts: [TensorSpec]
  }

  public struct NeuronTensors: Sendable {
    public let predictor: Predictor?
    /// What decides which neurons are active.
    public let deciding: Projection
    public let upBias: TensorSpec?
    public let downBias: TensorSpec?

    public struct Predictor: Sendable {
      public let down: TensorSpec
      public let up: TensorSpec
      public let bias: TensorSpec
    }
  }

  /// In the order a token meets them.
  var all: [TensorSpec] {
    (preNorm?.all ?? []) + branches.flatMap(\.all) + (postNorm?.all ?? [])
  }
}

extension BlockTensors.Branch {
  var all: [TensorSpec] {
    switch self {
    case .attention(let tensors):
      tensors.query.all + tensors.key.all + tensors.value.all
        + [tensors.queryNorm, tensors.keyNorm, tensors.sinks].compactMap { $0 }
        + tensors.output.all
    case .scan(let tensors): tensors.all
    case .feedForward(let tensors): tensors.all
    case .experts(let tensors):
      tensors.router.all + [tensors.selectionBias, tensors.sharedGate].compactMap { $0 }
        + (tensors.shared?.all ?? []) + tensors.biases + tensors.parts
    case .neurons(let tensors):
      (tensors.predictor.map { [$0.down, $0.up, $0.bias] } ?? [])
        + [tensors.deciding.weight, tensors.upBias, tensors.downBias].compactMap { $0 }
    }
  }
}

extension DecoderConfiguration {
  /// The norm in front of the output head.
  public var outputNormTensors: NormTensors {
    NormTensors(outputNorm, "output_norm", count: hiddenSize)
  }

  /// The tensors of a layer, block by block.
  ///
  /// - Parameter neurons: bundles that its FFN is in, valid ones; nil = it is not.
  public func blockTensors(ofLayer layer: Int, neurons: NeuronLayout?) -> [BlockTensors] {
    let prefix = "blk.\(layer)."
    return layers[layer].blocks.enumerated().map { number, block in
      let isFirst = number == 0
      return BlockTensors(
        preNorm: block.preNorm.map {
          NormTensors($0, prefix + (isFirst ? "attn_norm" : "ffn_norm"), count: hiddenSize)
        },
        branches: block.branches.map { branch in
          switch branch {
          case .attention(let spec): .attention(attentionTensors(spec, prefix))
          case .scan(let spec): .scan(scanTensors(spec, prefix))
          case .experts(let spec): .experts(expertTensors(spec, prefix))
          case .feedForward(let spec):
            if let neurons {
              .neurons(neuronTensors(spec, prefix, rank: neurons.predictor?.ranks[layer]))
            } else {
              .feedForward(
                gatedTensors(
                  prefix, "", length: length(of: spec), isGated: spec.isGated,
                  hasBiases: spec.hasBiases))
            }
          }
        },
        postNorm: block.postNorm.map {
          NormTensors(
            $0, prefix + (isFirst ? "post_attention_norm" : "post_ffw_norm"), count: hiddenSize)
        }, scale: block.scale, residualScale: block.residualScale)
    }
  }

  private func attentionTensors(
    _ spec: AttentionSpec, _ prefix: String
  ) -> BlockTensors.AttentionTensors {
    let heads = heads(of: spec)
    func input(_ name: String, _ rows: Int) -> Projection {
      Projection(prefix + name, columns: hiddenSize, rows: rows, hasBias: spec.hasBiases)
    }
    func norm(_ name: String, _ length: Int) -> TensorSpec? {
      spec.headNorm.map { .vector("\(prefix)\(name).weight", $0 == .heads ? headDim : length) }
    }
    return BlockTensors.AttentionTensors(
      spec: spec,
      query: input("attn_q", spec.hasGate ? 2 * heads.queryLength : heads.queryLength),
      key: input("attn_k", heads.keyLength), value: input("attn_v", heads.valuesLength),
      queryNorm: norm("attn_q_norm", heads.queryLength),
      keyNorm: norm("attn_k_norm", heads.keyLength),
      sinks: spec.hasSinks ? .vector("\(prefix)attn_sinks.weight", heads.queryHeadCount) : nil,
      output: Projection(
        prefix + "attn_output", columns: heads.outputLength, rows: hiddenSize,
        hasBias: spec.hasOutputBias))
  }

  private func scanTensors(_ spec: ScanSpec, _ prefix: String) -> BlockTensors.ScanTensors {
    func input(_ name: String, _ rows: Int) -> Projection {
      Projection(prefix + name, columns: hiddenSize, rows: rows)
    }
    func numbers(_ name: String) -> TensorSpec? {
      spec.scans ? .vector(prefix + name, spec.valueHeadCount) : nil
    }
    if spec.inputs == .gatedLinear || spec.inputs == .taylor {
      return linearTensors(spec, prefix)
    }
    let isMamba = spec.inputs == .mamba2
    let isLightning = spec.inputs == .lightning
    let hasBeta = !isMamba && !isLightning && spec.scans
    let isApart = spec.inputs == .apart
    let isWhole = spec.inputs == .byKeyHead || !hasBeta && !isLightning
    return BlockTensors.ScanTensors(
      spec: spec,
      input: Projection(
        prefix + (isWhole ? "ssm_in" : "attn_qkv"), columns: hiddenSize, rows: spec.inputRowCount,
        hasBias: spec.inputs == .activatedConvolution), key: nil, value: nil,
      gate: isWhole ? nil : input("attn_gate", spec.valuesLength),
      beta: !hasBeta
        ? nil
        : isApart
          ? input("ssm_beta", spec.valueHeadCount) : input("ssm_ba", 2 * spec.valueHeadCount),
      alpha: isApart ? input("ssm_alpha", spec.valueHeadCount) : nil,
      taps: .vector(prefix + "ssm_conv1d.weight", spec.channelCount * spec.tapCount),
      tapBias: spec.hasTapBias ? .vector(prefix + "ssm_conv1d.bias", spec.channelCount) : nil,
      skip: isMamba ? numbers("ssm_d") : nil, decayFactor: nil,
      timeBias: isLightning ? nil : numbers("ssm_dt.bias"),
      decay: numbers("ssm_a"),
      norm: spec.hasNorm && spec.scans
        ? .vector(
          prefix + "ssm_norm.weight",
          isMamba || isLightning ? spec.valuesLength : spec.valueLength)
        : nil,
      output: Projection(
        prefix + "ssm_out", columns: spec.valuesLength, rows: hiddenSize,
        hasBias: spec.inputs == .activatedConvolution))
  }

  /// Of linear attention without a convolution.
  private func linearTensors(
    _ spec: ScanSpec, _ prefix: String
  ) -> BlockTensors.ScanTensors {
    func input(_ name: String, _ rows: Int) -> Projection {
      Projection(prefix + name, columns: hiddenSize, rows: rows)
    }
    let isGated = spec.inputs == .gatedLinear
    func vector(_ name: String, _ count: Int) -> TensorSpec? {
      isGated ? .vector(prefix + name, count) : nil
    }
    return BlockTensors.ScanTensors(
      spec: spec, input: input("attn_q", spec.keysLength), key: input("attn_k", spec.keysLength),
      value: input("attn_v", spec.valuesLength),
      gate: isGated ? input("attn_gate", spec.valuesLength) : nil, beta: nil,
      alpha: isGated ? input("ssm_f_a", ScanSpec.decayRank) : nil, taps: nil, tapBias: nil,
      skip: nil, decayFactor: vector("ssm_f_b.weight", spec.keysLength * ScanSpec.decayRank),
      timeBias: vector("ssm_f_b.bias", spec.keysLength), decay: nil,
      norm: vector("ssm_norm.weight", spec.valueLength),
      output: Projection(prefix + "ssm_out", columns: spec.valuesLength, rows: hiddenSize))
  }

  private func gatedTensors(
    _ prefix: String, _ suffix: String, length: Int, isGated: Bool = true, hasBiases: Bool = false
  ) -> BlockTensors.GatedTensors {
    BlockTensors.GatedTensors(
      gate: isGated
        ? Projection("\(prefix)ffn_gate\(suffix)", columns: hiddenSize, rows: length) : nil,
      up: Projection(
        "\(prefix)ffn_up\(suffix)", columns: hiddenSize, rows: length, hasBias: hasBiases),
      down: Projection(
        "\(prefix)ffn_down\(suffix)", columns: length, rows: hiddenSize, hasBias: hasBiases))
  }

  private func expertTensors(
    _ spec: ExpertConfiguration, _ prefix: String
  ) -> BlockTensors.ExpertTensors {
    let (length, count) = (spec.feedForwardLength, spec.expertCount)
    let gate = "\(prefix)ffn_gate_inp_shexp.weight"
    let rowCounts = [("gate", length), ("up", length), ("down", hiddenSize)]
    return BlockTensors.ExpertTensors(
      spec: spec,
      router: Projection(
        "\(prefix)ffn_gate_inp", columns: hiddenSize, rows: count, hasBias: spec.routing.hasBias),
      selectionBias: spec.routing.hasSelectionBias
        ? .vector("\(prefix)exp_probs_b.bias", count) : nil,
      sharedGate: spec.gatesSharedExpert ? .vector(gate, hiddenSize) : nil,
      shared: spec.sharedFeedForwardLength.map { gatedTensors(prefix, "_shexp", length: $0) },
      biases: spec.hasBiases
        ? rowCounts.map { .vector("\(prefix)ffn_\($0.0)_exps.bias", count * $0.1) } : [],
      parts: [
        .experts("\(prefix)ffn_gate_exps.weight", columns: hiddenSize, rows: length, count: count),
        .experts("\(prefix)ffn_up_exps.weight", columns: hiddenSize, rows: length, count: count),
        .experts("\(prefix)ffn_down_exps.weight", columns: length, rows: hiddenSize, count: count),
      ])
  }

  private func neuronTensors(
    _ spec: FeedForwardSpec, _ prefix: String, rank: Int?
  ) -> BlockTensors.NeuronTensors {
    BlockTensors.NeuronTensors(
      predictor: rank.map {
        BlockTensors.NeuronTensors.Predictor(
          down: .product("\(prefix)ffn_predictor_a.weight", columns: hiddenSize, rows: $0),
          up: .product("\(prefix)ffn_predictor_b.weight", columns: $0, rows: feedForwardLength),
          bias: .vector("\(prefix)ffn_predictor.bias", feedForwardLength))
      },
      deciding: Projection("\(prefix)ffn_select", columns: hiddenSize, rows: feedForwardLength),
      upBias: spec.hasBiases ? .vector("\(prefix)ffn_up.bias", feedForwardLength) : nil,
      downBias: spec.hasBiases ? .vector("\(prefix)ffn_down.bias", hiddenSize) : nil)
  }
}
