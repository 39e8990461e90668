public import Runtime
import TensorBasics
public import Tokenization

/// Where a server listens, and the bounds of what it takes.
public struct ServerOptions: Sendable {
  /// An address that others reach needs ``apiKeys``.
  public var host = "127.0.0.1"
  /// 0 = any that is free.
  public var port = 8080
  /// A socket in the file system, instead of a host and a port.
  public var unixSocketPath: String?
  /// Those that requests must show; nil = nobody is asked who they are.
  public var apiKeys: APIKeys?
  /// What the server shows who it is with, over TLS; nil = whoever is between can read and change what is sent.
  public var certificate: ServerCertificate?
  /// Names that this machine is called by, beside its addresses and `localhost`.
  public var allowedHosts: [String] = []
  /// Where pages may come from whose scripts ask, such as `https://chat.example`, beside this machine.
  public var allowedOrigins: [String] = []
  /// What requests call the model.
  public var modelName: String
  /// What frames conversations instead of the model's own template.
  public var chatTemplate: ChatTemplate?
  /// Answers that may wait for a place, beyond those under way.
  public var queueCount = 64
  /// Most bytes of a request's body.
  public var bodyByteCount = 1 << 20
  /// Most bytes of responses that are kept for others to go on from.
  public var keptResponseByteCount = 8 << 20
  /// How hidden states become a vector where a request for embeddings does not say it; nil = as the model's files say, else
  /// their mean.
  public var pooling: Pooling?
  /// Most bytes of vectors that are computed or sent at the same time.
  public var embeddingByteCount = 8 << 20
  /// Memory for grammars: while one is compiled, of those of all answers, and of their masks.
  public var grammarByteCount = 56 << 20
  /// Most bytes of answers that are computed and not sent yet.
  public var answerByteCount = 32 << 20
  /// Bodies of that length that may be read at the same time.
  static let bodyCount = 8
  /// Open connections; others wait to be accepted.
  public var connectionCount = 1024
  /// How long an answer may take, waiting included; nil = as long as it takes.
  public var requestTimeLimit: Duration?
  /// How long a request may take to arrive, and how long a connection may be idle, or its client read nothing.
  public var requestSeconds = 30
  public var idleSeconds = 60
  /// How long a server goes on to say that its engine has failed, before it ends.
  public var failureSeconds = 5

  public init(modelName: String) { self.modelName = modelName }

  /// What a model is called where nobody says it: its file's or folder's name, without an extension of models.
  public static func modelName(ofPath path: String) -> String {
    let name = path.split(separator: "/").last.map(String.init) ?? path
    // A folder such as Qwen2.5-0.5B has none.
    let ending = [".gguf", ".bin", ".safetensors"].first { name.hasSuffix($0) && name != $0 }
    return String(name.dropLast(ending?.count ?? 0)).displayingPaths
  }

  /// Bytes of a body that are enough for a prompt as long as a context: a token is seldom as long as 32 bytes of JSON.
  public static func bodyByteCount(contextLength: Int) -> Int { max(128 << 10, 32 * contextLength) }

  /// Shares of its usual memory that a server can do with, the largest first.
  public static let shares = [1, 0.5, 0.25, 0.125]

  /// Lowers the bounds, so that they take that share of their memory, or the least that is of use.
  public mutating func scale(to share: Double) {
    func scaled(_ byteCount: Int) -> Int { Int(Double(byteCount) * share) }
    connectionCount = max(Self.leastConnectionCount, scaled(connectionCount))
    bodyByteCount = max(min(bodyByteCount, Self.leastBodyByteCount), scaled(bodyByteCount))
    keptResponseByteCount = scaled(keptResponseByteCount)
    embeddingByteCount = scaled(embeddingByteCount)
    grammarByteCount = scaled(grammarByteCount)
    answerByteCount = scaled(answerByteCount)
  }

  private static let leastConnectionCount = 256
  private static let leastBodyByteCount = 64 << 10

  /// Memory of all grammars while one of them is compiled, of those that are compiled, and of masks, as these need it.
  var compilationByteCount: Int { grammarByteCount / 7 * 3 }
  var keptGrammarByteCount: Int { grammarByteCount / 7 }
  /// As of `MemoryPlan.Request.maskByteCount`.
  public var maskByteCount: Int { grammarByteCount / 7 * 3 }

  /// A part of what a server needs of memory beside its engine.
  public struct Part: Sendable {
    /// In words: what it is for, and what bounds it.
    public let name: String
    public let byteCount: Int
  }

  /// What a server needs of memory beside its engine.
  public func parts(sequenceCount: Int) -> [Part] {
    [
      Part(name: "event loop", byteCount: Self.eventLoopByteCount),
      // Measured with requests that are sent by half.
      Part(
        name: "\(connectionCount) connections",
        byteCount: connectionCount * (certificate == nil ? 34 << 10 : 1 << 16)),
      Part(
        name: "bodies of requests, and what they are understood as",
        byteCount: (Self.bodyCount + Self.understandingFactor) * bodyByteCount),
      Part(
        name: "grammars, as they are compiled and kept",
        byteCount: compilationByteCount + keptGrammarByteCount),
      Part(name: "answers that are not sent yet", byteCount: answerByteCount),
      Part(
        name: "what may become calls of tools", byteCount: sequenceCount * CallReader.byteCount),
      Part(name: "responses that are kept", byteCount: keptResponseByteCount),
      Part(name: "vectors", byteCount: embeddingByteCount),
    ]
  }

  private static let eventLoopByteCount = 2 << 20
  /// Bytes that a byte of a body takes while it is understood: short arrays in arrays take most, measured 28.
  private static let understandingFactor = 32
}
