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
