import Hummingbird
import NIOCore

/// Writes server-sent events (WHATWG HTML, §9.2) as the body of a response.
struct ServerSentEvents {
  private var writer: any ResponseBodyWriter

  init(_ writer: any ResponseBodyWriter) { self.writer = writer }

  /// A line that clients pass over: it shows that the server is there.
  mutating func comment(_ text: String) async throws {
    try await writer.write(ByteBuffer(string: ": \(text)\n\n"))
  }

  /// An event of one line, which ends with its newline.
  mutating func event(_ line: [UInt8]) async throws {
    var buffer = ByteBuffer(string: "data: ")
    buffer.writeBytes(line)
    buffer.writeString("\n")
    try await writer.write(buffer)
  }

  /// What OpenAI's streams end with.
  mutating func done() async throws {
    try await writer.write(ByteBuffer(string: "data: [DONE]\n\n"))
    try await writer.finish(nil)
  }
}
