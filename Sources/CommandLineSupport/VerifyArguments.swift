public import ArgumentParser
public import WeightLoader

/// Options on how far the drive is trusted.
public struct VerifyArguments: ParsableArguments {
  @Option(
    help: ArgumentHelp(
      "When bytes of an image are compared with its checksums: first (when they are first read) or "
        + "always (at every read: one more pass over what is streamed, by the worker threads; files "
        + "without checksums, such as GGUF, are refused).",
      valueName: "when"))
  public var verify = Verification.first

  public init() {}
}

extension Verification: ExpressibleByArgument {}
