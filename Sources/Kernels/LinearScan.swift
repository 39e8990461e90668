import CKernels

/// A head's linear attention with a state, token by token: S ← decay ∘ S, S ← S + k (β (v − Sᵀk))ᵀ, o = Sᵀq.
///
/// Lanes are value columns, keys ascend and tokens come in order, so the bits are the same on every instruction set and
/// however tokens are cut into calls; there is no form that takes tokens by chunks (`docs/decisions/0062`).
public struct LinearScan {
  public var keyCount: Int
  public var columnCount: Int
  /// Floats from a token's queries, or keys, to the next token's.
  public var keyStride: Int
  /// Floats from a token's values to the next token's.
  public var valueStride: Int
  public var decay: Decay
  /// Floats from a token's decays to the next token's.
  public var decayStride: Int
  /// Floats from a token's β to the next token's.
  public var betaStride: Int
  /// Whether what the state has for a key is taken from the value (delta rule).
  public var deletes: Bool

  public enum Decay: CaseIterable, Sendable {
    case none
    /// One number for the whole state.
    case scalar
    /// One for each key.
    case perKey
  }

  public init(
    keyCount: Int, columnCount: Int, keyStride: Int, valueStride: Int, decay: Decay,
    decayStride: Int, betaStride: Int, deletes: Bool
  ) {
    self.keyCount = keyCount
    self.columnCount = columnCount
    self.keyStride = keyStride
    self.valueStride = valueStride
    self.decay = decay
    self.decayStride = decayStride
    self.betaStride = betaStride
    self.deletes = deletes
  }

  /// Floats of a head's state, which begins at a multiple of 64 bytes and as zeros.
  public static func stateCount(keyCount: Int, columnCount: Int) -> Int {
    let lanes = Int(CK_SCAN_LANES)
    return (columnCount + lanes - 1) / lanes * lanes * keyCount
  }

  /// - Parameters:
  ///   - state: [``stateCount(keyCount:columnCount:)``], carried on.
  ///   - queries: of the first token, [keyCount], as `keys`.
  ///   - values: of the first token, [columnCount]; outputs take their place.
  ///   - decays: of the first token, as ``decay`` says.
  ///   - betas: of the first token, one number each; nil = 1.
  public func run(
    state: UnsafeMutablePointer<Float>, queries: UnsafePointer<Float>,
    keys: UnsafePointer<Float>, values: UnsafeMutablePointer<Float>,
    decays: UnsafePointer<Float>?, betas: UnsafePointer<Float>?, tokenCount: Int,
    instructionSet: InstructionSet? = nil
  ) {
    precondition((decay == .none) == (decays == nil), "decays are given where there are some")
    var arguments = ck_scan_arguments(
      state: state, queries: queries, keys: keys, key_stride: keyStride, values: values,
      value_stride: valueStride, decays: decays, decay_stride: decayStride,
      decays_keys: decay == .perKey ? 1 : 0, betas: betas, beta_stride: betaStride,
      deletes: deletes ? 1 : 0, key_count: keyCount, column_count: columnCount,
      token_count: tokenCount)
    KernelTable.of(instructionSet).pointee.scan(&arguments)
  }
}

/// A causal convolution over the last positions, each channel by itself.
public struct ShortConvolution {
  /// Positions that a token sees, its own included.
  public var tapCount: Int
  /// Floats from a token's channels to the next token's.
  public var stride: Int
  /// Floats from one row of the history to the next.
  public var historyStride: Int
  /// Whether SiLU follows.
  public var activates: Bool

  /// Most taps.
  public static let tapLimit = Int(CK_TAP_LIMIT)

  public init(tapCount: Int, stride: Int, historyStride: Int, activates: Bool) {
    precondition((1...Self.tapLimit).contains(tapCount), "\(tapCount) taps")
    self.tapCount = tapCount
    self.stride = stride
    self.historyStride = historyStride
    self.activates = activates
  }

  /// Convolves some channels in place.
  ///
  /// - Parameters:
  ///   - values: of the first token and channel.
  ///   - weights: [channelCount, tapCount], the oldest position's first.
  ///   - bias: [channelCount]; nil = none.
  ///   - history: what came before the first token, [tapCount − 1, channelCount], the oldest first; carried on.
  public func run(
    _ values: UnsafeMutablePointer<Float>, weights: UnsafePointer<Float>,
    bias: UnsafePointer<Float>?, history: UnsafeMutablePointer<Float>, channelCount: Int,
    tokenCount: Int, instructionSet: InstructionSet? = nil
  ) {
    var arguments = ck_convolution_arguments(
      values: values, stride: stride, weights: weights, bias: bias, history: history,
      history_stride: historyStride, tap_count: tapCount, channel_count: channelCount,
      token_count: tokenCount, activates: activates ? 1 : 0)
    KernelTable.of(instructionSet).pointee.convolve(&arguments)
  }
}
