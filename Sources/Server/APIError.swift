import HTTPTypes
import Hummingbird
import ModelFormat
import NIOCore
import Runtime
import Tokenization

/// Why a request is not answered, as the interfaces say it.
package struct APIError: Error {
  /// Whose interface it is told in.
  enum Form {
    case openAI, anthropic

    /// That of the path, or of the client where the path is both interfaces'.
    init(_ head: HTTPRequest) {
      let path = head.path ?? ""
      let isShared = path.hasPrefix("/v1/models") && head.headerFields[.anthropicVersion] != nil
      self = path.hasPrefix("/v1/messages") || isShared ? .anthropic : .openAI
    }
  }

  var status: HTTPResponse.Status
  /// What is wrong, and what would be right.
  var message: String
  /// The field of the request that is at fault.
  var field: String?
  /// A word for programs.
  var code: String?
  /// When to ask again.
  package var retrySeconds: Int?
  /// What can be done where this cannot.
  var allowedMethods: [HTTPRequest.Method] = []

  init(
    _ status: HTTPResponse.Status, _ message: String, field: String? = nil, code: String? = nil,
    retrySeconds: Int? = nil
  ) {
    self.status = status
    self.message = message
    self.field = field
    self.code = code
    self.retrySeconds = retrySeconds
  }

  /// A field that cannot be taken as it is.
  static func bad(_ field: String, _ message: String, code: String = "invalid_value") -> APIError {
    APIError(.badRequest, message, field: field, code: code)
  }

  /// A result of a call that there was not.
  static func noSuchCall(_ id: String, _ field: String, at place: String) -> APIError {
    .bad(
      field,
      "'\(place)' is the result of the call '\(id.prefix(64))', which no message before it has")
  }

  /// What an engine or a tokenizer says of the prompt in `field`, or of itself.
  init(_ error: RuntimeError, field: String) {
    switch error {
    case .badPrompt: self = .bad(field, error.description)
    case .tokenizer: self = .bad(field, error.description)
    case .sequence(.engineStopped): self.init(.serviceUnavailable, "the server is stopping")
    case .sequence(.noTokenFits), .sequence(.grammarTooAmbiguous):
      // It is the request's own.
      self.init(.badRequest, error.description, code: "invalid_grammar")
    default: self.init(.internalServerError, error.description)
    }
  }

  /// An answer whose time was over before its first token; nil where it has some.
  init?(unanswered finish: TokenSequence.Finish) {
    guard finish.reason == .cancelled, finish.usage.answerTokenCount == 0 else { return nil }
    self = .timeIsOver
  }

  /// The time for an answer passed before there was any of it.
  static let timeIsOver = APIError(
    .requestTimeout,
    "the time limit of the request passed before its answer began (its 'timeout', or the server's "
      + "--request-time-limit)", code: "time_limit")

  /// What is answered and not sent takes more memory than there is.
  static let noAnswerMemory = APIError(
    .serviceUnavailable,
    "answers that are not sent yet take all the memory that there is for them, and this request has most of it: "
      + "stream it, read it faster, or ask for fewer answers and probabilities",
    code: "answer_memory_full", retrySeconds: 1)

  /// Another client has the place in the queue.
  static func gaveWay(_ seconds: Int) -> APIError {
    APIError(
      .tooManyRequests,
      "the queue is full, and another client has fewer answers in it: come again in about \(seconds) s",
      code: "queue_full", retrySeconds: seconds)
  }

  /// The word for its kind that clients of the interface know.
  private func type(_ form: Form) -> String {
    guard form == .anthropic else {
      return switch status.code {
      case 401: "authentication_error"
      case 429: "rate_limit_error"
      case 500...: "server_error"
      default: "invalid_request_error"
      }
    }
    return switch status.code {
    case 401: "authentication_error"
    case 403: "permission_error"
    case 404: "not_found_error"
    case 408: "timeout_error"
    case 413: "request_too_large"
    case 429: "rate_limit_error"
    case 503: "overloaded_error"
    case 500...: "api_error"
    default: "invalid_request_error"
    }
  }

  /// The object that tells of it.
  func json(_ form: Form) -> [UInt8] {
    JSONWriter.document { json in
      if form == .anthropic { json.text("type", "error") }
      json.object("error") { json in
        json.text("message", message)
        json.text("type", type(form))
        // Anthropic's interface has none of them; its clients pass over them.
        json.text("param", field)
        json.text("code", code)
      }
    }
  }

  func response(_ form: Form) -> Response {
    var response = Response(status: status, json: json(form))
    if let retrySeconds { response.headers[.retryAfter] = "\(retrySeconds)" }
    if !allowedMethods.isEmpty {
      response.headers[.allow] = allowedMethods.map(\.rawValue).joined(separator: ", ")
    }
    if status == .unauthorized { response.headers[.wwwAuthenticate] = "Bearer" }
    return response
  }
}

extension HTTPField.Name {
  /// What clients of Anthropic's interface send with every request.
  static let anthropicVersion = Self("anthropic-version")!
}

extension Response {
  /// A response whose body is JSON.
  init(status: HTTPResponse.Status = .ok, json: [UInt8]) {
    self.init(
      status: status, headers: [.contentType: "application/json"],
      body: ResponseBody(byteBuffer: ByteBuffer(bytes: json)))
  }

  /// A response whose body is an object.
  init(_ members: (inout JSONWriter) -> Void) { self.init(json: JSONWriter.document(members)) }
}
