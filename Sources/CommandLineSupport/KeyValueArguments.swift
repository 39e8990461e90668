public import ArgumentParser
public import BlockIO
public import KVCache
public import TensorBasics

/// Options on where keys and values lie.
public struct KeyValueArguments: ParsableArguments {
  @Option(
    help: ArgumentHelp(
      """
      Bound on the part of --ram that keys and values take; what exceeds it goes to a file in --kv-dir \
      (default: all in memory, unless they would take more than half of what weights could use).
      """, valueName: "size"))
  public var kvRam: ByteCount?

  @Option(
    help: ArgumentHelp(
      "Folder, on a fast drive, for keys and values beyond --kv-ram (default: TMPDIR or /var/tmp).",
      valueName: "folder"))
  public var kvDir: String?

  @Option(
    help: ArgumentHelp(
      """
      What tokens behind the prompt attend over: \(KeyValuePolicyChoice.forms) (default: full). \
      Anything but full is an approximation unless its bounds exceed the context.
      """, valueName: "policy"))
  public var kvPolicy = KeyValuePolicyChoice.full

  public init() {}

  /// What a session is asked for; files are read like those of the model.
  public func options(_ backend: StorageBackend) -> KeyValueOptions {
    var options = KeyValueOptions()
    options.budgetByteCount = kvRam?.bytes
    options.folder = kvDir ?? options.folder
    options.backend = backend
    options.policy = kvPolicy
    return options
  }
}

extension KeyValuePolicyChoice: ExpressibleByArgument {
  public init?(argument: String) { self.init(argument) }
  public var defaultValueDescription: String { description }
}
