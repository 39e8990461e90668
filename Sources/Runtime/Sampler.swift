import Kernels
import TensorBasics

/// Chooses tokens: the same one whenever logits, path, position and options are the same.
///
/// Nothing advances from one draw to the next: calls may come in any order, for any sequences. The stages, in this
/// order (`docs/decisions/0042-keyed-sampling.md`):
///
/// 1. repetition penalty on the tokens at the path's end, each once;
/// 2. top-k, 3. top-p among those, 4. min-p, all by probabilities at temperature 1;
/// 5. the highest logit ÷ temperature + noise, in f64, the lowest id on a tie.
///
/// At temperature 0 the penalty alone matters. Logits are finite, or −∞ for tokens that must not be drawn (sessions
/// give no others); NaN counts as −∞, and where no token is left, the answer is 0.
///
/// Allocates nothing after its creation, unless it is given more logits than it was created for. Copies share scratch memory until they draw, so threads have one each.
public struct Sampler {
  /// Those of every draw, or of the current one.
  private var options: SamplingOptions
  /// Logits after the penalty [vocabularyCount, or more]; empty where there is none.
  private var penalised: [Float]
  private var candidates: CandidateList

  public init(options: SamplingOptions, vocabularyCount: Int) {
    self.options = options
    penalised = Array(
      repeating: 0, count: options.repetitionPenalty == 1 ? 0 : vocabularyCount)
    candidates = CandidateList(vocabularyCount: options.temperature > 0 ? vocabularyCount : 0)
  }

  /// Draws with the options of each draw.
  init(forAnyOptionsOf vocabularyCount: Int) {
    options = SamplingOptions()
    penalised = Array(repeating: 0, count: vocabularyCount)
    candidates = CandidateList(vocabularyCount: vocabularyCount)
  }

  /// Chooses a token, as ``draw(_:history:position:)``, with other options than those of the sampler.
  mutating func draw(
    _ logits: UnsafeBufferPointer<Float>, _ options: SamplingOptions, path: [Int32]
  ) -> Int32 {
    self.options = options
    return draw(logits.span, history: path.span, position: path.count)
  }

  /// Scratch memory of a sampler, at most: part of ``MemoryPlan/Request/callerByteCount``.
  public static func byteCount(vocabularyCount: Int) -> Int {
    4 * vocabularyCount + CandidateList.byteCount(vocabularyCount: vocabularyCount)
  }

  /// Chooses a token.
  ///
  /// - Parameters:
  ///   - logits: [vocabularyCount], not changed.
  ///   - history: the path before the token, or as much of its end as the repetition window holds.
  ///   - position: index of the token in the context, which is the length of the whole path.
  public mutating func draw(
    _ logits: Span<Float>, history: Span<Int32>, position: Int
  ) -> Int32 {
    logits.withUnsafeBufferPointer { logits in
      if options.temperature > 0, logits.count > candidates.capacity {
        candidates = CandidateList(vocabularyCount: logits.count)
      }
      guard options.repetitionPenalty != 1 else { return choose(logits, position) }
      if logits.count > penalised.count { penalised = Array(repeating: 0, count: logits.count) }
      return history.withUnsafeBufferPointer { history in
        penalise(logits, history)
        return penalised.withUnsafeBufferPointer {
          choose(UnsafeBufferPointer(rebasing: $0[..<logits.count]), position)
        }
      }
    }
  }

  /// The highest logit's token, the lowest id on a tie.
  public static func argmax(_ logits: Span<Float>) -> Int32 {
    logits.withUnsafeBufferPointer { Int32($0.indexOfHighest) }
  }

  private mutating func penalise(
    _ logits: UnsafeBufferPointer<Float>, _ history: UnsafeBufferPointer<Int32>
  ) {
    let penalty = options.repetitionPenalty
    penalised.withUnsafeMutableBufferPointer { penalised in
      _ = penalised.update(fromContentsOf: logits)
      for token in history.suffix(max(0, options.repetitionWindow)) {
        guard logits.indices.contains(Int(token)) else { continue }
        // From what it was: once, however often the token occurs.
        let logit = logits[Int(token)]
        penalised[Int(token)] = logit > 0 ? logit / penalty : logit * penalty
      }
    }
  }

  private mutating func choose(_ logits: UnsafeBufferPointer<Float>, _ position: Int) -> Int32 {
    let best = logits.indexOfHighest
    let highest = logits[best]
    guard options.temperature > 0, highest > -.infinity else { return Int32(best) }
    filter(logits, highest: highest)
    return candidates.withTokens { draw(among: $0, logits, first: Int32(best), position) }
  }

  private mutating func filter(_ logits: UnsafeBufferPointer<Float>, highest: Float) {
    let floor = options.minP > 0 ? Self.floor(minP: options.minP, highest: highest) : -.infinity
    if options.topK > 0, options.topK < logits.count {
      candidates.fill(best: options.topK, of: logits)
    } else {
      // Without top-p nothing depends on the tokens that min-p drops.
      candidates.fill(logits, from: options.topP < 1 ? -.infinity : floor)
    }
    if options.topP < 1 {
      candidates.keep(share: Double(options.topP), of: logits, highest: highest)
    }
    if floor > -.infinity { candidates.keep(from: floor, of: logits) }
  }

  /// The lowest logit of those with at least this share of the highest probability.
  private static func floor(minP: Float, highest: Float) -> Float {
    let exact = Double(highest) + CanonicalMath.log(Double(minP))
    let rounded = Float(exact)
    return Double(rounded) < exact ? rounded.nextUp : rounded
  }

  /// - Parameter first: a candidate that none precedes.
  private func draw(
    among tokens: UnsafeBufferPointer<Int32>, _ logits: UnsafeBufferPointer<Float>, first: Int32,
    _ position: Int
  ) -> Int32 {
    let noise = GumbelNoise(seed: options.seed, stream: options.stream, position: position)
    let temperature = Double(options.temperature)
    var chosen = first
    var best = Double(logits[Int(first)]) / temperature + noise[first]
    for token in tokens {
      let scaled = Double(logits[Int(token)]) / temperature
      // What cannot win costs no noise, or no logarithms.
      guard scaled + GumbelNoise.highest >= best else { continue }
      let bits = noise.bits(of: token)
      guard scaled + GumbelNoise.bound(bits) >= best else { continue }
      let perturbed = scaled + GumbelNoise.value(bits)
      guard perturbed > best || (perturbed == best && token < chosen) else { continue }
      (chosen, best) = (token, perturbed)
    }
    return chosen
  }
}

extension UnsafeBufferPointer<Float> {
  /// The lowest index of the highest value; 0 where all are −∞ or NaN.
  fileprivate var indexOfHighest: Int {
    baseAddress.map { VectorOps.indexOfHighest($0, count: count) } ?? 0
  }
}
