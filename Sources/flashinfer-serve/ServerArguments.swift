import ArgumentParser
import CommandLineSupport
import HostResources
import ModelFormat
import Server
import TensorBasics

/// Where the server listens, and how much it takes.
struct ServerArguments: ParsableArguments {
  @Option(
    help: ArgumentHelp(
      "Address to listen on. It must be a loopback address, because nobody is asked who they are.",
      valueName: "address"))
  var host = "127.0.0.1"

  @Option(parsing: .unconditional, help: "Port to listen on; 0 = any that is free.")
  var port = 8080

  @Option(
    help: ArgumentHelp(
      "What requests call the model (default: the name of its file).", valueName: "name"))
  var modelName: String?

  @Option(
    parsing: .unconditional,
    help: "Answers under way at the same time; memory is planned for so many contexts.")
  var sequences = 4

  @Option(
    parsing: .unconditional,
    help: "Answers that may wait for a place; a request beyond that is told when to come again.")
  var queue = 64

  @Option(
    help: ArgumentHelp(
      "The longest body of a request (default: enough for a context, at least 128KiB).",
      valueName: "size"))
  var maxBody: ByteCount?

  func validate() throws {
    guard ["127.0.0.1", "::1", "localhost"].contains(host) || host.isLoopbackNumber else {
      throw ValidationError(
        "--host must be a loopback address such as 127.0.0.1, ::1 or localhost, not '\(host)': there are no "
          + "keys yet that others would have to know")
    }
    guard (0...65535).contains(port) else {
      throw ValidationError("--port must be between 0 and 65535, not \(port)")
    }
    guard (1...ResourceOptions.mostSequences).contains(sequences) else {
      throw ValidationError(
        "--sequences must be between 1 and \(ResourceOptions.mostSequences), not \(sequences)")
    }
    guard (0...65536).contains(queue) else {
      throw ValidationError("--queue must be between 0 and 65536, not \(queue)")
    }
    if let maxBody, !(1 << 10...1 << 28).contains(maxBody.bytes) {
      throw ValidationError("--max-body must be between 1KiB and 256MiB, not \(maxBody)")
    }
  }

  func options(modelPath: String, contextLength: Int) -> ServerOptions {
    var options = ServerOptions(
      modelName: modelName ?? ServerOptions.modelName(ofPath: modelPath))
    options.host = host
    options.port = port
    options.queueCount = queue
    options.bodyByteCount =
      maxBody?.bytes ?? ServerOptions.bodyByteCount(contextLength: contextLength)
    // Half of the descriptors are enough for the model, the store and what the system itself opens.
    if let limit = HostLimits().descriptors?.value {
      options.connectionCount = max(16, min(options.connectionCount, limit / 2))
    }
    return options
  }
}

extension String {
  /// Whether it is an address 127.x.y.z.
  fileprivate var isLoopbackNumber: Bool {
    let parts = split(separator: ".", omittingEmptySubsequences: false)
    return parts.count == 4 && parts[0] == "127" && parts.allSatisfy { UInt8($0) != nil }
  }
}
