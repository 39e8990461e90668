import ArgumentParser

/// After which positions `--logprobs` reports distributions.
enum DistributionPositions: Equatable, ExpressibleByArgument {
  case generated
  case prompt
  case promptPosition(Int)

  init?(argument: String) {
    switch argument {
    case "generated": self = .generated
    case "prompt": self = .prompt
    default:
      guard let position = Int(argument), position >= 0 else { return nil }
      self = .promptPosition(position)
    }
  }

  /// The one prompt position asked for.
  var only: Int? {
    if case .promptPosition(let position) = self { position } else { nil }
  }
}
