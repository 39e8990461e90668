import CommandLineSupport
import Runtime
import WeightLoader

extension Figure {
  /// Where `seconds` went: a share of the time for each part, and for the rest.
  static func shares(of seconds: Double, _ times: TimeBreakdown) -> [Figure] {
    var rest = seconds
    var figures: [Figure] = []
    for part in TimeBreakdown.Part.allCases {
      let part = (name: "\(part)", seconds: Double(times[part]) / 1e9)
      rest -= part.seconds
      figures.append(Figure("\(part.name)Share", part.seconds / seconds, "of the time"))
    }
    return figures + [Figure("restShare", rest / seconds, "of the time")]
  }

  /// What the window of neurons did for each token; nothing for a model without bundles of neurons.
  static func neurons(
    _ statistics: NeuronStatistics, _ plan: MemoryPlan, tokens: Int
  ) -> [Figure] {
    guard let neurons = plan.neurons, tokens > 0 else { return [] }
    let all = Double(neurons.bundleCount * tokens)
    return [
      Figure("neuronFractionUsed", Double(statistics.uses) / all, "of all bundles"),
      Figure("neuronFractionRead", Double(statistics.reads) / all, "of all bundles"),
      Figure("neuronBytesPerToken", Double(statistics.bytesRead) / Double(tokens), "B"),
      Figure("neuronRequestsPerToken", Double(statistics.requests) / Double(tokens), ""),
      Figure(
        "windowFraction", Double(neurons.slotCount) / Double(neurons.bundleCount), "of all bundles"
      ),
      Figure(
        "windowTokens",
        Double(statistics.evictedAges) / Double(max(1, statistics.evictions)), "tokens"),
      Figure(
        "managementMilliseconds",
        Double(statistics.managementNanoseconds) / 1e6 / Double(tokens), "ms a token"),
    ]
  }

  /// What the expert cache did for each token; nothing for a model without experts.
  static func bundles(
    _ now: BundleStatistics, since before: BundleStatistics, tokens: Int
  ) -> [Figure] {
    let uses = Double(now.uses - before.uses)
    guard uses > 0 else { return [] }
    return [
      Figure("expertHitRate", Double(now.hits - before.hits) / uses, "of the uses"),
      Figure("expertsPerToken", uses / Double(tokens), ""),
      Figure(
        "expertBytesPerToken", Double(now.bytesWanted - before.bytesWanted) / Double(tokens), "B"),
    ]
  }
}
