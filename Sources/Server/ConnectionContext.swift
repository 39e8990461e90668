import Hummingbird
import NIOCore

/// What a request knows of where it came from.
struct ConnectionContext: RequestContext {
  var coreContext: CoreRequestContextStorage
  /// The connection.
  let channel: any Channel
  /// Whose key the request showed; nil where none was asked for.
  var holder: RequestClient?

  init(source: ApplicationRequestContextSource) {
    coreContext = CoreRequestContextStorage(source: source)
    channel = source.channel
  }

  /// Who asks.
  func client() async throws -> RequestClient {
    if let holder { return holder }
    return try await RequestClient(at: channel)
  }
}
