import Glibc
import Runtime
import TensorBasics

/// What `Sampler` computes, by sorting, with the C library's functions.
struct NaiveSampler {
  let options: SamplingOptions

  /// The tokens that are left, best first.
  func kept(_ logits: [Float]) -> [Int] {
    var order = logits.indices.filter { logits[$0] > -.infinity }.sorted {
      logits[$0] > logits[$1] || (logits[$0] == logits[$1] && $0 < $1)
    }
    guard let best = order.first else { return [] }
    if options.topK > 0 { order = Array(order.prefix(options.topK)) }
    func gap(_ token: Int) -> Double { Double(logits[token]) - Double(logits[best]) }
    if options.topP < 1 {
      let total = order.reduce(0) { $0 + exp(gap($1)) }
      var sum = 0.0
      let end = order.firstIndex { token in
        sum += exp(gap(token))
        return sum >= Double(options.topP) * total
      }
      if let end { order = Array(order[...end]) }
    }
    return options.minP > 0 ? order.filter { gap($0) >= log(Double(options.minP)) } : order
  }

  /// Softmax at the temperature over what is left [vocabularyCount].
  func probabilities(_ logits: [Float]) -> [Double] {
    var result = [Double](repeating: 0, count: logits.count)
    for token in kept(logits) {
      result[token] = exp(Double(logits[token]) / Double(options.temperature))
    }
    let total = result.reduce(0, +)
    return result.map { $0 / total }
  }

  func draw(_ logits: [Float], position: Int) -> Int32 {
    let noise = GumbelNoise(seed: options.seed, stream: options.stream, position: position)
    var (chosen, best) = (Int32(0), -Double.infinity)
    for token in kept(logits).sorted() {
      let perturbed = Double(logits[token]) / Double(options.temperature) + noise[Int32(token)]
      if perturbed > best { (chosen, best) = (Int32(token), perturbed) }
    }
    return chosen
  }
}
