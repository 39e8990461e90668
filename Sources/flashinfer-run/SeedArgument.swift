import ArgumentParser
import Runtime

/// What was given as a seed, which may be none.
struct SeedArgument: ExpressibleByArgument {
  let text: String

  init(argument: String) { text = argument }

  /// The seed; nil where it is none.
  var value: UInt64? {
    Int(text).flatMap { SamplingOptions.seeds.contains($0) ? UInt64($0) : nil }
  }
}
