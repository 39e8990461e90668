public import ArgumentParser

/// What a command says beside its results.
public struct OutputOptions: ParsableArguments {
  @Flag(help: "Show neither progress nor a summary; warnings and errors stay.")
  public var quiet = false

  public init() {}

  /// Takes effect as soon as the arguments are read, so that no command can forget it.
  public func validate() { if quiet { Terminal.beQuiet() } }
}
