import CommandLineSupport
import Runtime

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
}
