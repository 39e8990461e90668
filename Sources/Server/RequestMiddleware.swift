import HTTPTypes
import Hummingbird
import Logging

/// Around every request: looks who asks, counts it, and tells of what went wrong as its interface does.
struct RequestMiddleware: RouterMiddleware {
  let access: AccessRules
  let routes: RouteTable
  let metrics: AnswerMetrics

  func handle(
    _ request: Request, context: ConnectionContext,
    next: (Request, ConnectionContext) async throws -> Response
  ) async throws -> Response {
    var response: Response
    do {
      switch try access.decide(request) {
      case .answer(let answer): response = answer
      case .admit(let holder):
        var context = context
        context.holder = holder
        response = try await next(request, context)
      }
    } catch { response = refusal(of: request, error, context) }
    access.complete(&response, to: request)
    if request.method == .head { response = response.createHeadResponse() }
    metrics.note(route: context.endpointPath ?? "none", status: response.status.code)
    return response
  }

  private func refusal(
    of request: Request, _ error: any Error, _ context: ConnectionContext
  ) -> Response {
    let form = APIError.Form(request.head)
    switch error {
    case let error as APIError: return error.response(form)
    case let error as HTTPError where error.status == .notFound:
      return noSuchRoute(request).response(form)
    case is CancellationError:
      // Nobody is there to read it.
      return Response(status: .init(code: 499, reasonPhrase: "Client Closed Request"))
    default:
      context.logger.error("a request failed: \(error)")
      return APIError(.internalServerError, "the request failed: \(error)")
        .response(form)
    }
  }

  private func noSuchRoute(_ request: Request) -> APIError {
    let (path, methods) = (request.uri.path, routes.methods(at: request.uri.path))
    guard !methods.isEmpty else {
      let known = ["/v1" + path, String(path.dropFirst(3))].first {
        !routes.methods(at: $0).isEmpty
      }
      return APIError(
        .notFound,
        "there is no \(path.prefix(200)) here\(known.map { ", but \($0)" } ?? "")",
        code: "unknown_url")
    }
    let names = methods.map(\.rawValue).joined(separator: " or ")
    var error = APIError(
      .methodNotAllowed, "\(path) takes \(names), not \(request.method.rawValue.prefix(64))",
      code: "method_not_allowed")
    error.allowedMethods = methods
    return error
  }
}
