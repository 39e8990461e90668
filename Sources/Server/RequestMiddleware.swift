import HTTPTypes
import Hummingbird
import Logging

/// Around every request: looks who asks, counts it, and tells of what went wrong as its interface does.
struct RequestMiddleware: RouterMiddleware {
  let access: AccessRules
  let metrics: AnswerMetrics

  func handle(
    _ request: Request, context: ConnectionContext,
    next: (Request, ConnectionContext) async throws -> Response
  ) async throws -> Response {
    var response: Response
    do {
      if let answer = try access.answer(request) {
        response = answer
      } else {
        response = try await next(request, context)
      }
    } catch { response = Self.refusal(of: request, error, context) }
    access.complete(&response, to: request)
    metrics.note(route: context.endpointPath ?? "none", status: response.status.code)
    return response
  }

  private static func refusal(
    of request: Request, _ error: any Error, _ context: ConnectionContext
  ) -> Response {
    let form = APIError.Form(path: request.uri.path)
    switch error {
    case let error as APIError: return error.response(form)
    case let error as HTTPError where error.status == .notFound:
      return APIError(
        .notFound, "there is no \(request.method.rawValue) \(request.uri.path.prefix(200)) here",
        code: "unknown_url"
      ).response(form)
    case is CancellationError:
      // Nobody is there to read it.
      return Response(status: .init(code: 499, reasonPhrase: "Client Closed Request"))
    default:
      context.logger.error("a request failed: \(error)")
      return APIError(.internalServerError, "the request failed: \(error)")
        .response(form)
    }
  }
}
