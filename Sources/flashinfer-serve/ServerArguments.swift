public import ArgumentParser
import CommandLineSupport
import HostResources
import ModelFormat
public import Runtime
import Server
import TensorBasics

/// Where the server listens, and how much it takes.
struct ServerArguments: ParsableArguments {
  @Option(
    help: ArgumentHelp(
      "Address to listen on (default: 127.0.0.1). One that others reach needs --api-key-file.",
      valueName: "address"))
  var host: String?

  @Option(
    parsing: .unconditional, help: "Port to listen on (default: 8080); 0 = any that is free.")
  var port: Int?

  @Option(
    help: ArgumentHelp(
      "Listen on a socket in the file system instead, which only its owner can connect to.",
      valueName: "path"))
  var unixSocket: String?

  @Option(
    help: ArgumentHelp(
      "Keys, one a line, of which requests must show one; read again on SIGHUP. Only its owner may be able to read "
        + "the file.", valueName: "file"))
  var apiKeyFile: String?

  @Option(
    help: ArgumentHelp(
      "Serve over TLS: certificates in PEM, the server's own first; read again on SIGHUP, as is --key.",
      valueName: "file"))
  var certificate: String?

  @Option(
    help: ArgumentHelp(
      "The private key of --certificate in PEM. Only its owner may be able to read the file.",
      valueName: "file"))
  var key: String?

  @Option(
    help: ArgumentHelp(
      "A name that this machine is called by, beside localhost and addresses; may be repeated.",
      valueName: "name"))
  var allowHost: [String] = []

  @Option(
    help: ArgumentHelp(
      "Where pages come from whose scripts may ask, such as https://chat.example, beside this machine; may be "
        + "repeated.", valueName: "origin"))
  var allowOrigin: [String] = []

  @Flag(
    help: ArgumentHelp(
      "Keep no keys and values for later requests; by default they are in --kv-store, or ~/.cache/flashinfer/kv."
    ))
  var noKvStore = false

  @Option(
    help: ArgumentHelp(
      "What requests call the model (default: the name of its file).", valueName: "name"))
  var modelName: String?

  @Option(
    help: ArgumentHelp(
      "Use this Jinja template instead of the one in the model's file.", valueName: "file"))
  var chatTemplate: String?

  @Option(
    parsing: .unconditional,
    help: "Answers under way at the same time; memory is planned for so many contexts.")
  var sequences = 4

  @Option(
    parsing: .unconditional,
    help: "Answers that may wait for a place; a request beyond that is told when to come again.")
  var queue = 64

  @Option(
    parsing: .unconditional,
    help: ArgumentHelp(
      "How long an answer may take, waiting included; what is there by then is the answer (default: as long as it takes).",
      valueName: "seconds"))
  var requestTimeLimit: Int?

  @Option(
    parsing: .unconditional,
    help: "Open connections; others wait to be accepted (default: 1024; less where --ram is small)."
  )
  var connections: Int?

  @Option(
    help: ArgumentHelp(
      "The longest body of a request (default: enough for a context, at least 128KiB; less where --ram is small).",
      valueName: "size"))
  var maxBody: ByteCount?

  @Option(
    help: ArgumentHelp(
      "Memory for responses that previous_response_id may name; those used least recently go first (default: 8MiB; less where "
        + "--ram is small).", valueName: "size"))
  var keepResponses: ByteCount?

  @Option(
    help: ArgumentHelp(
      "Memory for grammars and schemas; those that need more are refused (default: 56MiB; less where --ram is small).",
      valueName: "size"))
  var grammarMemory: ByteCount?

  @Flag(help: "Print where the memory goes, and serve nothing.")
  var plan = false

  @Option(
    help: ArgumentHelp(
      "Whose hidden state the vector of /v1/embeddings is where the request does not say it: that of the last token, which has "
        + "seen all of them, or the mean of all (default: as the model's files say, else mean).",
      valueName: "last|mean"))
  var pooling: Pooling?

  func validate() throws {
    try validateAddress()
    for name in allowHost where HostName(name) == nil {
      throw ValidationError("--allow-host must be a name such as gpu.example, not '\(name)'")
    }
    for origin in allowOrigin {
      let parts = origin.split(separator: "://", omittingEmptySubsequences: false)
      guard parts.count == 2, !parts[0].isEmpty, !parts[1].isEmpty, !parts[1].contains("/") else {
        throw ValidationError(
          "--allow-origin must be an origin such as https://chat.example, not '\(origin)'")
      }
    }
    guard (1...ResourceOptions.mostSequences).contains(sequences) else {
      throw ValidationError(
        "--sequences must be between 1 and \(ResourceOptions.mostSequences), not \(sequences)")
    }
    guard (0...65536).contains(queue) else {
      throw ValidationError("--queue must be between 0 and 65536, not \(queue)")
    }
    if let requestTimeLimit, !(1...1_000_000_000).contains(requestTimeLimit) {
      throw ValidationError(
        "--request-time-limit must be between 1 and 1000000000 seconds, not \(requestTimeLimit)")
    }
    if let maxBody, !(1 << 10...1 << 28).contains(maxBody.bytes) {
      throw ValidationError("--max-body must be between 1KiB and 256MiB, not \(maxBody)")
    }
    if let keepResponses, !(0...1 << 36).contains(keepResponses.bytes) {
      throw ValidationError("--keep-responses must be between 0 and 64GiB, not \(keepResponses)")
    }
    if let grammarMemory, !(4 << 20...1 << 30).contains(grammarMemory.bytes) {
      throw ValidationError("--grammar-memory must be between 4MiB and 1GiB, not \(grammarMemory)")
    }
    if let connections, !(1...65536).contains(connections) {
      throw ValidationError("--connections must be between 1 and 65536, not \(connections)")
    }
  }

  private func validateAddress() throws {
    if let host, apiKeyFile == nil, HostName(host)?.isLoopback != true {
      throw ValidationError(
        "--host must be a loopback address such as 127.0.0.1, ::1 or localhost, not '\(host)', unless others have "
          + "to show a key: --api-key-file")
    }
    if let port, !(0...65535).contains(port) {
      throw ValidationError("--port must be between 0 and 65535, not \(port)")
    }
    guard (certificate == nil) == (key == nil) else {
      throw ValidationError("--certificate and --key go together")
    }
    guard let unixSocket else { return }
    guard certificate == nil else {
      throw ValidationError("--certificate is for --host and --port, not for --unix-socket")
    }
    guard host == nil, port == nil else {
      throw ValidationError("--unix-socket is listened on instead of --host and --port")
    }
    guard (1..<108).contains(unixSocket.utf8.count) else {
      throw ValidationError("--unix-socket must be a path of 1 to 107 bytes")
    }
  }

  func options(modelPath: String, contextLength: Int) throws -> ServerOptions {
    var options = ServerOptions(
      modelName: modelName ?? ServerOptions.modelName(ofPath: modelPath))
    options.host = host ?? options.host
    options.port = port ?? options.port
    options.unixSocketPath = unixSocket
    options.apiKeys = try apiKeyFile.map { try APIKeys(path: $0) }
    if let certificate, let key {
      options.certificate = try ServerCertificate(certificatePath: certificate, keyPath: key)
    }
    options.allowedHosts = allowHost
    options.allowedOrigins = allowOrigin
    options.chatTemplate = try chatTemplate.map { try TemplateOptions.template(path: $0) }
    options.queueCount = queue
    options.pooling = pooling
    options.requestTimeLimit = requestTimeLimit.map { .seconds($0) }
    options.bodyByteCount = ServerOptions.bodyByteCount(contextLength: contextLength)
    options.answerByteCount = min(
      options.answerByteCount, (sequences + queue) * contextLength * Self.tokenByteCount)
    return options
  }

  /// A token of an answer that is not sent yet.
  private static let tokenByteCount = 64

  /// Options with such a share of their usual memory, but for those that were asked for.
  func scaled(_ options: ServerOptions, to share: Double) -> ServerOptions {
    var options = options
    options.scale(to: share)
    options.connectionCount = connections ?? options.connectionCount
    options.bodyByteCount = maxBody?.bytes ?? options.bodyByteCount
    options.keptResponseByteCount = keepResponses?.bytes ?? options.keptResponseByteCount
    options.grammarByteCount = grammarMemory?.bytes ?? options.grammarByteCount
    // Half of the descriptors are enough for the model, the store and what the system itself opens.
    if let limit = HostLimits().descriptors?.value {
      options.connectionCount = min(options.connectionCount, max(16, limit / 2))
    }
    return options
  }
}

extension Pooling: ExpressibleByArgument {}
