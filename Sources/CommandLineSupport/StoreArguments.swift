public import ArgumentParser
import KVCache
public import Runtime
public import TensorBasics

/// Where keys and values are kept between runs.
public struct StoreArguments: ParsableArguments {
  @Option(
    help: ArgumentHelp(
      "Keep keys and values of prompts and answers of 128 tokens or more in a folder, and take those "
        + "of prompts with the same beginning.", valueName: "dir"))
  public var kvStore: String?

  @Option(
    help: ArgumentHelp(
      "Maximum size of the store; what is worth least goes first, by tokens, uses and bytes.",
      valueName: "size"))
  public var kvStoreLimit = ByteCount(8 << 30)

  @Option(
    help: ArgumentHelp(
      "What may be written to the store a day (UTC), as drives wear by it: contexts that begin after that are not kept.",
      valueName: "size"))
  public var writeBudget = ByteCount(64 << 30)

  public init() {}

  public func validate() throws {
    guard kvStore?.isEmpty != true else {
      throw ValidationError("--kv-store needs the path of a folder; it is empty")
    }
  }

  /// Where an engine keeps contexts; nil = nowhere.
  public var engineStore: Engine.Store? {
    kvStore.map {
      Engine.Store(
        path: $0, byteLimit: kvStoreLimit.bytes, dailyWriteLimit: writeBudget.bytes)
    }
  }

  /// The store as `request` wants it; nil if there is none, or it cannot be used.
  public func open(
    _ model: LanguageModel, prompt: [Int32], for request: inout MemoryPlan.Request, reuses: Bool
  ) throws -> KeyValuePersistence? {
    guard let kvStore else { return nil }
    let directory: KeyValueDirectory
    do {
      directory = try KeyValueDirectory(
        path: kvStore, byteLimit: kvStoreLimit.bytes, dailyWriteLimit: writeBudget.bytes)
    } catch {
      Terminal.warn("\(error); keys and values are not kept")
      return nil
    }
    directory.note = { Terminal.note($0) }
    return try KeyValuePersistence(
      directory, model, prompt: prompt, for: &request, reuses: reuses, warn: { Terminal.warn($0) })
  }
}
