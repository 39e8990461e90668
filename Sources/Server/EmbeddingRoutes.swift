import HTTPTypes
import Hummingbird
import ModelFormat
import NIOCore
import Runtime

/// `/v1/embeddings`: what texts mean, as vectors.
struct EmbeddingRoutes: Sendable {
  let model: ServedModel
  let bodies: RequestBodies
  let desk: AnswerDesk
  /// How hidden states are pooled where a request does not say it.
  let pooling: Pooling
  let memory: EmbeddingMemory

  func add(to router: Router<ConnectionContext>) {
    router.post("v1/embeddings") { request, context in
      try await answer(request, context)
    }
  }

  private func answer(
    _ request: Request, _ context: ConnectionContext
  ) async throws -> Response {
    let size = model.hiddenSize
    let (inputs, pooling, isBase64) = try await bodies.read(request) { body in
      let asked = try EmbeddingsRequest(body, usual: self.pooling, size: size)
      try model.check(asked.model)
      return (try asked.inputs.map(model.embeddingTokens), asked.pooling, asked.isBase64)
    }
    let share = try memory.enter(inputs.count, size: size)
    let embeddings = Embeddings(inputs, pooling, for: try await context.client(), at: desk)
    let vectors = try await ClientWatch.during(
      context.channel, onLeaving: { embeddings.cancel() }, embeddings.vectors)
    let tokenCount = inputs.reduce(0) { $0 + $1.count }
    let name = model.name
    return Response(
      status: .ok, headers: [.contentType: "application/json"],
      body: ResponseBody { writer in
        // One after the other: as text they take several times their memory.
        try await writer.write(ByteBuffer(string: #"{"object":"list","data":["#))
        for (index, vector) in vectors.enumerated() {
          if index > 0 { try await writer.write(ByteBuffer(string: ",")) }
          let json = Self.json(vector, index: index, isBase64: isBase64)
          try await writer.write(ByteBuffer(bytes: json))
        }
        let name = JSONWriter.value { $0.text(nil, name) }
        let usage = #"{"prompt_tokens":\#(tokenCount),"total_tokens":\#(tokenCount)}"#
        try await writer.write(
          ByteBuffer(
            bytes: Array(#"],"model":"#.utf8) + name + Array(",\"usage\":\(usage)}\n".utf8)))
        try await writer.finish(nil)
        withExtendedLifetime(share) {}
      })
  }

  private static func json(_ vector: [Float], index: Int, isBase64: Bool) -> [UInt8] {
    JSONWriter.value { json in
      json.object { json in
        json.text("object", "embedding")
        json.number("index", index)
        if isBase64 {
          json.text("embedding", utf8: base64(vector))
        } else {
          json.array("embedding", of: vector) { $0.number(nil, $1) }
        }
      }
    }
  }

  /// The numbers' bytes, little-endian, as RFC 4648 spells them (§4).
  private static func base64(_ vector: [Float]) -> [UInt8] {
    let bytes = vector.flatMap { number in
      withUnsafeBytes(of: number.bitPattern.littleEndian) { Array($0) }
    }
    var text: [UInt8] = []
    text.reserveCapacity((bytes.count + 2) / 3 * 4)
    for start in stride(from: 0, to: bytes.count, by: 3) {
      let group = bytes[start..<min(start + 3, bytes.count)]
      var bits = group.reduce(UInt32(0)) { $0 << 8 | UInt32($1) }
      bits <<= UInt32(8 * (3 - group.count))
      for place in 0..<4 {
        text.append(
          place <= group.count
            ? base64Digits[Int(bits >> UInt32(18 - 6 * place) & 63)] : UInt8(ascii: "="))
      }
    }
    return text
  }

  private static let base64Digits = Array(
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/".utf8)
}
