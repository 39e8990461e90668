import ArgumentParser
import CommandLineSupport
import KVCache
import Runtime
import TensorBasics

/// Where keys and values are kept between runs.
struct StoreArguments: ParsableArguments {
  @Option(
    help: ArgumentHelp(
      "Keep keys and values of prompts and answers of 128 tokens or more in a folder, and take those "
        + "of prompts with the same beginning.", valueName: "dir"))
  var kvStore: String?

  @Option(
    help: ArgumentHelp(
      "Maximum size of the store; what was used least recently goes first.",
      valueName: "size"))
  var kvStoreLimit = ByteCount(8 << 30)

  /// Where an engine keeps contexts; nil = nowhere.
  var engineStore: Engine.Store? {
    kvStore.map { Engine.Store(path: $0, byteLimit: kvStoreLimit.bytes) }
  }

  /// The store as `request` wants it; nil if there is none, or it cannot be used.
  func open(
    _ model: LanguageModel, prompt: [Int32], for request: inout MemoryPlan.Request, reuses: Bool
  ) throws -> KeyValuePersistence? {
    guard let kvStore else { return nil }
    let directory: KeyValueDirectory
    do {
      directory = try KeyValueDirectory(path: kvStore, byteLimit: kvStoreLimit.bytes)
    } catch {
      Terminal.warn("\(error); keys and values are not kept")
      return nil
    }
    directory.note = { Terminal.note($0) }
    return try KeyValuePersistence(
      directory, model, prompt: prompt, for: &request, reuses: reuses, warn: { Terminal.warn($0) })
  }
}
