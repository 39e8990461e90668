import HTTPTypes
import Hummingbird
import Logging

/// Around every request: counts it, and tells of what went wrong as OpenAI's interface does.
struct RequestMiddleware: RouterMiddleware {
  let metrics: AnswerMetrics

  func handle(
    _ request: Request, context: ConnectionContext,
    next: (Request, ConnectionContext) async throws -> Response
  ) async throws -> Response {
    let response: Response
    do { response = try await next(request, context) } catch {
      response = Self.refusal(of: request, error, context)
    }
    metrics.note(route: context.endpointPath ?? "none", status: response.status.code)
    return response
  }

  private static func refusal(
    of request: Request, _ error: any Error, _ context: ConnectionContext
  ) -> Response {
    switch error {
    case let error as APIError: return error.response(from: request, context: context)
    case let error as HTTPError where error.status == .notFound:
      return APIError(
        .notFound, "there is no \(request.method.rawValue) \(request.uri.path.prefix(200)) here",
        code: "unknown_url"
      ).response(from: request, context: context)
    case is CancellationError:
      // Nobody is there to read it.
      return Response(status: .init(code: 499, reasonPhrase: "Client Closed Request"))
    default:
      context.logger.error("a request failed: \(error)")
      return APIError(.internalServerError, "the request failed: \(error)")
        .response(from: request, context: context)
    }
  }
}
