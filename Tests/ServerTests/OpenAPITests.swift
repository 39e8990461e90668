import ModelFormat
import Server
import Testing

/// The OpenAPI file says what the server does: all of it, and nothing else.
@Suite struct OpenAPITests {
  private static func document() throws -> JSONValue {
    try JSONValue.parsed(String(decoding: Interface.document, as: UTF8.self))
  }

  private static func member(_ name: String, of value: JSONValue?) -> JSONValue? {
    value?.members?.last { $0.key == name }?.value
  }

  /// What a value is, or refers to.
  private static func resolved(_ value: JSONValue?, in document: JSONValue) -> JSONValue? {
    guard let path = value?["$ref"]?.string else { return value }
    return path.split(separator: "/").dropFirst().reduce(document) { found, name in
      found.flatMap { member(String(name), of: $0) }
    }
  }

  /// The schema of what a path is sent, and a body that it takes.
  private struct Endpoint {
    let path: String
    let schema: String
    /// With how it is spelt in JSON.
    let example: [(name: String, value: String)]
  }

  private static func endpoints(_ document: JSONValue) throws -> [Endpoint] {
    try (document["paths"]?.members ?? []).compactMap { path in
      guard let post = path.value["post"] else { return nil }
      let media = member("application/json", of: post["requestBody"]?["content"])
      let reference = try #require(media?["schema"]?["$ref"]?.string)
      let example = try #require(media?["example"]?.members)
      return Endpoint(
        path: path.key, schema: String(reference.split(separator: "/").last ?? ""),
        example: example.map { ($0.key, spelt($0.value)) })
    }
  }

  private static func spelt(_ value: JSONValue) -> String {
    if let text = value.string { return "\"\(text)\"" }
    if let number = value.double { return value.integer.map { "\($0)" } ?? "\(number)" }
    if let list = value.array { return "[\(list.map(spelt).joined(separator: ","))]" }
    if let flag = value.bool { return "\(flag)" }
    guard let members = value.members else { return "null" }
    return "{\(members.map { "\"\($0.key)\":\(spelt($0.value))" }.joined(separator: ","))}"
  }

  @Test func `Every route is in the file, and no other`() async throws {
    let document = try Self.document()
    let methods = ["get", "put", "post", "delete", "options", "head", "patch", "trace"]
    let described = (document["paths"]?.members ?? []).flatMap { path in
      (Self.resolved(path.value, in: document)?.members ?? []).filter {
        methods.contains($0.key)
      }.map { "\($0.key.uppercased()) \(path.key)" }
    }
    try await ServerRig.serving { rig in
      #expect(rig.server.routes.sorted() == described.sorted())
      let reply = try await rig.get("/openapi.json")
      #expect(reply.body == Interface.document)
      #expect(reply.headers["content-type"] == "application/json")
    }
  }

  @Test func `Every member that is read is in the file, and no other`() throws {
    let document = try Self.document()
    let schemas = document["components"]?["schemas"]
    for (name, members) in Interface.objects {
      let schema = try #require(Self.member(name, of: schemas), "\(name)")
      let described = schema["properties"]?.members?.map(\.key) ?? []
      #expect(described.sorted() == members.sorted(), "\(name)")
      #expect(schema["additionalProperties"]?.bool == false, "\(name)")
    }
    #expect(Set(Interface.objects.map(\.schema)).count == Interface.objects.count)
    // Whatever the schemas of bodies are made of.
    var (open, seen) = (try Self.endpoints(document).map(\.schema), Set<String>())
    while let name = open.popLast() {
      guard seen.insert(name).inserted else { continue }
      open += Self.references(in: Self.member(name, of: schemas))
    }
    #expect(seen == Set(Interface.objects.map(\.schema)))
  }

  private static func references(in value: JSONValue?) -> [String] {
    let own = value?["$ref"]?.string?.split(separator: "/").last.map { [String($0)] } ?? []
    let parts = value?.members?.map(\.value) ?? value?.array ?? []
    return own + parts.flatMap { references(in: $0) }
  }

  @Test func `Each path takes the fields of its schema, and their bounds are the file's`()
    async throws
  {
    let document = try Self.document()
    try await ServerRig.serving { rig in
      for endpoint in try Self.endpoints(document) {
        let schema = Self.member(endpoint.schema, of: document["components"]?["schemas"])
        let example = endpoint.example.map(\.name)
        let plain = try await Self.refusal(rig, endpoint, [:])
        #expect(plain == nil, "\(endpoint.path): \(plain ?? "")")
        for required in schema?["required"]?.array?.compactMap(\.string) ?? [] {
          #expect(example.contains(required))
          let without = try await Self.refusal(rig, endpoint, [required: nil])
          #expect(without == required, "\(endpoint.path): \(required)")
        }
        #expect(try await Self.refusal(rig, endpoint, ["nonsense": "1"]) == "nonsense")
        for property in schema?["properties"]?.members ?? [] {
          for (value, isRight) in Self.values(of: property.value) {
            let refused = try await Self.refusal(rig, endpoint, [property.key: value])
            #expect(
              (refused == property.key) == !isRight,
              "\(endpoint.path): \(property.key) \(value), \(refused ?? "taken")")
          }
        }
      }
    }
  }

  /// Values at the bounds of a number and beyond, and of lists of values; whether they are within.
  private static func values(of property: JSONValue) -> [(String, isRight: Bool)] {
    let isWhole =
      (property["type"]?.string ?? property["type"]?.array?.first?.string) == "integer"
    func text(_ number: Double) -> String { isWhole ? String(Int(number)) : "\(number)" }
    var values: [(String, isRight: Bool)] = []
    let step = isWhole ? 1 : 0.001
    if let least = property["minimum"]?.double {
      values += [(text(least), true), (text(least - step), false)]
    }
    if let bound = property["exclusiveMinimum"]?.double {
      values += [(text(bound + step), true), (text(bound), false)]
    }
    if let most = property["maximum"] {
      // Which has no neighbours as a fraction.
      let next = most.integer == .max ? "9223372036854775808" : text((most.double ?? 0) + step)
      values += [(spelt(most), true), (next, false)]
    }
    if let known = property["enum"]?.array {
      values += known.map { (spelt($0), true) } + [("\"nonsense\"", false), ("77", false)]
    }
    return values
  }

  /// The field that a body is refused for; nil where it is not.
  ///
  /// - Parameter fields: those in place of the example's, by name; nil = not there.
  private static func refusal(
    _ rig: ServerRig, _ endpoint: Endpoint, _ fields: [String: String?]
  ) async throws -> String? {
    var (members, fields) = (endpoint.example.filter { fields[$0.name] == nil }, fields)
    // What others need, or what would contradict them.
    if fields["top_logprobs"] != nil {
      let isChat = endpoint.path == "/v1/chat/completions"
      fields[isChat ? "logprobs" : "include"] =
        isChat ? "true" : "[\"message.output_text.logprobs\"]"
    }
    if fields["max_completion_tokens"] != nil { members.removeAll { $0.name == "max_tokens" } }
    members += fields.compactMap { name, value in value.map { (name, $0) } }
    let body = members.map { "\"\($0.name)\":\($0.value)" }.joined(separator: ",")
    let reply = try await rig.post(endpoint.path, "{\(body)}")
    // A time limit may pass before the answer begins.
    #expect([200, 400, 408].contains(reply.status), "\(body): \(reply.text)")
    guard reply.status == 400 else { return nil }
    let error = try JSONValue.parsed(reply.text)["error"]
    // More answers than the server has places for are none of the field's own bounds.
    guard error?["code"]?.string != "too_many_answers" else { return nil }
    return error?["param"]?.string
  }
}
