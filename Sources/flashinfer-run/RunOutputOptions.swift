import ArgumentParser
import CommandLineSupport

/// What is printed of an answer.
struct RunOutputOptions: ParsableArguments {
  @Flag(help: "Print one JSON object on standard output and nothing else there.")
  var json = false

  @Option(
    parsing: .unconditional,
    help: "With --json: report the N most probable tokens of each position.")
  var logprobs: Int?

  @Option(
    help: ArgumentHelp(
      "With --logprobs: after which positions; generated, prompt, or one prompt position's number.",
      valueName: "positions"))
  var logprobsPosition: DistributionPositions?

  func validate() throws {
    let most = ResourceOptions.longestContext
    guard (1...most).contains(logprobs ?? 1) else {
      throw ValidationError("--logprobs must be between 1 and \(most)")
    }
    guard logprobs == nil || json else { throw ValidationError("--logprobs needs --json") }
    guard logprobsPosition == nil || logprobs != nil else {
      throw ValidationError("--logprobs-position needs --logprobs")
    }
  }
}
