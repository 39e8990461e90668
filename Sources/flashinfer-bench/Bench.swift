import ArgumentParser
import CommandLineSupport
import TensorBasics

/// `flashinfer-bench`: measures what the runtime reaches, against what the machine allows.
@main
struct Bench: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "flashinfer-bench",
    abstract:
      "Measures the runtime: speed against the machine's limits, quality against references.",
    discussion: """
      Examples:
        flashinfer-bench load model.bin
        flashinfer-bench decode model.bin --ram 2GiB
      """,
    version: FlashInferVersion.current,
    subcommands: [
      LoadBench.self, DecodeBench.self, PrefillBench.self, PerplexityBench.self, LogitsBench.self,
      ExpertsBench.self, SparseBench.self, AttentionBench.self, ProductsBench.self,
      PolicyBench.self, SpeculateBench.self, ActivationsBench.self, InStorageBench.self,
      SparFBench.self,
    ] + serving)

  /// What is there where the server is (docs/decisions/0049).
  private static var serving: [any ParsableCommand.Type] {
    #if FLASHINFER_SERVER
      [ServeBench.self]
    #else
      []
    #endif
  }

  static func main() { runAsProgram() }
}
