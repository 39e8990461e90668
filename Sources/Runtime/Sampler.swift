import Kernels
import TensorBasics

/// Chooses tokens: the same one whenever logits, path, position and options are the same.
///
/// Nothing advances from one draw to the next: calls may come in any order, for any sequences. The stages, in this
/// order (`docs/decisions/0042-keyed-sampling.md`):
///
/// 1. bias; repetition penalty on the tokens at the path's end, each once; presence and frequency penalty on those of the
///    answer; the mask of a grammar;
/// 2. top-k, 3. top-p among those, 4. min-p, all by probabilities at temperature 1;
/// 5. the highest logit ÷ temperature + noise, in f64, the lowest id on a tie.
///
/// At temperature 0 the first alone matters. Logits are finite, or −∞ for tokens that must not be drawn (sessions
/// give no others); NaN counts as −∞, and where no token is left, the answer is 0.
///
/// Allocates nothing after its creation, unless it is given more logits than it was created for. Copies share scratch memory until they draw, so threads have one each.
public struct Sampler {
  /// Those of every draw, or of the current one.
  private var options: SamplingOptions
  /// Logits after bias, penalties and mask [vocabularyCount, or more]; empty where there are none.
  private var changed: [Float]
  private var candidates: CandidateList

  public init(options: SamplingOptions, vocabularyCount: Int) {
    self.options = options
    changed = Array(repeating: 0, count: options.changesLogits ? vocabularyCount : 0)
    let needsList = options.temperature > 0 || options.changesLogits
    candidates = CandidateList(vocabularyCount: needsList ? vocabularyCount : 0)
  }

  /// Draws with the options of each draw.
  init(forAnyOptionsOf vocabularyCount: Int) {
    options = SamplingOptions()
    changed = Array(repeating: 0, count: vocabularyCount)
    candidates = CandidateList(vocabularyCount: vocabularyCount)
  }

  /// Chooses a token, as ``draw(_:history:position:answerStart:)``, with other options than those of the sampler.
  ///
  /// - Parameter mask: bit i of its words is whether token i may be drawn; nil = all.
  mutating func draw(
    _ logits: UnsafeBufferPointer<Float>, _ options: SamplingOptions, path: [Int32],
    answerStart: Int, mask: UnsafePointer<UInt64>?
  ) -> Int32 {
    self.options = options
    return path.withUnsafeBufferPointer { path in
      draw(logits, path, position: path.count, answerStart: answerStart, mask)
    }
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
  ///   - answerStart: where the answer begins in `history`.
  public mutating func draw(
    _ logits: Span<Float>, history: Span<Int32>, position: Int, answerStart: Int = 0
  ) -> Int32 {
    logits.withUnsafeBufferPointer { logits in
      history.withUnsafeBufferPointer { history in
        draw(logits, history, position: position, answerStart: answerStart, nil)
      }
    }
  }

  private mutating func draw(
    _ logits: UnsafeBufferPointer<Float>, _ history: UnsafeBufferPointer<Int32>, position: Int,
    answerStart: Int, _ mask: UnsafePointer<UInt64>?
  ) -> Int32 {
    let changesLogits = options.changesLogits || mask != nil
    if options.temperature > 0 || changesLogits, logits.count > candidates.capacity {
      candidates = CandidateList(vocabularyCount: logits.count)
    }
    guard changesLogits else { return choose(logits, position) }
    if logits.count > changed.count { changed = Array(repeating: 0, count: logits.count) }
    Self.change(
      logits, into: &changed, options, history, answerStart: answerStart, mask,
      scratch: &candidates)
    return changed.withUnsafeBufferPointer {
      choose(UnsafeBufferPointer(rebasing: $0[..<logits.count]), position)
    }
  }

  /// The highest logit's token, the lowest id on a tie.
  public static func argmax(_ logits: Span<Float>) -> Int32 {
    logits.withUnsafeBufferPointer { Int32($0.indexOfHighest) }
  }

  /// Stage 1, on a copy of the logits.
  ///
  /// - Parameter scratch: what is filled in later.
  private static func change(
    _ source: UnsafeBufferPointer<Float>, into changed: inout [Float], _ options: SamplingOptions,
    _ history: UnsafeBufferPointer<Int32>, answerStart: Int, _ mask: UnsafePointer<UInt64>?,
    scratch: inout CandidateList
  ) {
    changed.withUnsafeMutableBufferPointer { changed in
      let logits = UnsafeMutableBufferPointer(rebasing: changed[..<source.count])
      _ = logits.update(fromContentsOf: source)
      change(
        logits, options, history, answerStart: answerStart, mask, scratch: &scratch)
    }
  }

  private static func change(
    _ logits: UnsafeMutableBufferPointer<Float>, _ options: SamplingOptions,
    _ history: UnsafeBufferPointer<Int32>, answerStart: Int, _ mask: UnsafePointer<UInt64>?,
    scratch: inout CandidateList
  ) {
    for bias in options.logitBias where logits.indices.contains(Int(bias.token)) {
      logits[Int(bias.token)] += bias.bias
    }
    let penalty = options.repetitionPenalty
    if penalty != 1 {
      let recent = history.suffix(max(0, options.repetitionWindow))
      scratch.forEachToken(of: recent, below: logits.count) { token, _ in
        let logit = logits[token]
        logits[token] = logit > 0 ? logit / penalty : logit * penalty
      }
    }
    if options.presencePenalty != 0 || options.frequencyPenalty != 0 {
      let answer = history[min(answerStart, history.count)...]
      scratch.forEachToken(of: answer, below: logits.count) { token, count in
        logits[token] -= options.presencePenalty + options.frequencyPenalty * Float(count)
      }
    }
    if let mask { apply(mask, to: logits) }
  }

  /// Makes the logits of tokens that may not be drawn −∞.
  private static func apply(
    _ mask: UnsafePointer<UInt64>, to logits: UnsafeMutableBufferPointer<Float>
  ) {
    for first in stride(from: 0, to: logits.count, by: 64) {
      let word = mask[first >> 6]
      guard word != .max else { continue }
      for token in first..<min(first + 64, logits.count)
      where word >> UInt64(token & 63) & 1 == 0 { logits[token] = -.infinity }
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
