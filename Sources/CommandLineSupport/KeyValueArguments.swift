public import ArgumentParser
public import BlockIO
public import KVCache
public import Kernels
public import TensorBasics

/// Options on how keys and values are stored, and where.
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
      What tokens after the prompt attend over: \(KeyValuePolicyChoice.forms) (default: full). \
      Anything but full is an approximation unless its bounds exceed the context.
      """, valueName: "policy"))
  public var kvPolicy = KeyValuePolicyChoice.full

  @Option(
    help: ArgumentHelp(
      "How to store keys and values: f16, q8 (about half the memory) or q4 (about a quarter).",
      valueName: "type"))
  public var kvType = KeyValueType.f16

  public init() {}

  /// What a session is asked for; files are read like those of the model.
  public func options(_ backend: StorageBackend) -> KeyValueOptions {
    var options = KeyValueOptions()
    options.budgetByteCount = kvRam?.bytes
    options.type = kvType
    options.folder = kvDir
    options.backend = backend
    options.policy = kvPolicy
    return options
  }
}

extension KeyValuePolicyChoice: ExpressibleByArgument {
  public init?(argument: String) { self.init(argument) }
  public var defaultValueDescription: String { description }
}

extension KeyValueType: ExpressibleByArgument {}
