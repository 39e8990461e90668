import Glibc
import Grammar
import Hummingbird
import NIOCore
import Synchronization

/// Reads the bodies of requests, each and all of them bounded.
final class RequestBodies: Sendable {
  /// Most bytes of a body.
  let limit: Int
  /// Most bytes of all bodies that are being read or understood.
  private let totalLimit: Int
  /// What compiling the grammar of one may take.
  private let compilationByteCount: Int
  /// Freed memory of bodies longer than that is worth giving back.
  private static let trimByteCount = 1 << 16
  /// The C library's `malloc_trim`, which Swift's module of it leaves out.
  private static let trim: (@convention(c) (Int) -> Int32)? = dlsym(nil, "malloc_trim").map {
    unsafeBitCast($0, to: (@convention(c) (Int) -> Int32).self)
  }
  private let total = Mutex(0)
  /// What is made of a body takes many times its memory: one is understood after the other.
  private let understanding = Mutex(())

  init(limit: Int, totalLimit: Int, compilationByteCount: Int) {
    self.limit = limit
    self.totalLimit = max(limit, totalLimit)
    self.compilationByteCount = compilationByteCount
  }

  /// Gives a request's body to what understands it, and forgets it then.
  ///
  /// - Throws: ``APIError`` with 413 where it is too long, 503 where all of them are, 415 where it is
  ///   compressed, 400 where it does not come whole.
  func read<Result>(
    _ request: Request, _ understand: ([UInt8]) throws -> Result
  ) async throws -> Result {
    try checkCoding(request.headers[values: .contentEncoding])
    let announced = request.headers[.contentLength].flatMap(Int.init) ?? 0
    try check(announced)
    var bytes: [UInt8] = []
    bytes.reserveCapacity(announced)
    defer { total.withLock { $0 -= bytes.count } }
    do {
      for try await part in request.body {
        try reserve(part.readableBytes, after: bytes.count)
        bytes.append(contentsOf: part.readableBytesView)
      }
    } catch let error as APIError { throw error } catch {
      throw APIError(.badRequest, "the request did not come whole: \(error)")
    }
    return try CompiledGrammar.compiling(within: compilationByteCount) {
      try understanding.withLock { _ in
        // What was freed is given back to the system, which counts it otherwise.
        defer { if bytes.count > Self.trimByteCount { _ = Self.trim?(0) } }
        return try understand(bytes)
      }
    }
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

  /// What is compressed must not be told that it is no JSON.
  private func checkCoding(_ codings: [String]) throws {
    guard let coding = codings.first(where: { $0.lowercased() != "identity" }) else { return }
    throw APIError(
      .unsupportedMediaType,
      "the body is encoded ('\(coding.prefix(32))', Content-Encoding): send it as it is",
      code: "unsupported_encoding")
  }

  private func check(_ count: Int) throws {
    guard count > limit else { return }
    throw APIError(
      .contentTooLarge, "the body has more than \(limit) bytes (the server's --max-body)",
      code: "body_too_large")
  }
}
