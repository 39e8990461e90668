import Hummingbird
import NIOCore
import Synchronization

/// Reads the bodies of requests, each and all of them bounded.
final class RequestBodies: Sendable {
  /// Most bytes of a body.
  let limit: Int
  /// Most bytes of all bodies that are being read or understood.
  private let totalLimit: Int
  private let total = Mutex(0)

  init(limit: Int, totalLimit: Int) {
    self.limit = limit
    self.totalLimit = max(limit, totalLimit)
  }

  /// Gives a request's body to what understands it, and forgets it then.
  ///
  /// - Throws: ``APIError`` with 413 where it is too long, 503 where all of them are, 400 where it does not come whole.
  func read<Result>(
    _ request: Request, _ understand: ([UInt8]) throws -> Result
  ) async throws -> Result {
    try check(request.headers[.contentLength].flatMap(Int.init) ?? 0)
    var bytes: [UInt8] = []
    defer { total.withLock { $0 -= bytes.count } }
    do {
      for try await part in request.body {
        try reserve(part.readableBytes, after: bytes.count)
        bytes.append(contentsOf: part.readableBytesView)
      }
    } catch let error as APIError { throw error } catch {
      throw APIError(.badRequest, "the request did not come whole: \(error)")
    }
    return try understand(bytes)
  }

  /// Makes room for some more bytes of a body.
  private func reserve(_ count: Int, after readCount: Int) throws {
    try check(readCount + count)
    try total.withLock { total in
      guard total + count <= totalLimit else {
        throw APIError(
          .serviceUnavailable, "too many requests are being read at the same time",
          retrySeconds: 1)
      }
      total += count
    }
  }

  private func check(_ count: Int) throws {
    guard count > limit else { return }
    throw APIError(
      .contentTooLarge, "the body has more than \(limit) bytes (the server's --max-body)",
      code: "body_too_large")
  }
}
