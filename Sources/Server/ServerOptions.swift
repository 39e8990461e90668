/// Where a server listens, and the bounds of what it takes.
public struct ServerOptions: Sendable {
  /// A loopback address: nobody else is asked who they are.
  public var host = "127.0.0.1"
  /// 0 = any that is free.
  public var port = 8080
  /// What requests call the model.
  public var modelName: String
  /// Answers that may wait for a place, beyond those under way.
  public var queueCount = 64
  /// Most bytes of a request's body, and of all bodies at the same time.
  public var bodyByteCount = 4 << 20
  public var totalBodyByteCount = 32 << 20
  /// Open connections; others wait to be accepted.
  public var connectionCount = 1024
  /// How long a request may take to arrive, and a connection may be idle.
  public var requestSeconds = 30
  public var idleSeconds = 60

  public init(modelName: String) { self.modelName = modelName }

  /// What a server needs beside the model, for so many contexts: bodies and what is made of them, connections, and
  /// events that were not taken yet.
  public func byteCount(sequenceCount: Int, contextLength: Int) -> Int {
    let connections = 16 << 20
    // A token of a prompt or an answer is there as such, as text, and in a chunk that waits to be sent.
    return connections + totalBodyByteCount + 4 * bodyByteCount
      + (sequenceCount + queueCount) * contextLength * 16
  }
}
