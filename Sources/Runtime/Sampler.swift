import Glibc
import TensorBasics

/// How the next token is chosen from logits.
public struct SamplingOptions: Sendable {
  /// 0 = greedy: the highest logit, the lowest id on a tie.
  public var temperature: Float
  /// Keep the k highest logits; 0 = all.
  public var topK: Int
  /// Keep the smallest set of highest probabilities whose sum reaches this; 1 = all.
  public var topP: Float
  /// Keep tokens with at least this share of the highest probability; 0 = all.
  public var minP: Float
  /// Divides positive and multiplies negative logits of recent tokens (arXiv:1909.05858 §4.1);
  /// 1 = off.
  public var repetitionPenalty: Float
  /// How many of the latest tokens count as recent.
  public var repetitionWindow: Int
  /// Seed of `SeededGenerator`.
  public var seed: UInt64

  public init(
    temperature: Float = 0.7, topK: Int = 40, topP: Float = 0.95, minP: Float = 0.05,
    repetitionPenalty: Float = 1, repetitionWindow: Int = 64, seed: UInt64 = 0
  ) {
    self.temperature = temperature
    self.topK = topK
    self.topP = topP
    self.minP = minP
    self.repetitionPenalty = repetitionPenalty
    self.repetitionWindow = repetitionWindow
    self.seed = seed
  }
}

/// Draws tokens from logits; allocates nothing after its creation.
///
/// Order: repetition penalty, top-k, top-p, min-p, temperature. Candidates are ordered by logit
/// descending, then id ascending, so equal seeds give equal tokens.
public struct Sampler {
  private struct Candidate {
    var logit: Float
    var token: Int32

    /// Whether this one is preferred to `other`.
    func precedes(_ other: Candidate) -> Bool {
      logit > other.logit || (logit == other.logit && token < other.token)
    }
  }

  private let options: SamplingOptions
  private var generator: SeededGenerator
  /// The best candidates: a heap with the worst on top, then sorted best first.
  private var candidates: [Candidate]
  private var weights: [Double]
  private var recent: [Int32]
  private var recentCount = 0

  public init(options: SamplingOptions, vocabularyCount: Int) {
    self.options = options
    generator = SeededGenerator(seed: options.seed)
    let kept = options.topK > 0 ? min(options.topK, vocabularyCount) : vocabularyCount
    let capacity = options.temperature <= 0 ? 0 : kept
    candidates = Array(repeating: Candidate(logit: 0, token: 0), count: capacity)
    weights = Array(repeating: 0, count: capacity)
    recent = Array(repeating: -1, count: max(0, options.repetitionWindow))
  }

  /// Notes a token of the prompt or the answer for the repetition penalty.
  public mutating func observe(_ token: Int32) {
    guard !recent.isEmpty else { return }
    recent[recentCount % recent.count] = token
    recentCount += 1
  }

  /// Chooses the next token; `logits` [vocabularyCount] may be changed.
  public mutating func sample(_ logits: UnsafeMutableBufferPointer<Float>) -> Int32 {
    penaliseRepetition(logits)
    guard options.temperature > 0 else { return Self.argmax(UnsafeBufferPointer(logits)) }
    let kept = selectCandidates(UnsafeBufferPointer(logits))
    return draw(among: truncate(kept))
  }

  /// The highest logit's token, the lowest id on a tie.
  public static func argmax(_ logits: UnsafeBufferPointer<Float>) -> Int32 {
    var best = 0
    for token in logits.indices where logits[token] > logits[best] { best = token }
    return Int32(best)
  }

  private func penaliseRepetition(_ logits: UnsafeMutableBufferPointer<Float>) {
    let penalty = options.repetitionPenalty
    guard penalty != 1 else { return }
    let count = min(recentCount, recent.count)
    for index in 0..<count {
      let token = recent[index]
      // Each token once, however often it occurred.
      guard !recent[..<index].contains(token), logits.indices.contains(Int(token)) else { continue }
      let logit = logits[Int(token)]
      logits[Int(token)] = logit > 0 ? logit / penalty : logit * penalty
    }
  }

  /// Fills `candidates` with the best tokens, best first, and returns how many there are.
  private mutating func selectCandidates(_ logits: UnsafeBufferPointer<Float>) -> Int {
    let capacity = candidates.count
    var count = 0
    for token in logits.indices {
      let candidate = Candidate(logit: logits[token], token: Int32(token))
      if count < capacity {
        candidates[count] = candidate
        count += 1
        if count == capacity { buildHeap(count) }
      } else if candidate.precedes(candidates[0]) {
        candidates[0] = candidate
        siftDown(0, count)
      }
    }
    // Heapsort: the worst moves to the end until the best is first.
    var end = count
    while end > 1 {
      end -= 1
      candidates.swapAt(0, end)
      siftDown(0, end)
    }
    return count
  }

  private mutating func buildHeap(_ count: Int) {
    for root in stride(from: count / 2 - 1, through: 0, by: -1) { siftDown(root, count) }
  }

  private mutating func siftDown(_ start: Int, _ count: Int) {
    var root = start
    while case let left = 2 * root + 1, left < count {
      var worst = candidates[root].precedes(candidates[left]) ? left : root
      if left + 1 < count, candidates[worst].precedes(candidates[left + 1]) { worst = left + 1 }
      guard worst != root else { return }
      candidates.swapAt(root, worst)
      root = worst
    }
  }

  /// How many of the sorted candidates top-p and min-p leave; at least one.
  private mutating func truncate(_ count: Int) -> Int {
    let highest = Double(candidates[0].logit)
    var total = 0.0
    for index in 0..<count {
      weights[index] = exp(Double(candidates[index].logit) - highest)
      total += weights[index]
    }
    var kept = count
    if options.topP < 1 {
      var sum = 0.0
      for index in 0..<count {
        sum += weights[index]
        if sum >= Double(options.topP) * total {
          kept = index + 1
          break
        }
      }
    }
    if options.minP > 0 {
      kept = min(kept, weights[..<count].firstIndex { $0 < Double(options.minP) } ?? count)
    }
    return max(1, kept)
  }

  private mutating func draw(among count: Int) -> Int32 {
    let highest = Double(candidates[0].logit)
    var total = 0.0
    for index in 0..<count {
      weights[index] =
        exp((Double(candidates[index].logit) - highest) / Double(options.temperature))
      total += weights[index]
    }
    var threshold = generator.nextUnit() * total
    for index in 0..<count {
      threshold -= weights[index]
      if threshold < 0 { return candidates[index].token }
    }
    return candidates[count - 1].token
  }
}
