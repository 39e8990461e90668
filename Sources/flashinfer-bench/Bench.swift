import ArgumentParser
import CommandLineSupport

/// `flashinfer-bench`: measures what the runtime reaches, against what the machine allows.
@main
struct Bench: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "flashinfer-bench",
    abstract:
      "Measures the runtime: speed against the machine's limits, quality against references.",
    subcommands: [
      LoadBench.self, DecodeBench.self, PrefillBench.self, PerplexityBench.self, LogitsBench.self,
      ExpertsBench.self, SparseBench.self, AttentionBench.self, PolicyBench.self,
      ActivationsBench.self, InStorageBench.self, SparFBench.self,
    ])

  static func main() { runAsProgram() }
}
