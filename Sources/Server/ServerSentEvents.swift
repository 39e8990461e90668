import Hummingbird
import NIOCore

/// Writes server-sent events (WHATWG HTML, §9.2) as the body of a response.
struct ServerSentEvents {
  private var writer: any ResponseBodyWriter

  struct Event: Sendable {
    var name: String?
    /// With its newline.
    var line: [UInt8]
  }

  init(_ writer: any ResponseBodyWriter) { self.writer = writer }

  /// A line that clients pass over: it shows that the server is there.
  mutating func comment(_ text: String) async throws {
    try await writer.write(ByteBuffer(string: ": \(text)\n\n"))
  }

  /// An event of one line, which ends with its newline.
  mutating func send(_ event: Event) async throws {
    var buffer = ByteBuffer()
    if let name = event.name { buffer.writeString("event: \(name)\n") }
    buffer.writeString("data: ")
    buffer.writeBytes(event.line)
    buffer.writeString("\n")
    try await writer.write(buffer)
  }

  mutating func finish() async throws { try await writer.finish(nil) }
}
