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
      figures.append(Figure("\(part.name)Share", part.seconds / seconds, .fraction, "of the time"))
    }
    return figures + [Figure("restShare", rest / seconds, .fraction, "of the time")]
  }

  /// What the window of neurons did for each token; nothing for a model without bundles of neurons.
  static func neurons(
    _ statistics: NeuronStatistics, _ plan: MemoryPlan, tokens: Int
  ) -> [Figure] {
    guard let neurons = plan.neurons, tokens > 0 else { return [] }
    let all = Double(neurons.bundleCount * tokens)
    return [
      Figure("neuronFractionUsed", Double(statistics.uses) / all, .fraction, "of all bundles"),
      Figure("neuronFractionRead", Double(statistics.reads) / all, .fraction, "of all bundles"),
      Figure("neuronBytesPerToken", Double(statistics.bytesRead) / Double(tokens), .bytes),
      Figure(
        "neuronReadsAheadUsed", Double(statistics.readsAheadUsed),
        dividedBy: Double(statistics.readsAhead), "bundles read ahead", .fraction,
        "of the bundles read ahead"),
      Figure("neuronRequestsPerToken", Double(statistics.requests) / Double(tokens), .number),
      Figure(
        "windowFraction", Double(neurons.slotCount) / Double(neurons.bundleCount), .fraction,
        "of all bundles"
      ),
      Figure(
        "windowTokens", Double(statistics.evictedAges),
        dividedBy: Double(statistics.evictions), "bundles evicted", .tokens),
      Figure(
        "managementMilliseconds",
        Double(statistics.managementNanoseconds) / 1e6 / Double(tokens), .milliseconds, "per token"),
    ]
  }

  /// How often the next layer's router, run early, named experts right.
  static func foresight(_ count: (named: Int, right: Int)) -> [Figure] {
    guard count.named > 0 else { return [] }
    return [
      Figure("expertsPrefetched", count.named, .number),
      Figure(
        "expertsPrefetchedRight", Double(count.right) / Double(count.named), .fraction, "of them"),
    ]
  }

  /// What the expert cache did for each token; nothing for a model without experts.
  static func bundles(
    _ now: BundleStatistics, since before: BundleStatistics, tokens: Int
  ) -> [Figure] {
    let uses = Double(now.uses - before.uses)
    guard uses > 0 else { return [] }
    return [
      Figure("expertHitRate", Double(now.hits - before.hits) / uses, .fraction, "of the uses"),
      Figure("expertsPerToken", uses / Double(tokens), .number),
      Figure(
        "expertBytesPerToken", Double(now.bytesWanted - before.bytesWanted) / Double(tokens), .bytes
      ),
    ]
  }

  /// What sweeps of several rows read of experts; nothing for a model without.
  static func expertsOfSweeps(
    _ now: BundleStatistics, since before: BundleStatistics, sweeps: Int
  ) -> [Figure] {
    let uses = Double(now.uses - before.uses)
    guard uses > 0 else { return [] }
    let aheadRight = Double(now.usedPrefetches - before.usedPrefetches)
    let ahead = Double(now.prefetches - before.prefetches)
    let resident = Double(now.hits - before.hits) - aheadRight
    return [
      Figure("expertsPerSweep", uses / Double(sweeps), .number),
      Figure("expertResidentShare", resident / uses, .fraction, "of the experts that sweeps used"),
      Figure(
        "expertBytesPerSweep", Double(now.bytesWanted - before.bytesWanted) / Double(sweeps), .bytes
      ),
      Figure(
        "expertReadRatio", uses - resident - aheadRight + ahead, dividedBy: uses - resident,
        "experts used that were not in memory", .fraction,
        "of the experts used that were not in memory"),
      Figure("expertsReadAheadPerSweep", ahead / Double(sweeps), .number),
    ]
  }
}
