public import ArgumentParser
public import Runtime
public import TensorBasics

/// Options on models whose FFNs lie in bundles of neurons.
public struct NeuronArguments: ParsableArguments {
  @Option(
    help: ArgumentHelp(
      "Who chooses neurons: exact (what ReLU makes zero is skipped; default where the activation "
        + "allows it), predictor or threshold (approximate, where the image has them), or all.",
      valueName: "kind"))
  public var selector: NeuronSelector?

  @Option(
    help: ArgumentHelp(
      "Bound on the part of --ram that bundles of neurons take (default: what is left).",
      valueName: "size"))
  public var window: ByteCount?

  public init() {}

  public var options: NeuronOptions {
    NeuronOptions(selector: selector, windowByteCount: window?.bytes)
  }
}

extension NeuronSelector: ExpressibleByArgument {}
