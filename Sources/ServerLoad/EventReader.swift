import ModelFormat

/// What of a streamed answer tells how far it is.
struct EventReader {
  /// Moments at which pieces of the answer came, in nanoseconds.
  private(set) var pieces: [Int] = []
  private(set) var promptTokenCount = 0
  private(set) var cachedTokenCount = 0
  private(set) var answerTokenCount: Int?
  /// Whether the end of the stream was told.
  private(set) var isEnded = false
  /// Whether an error was, and what it said.
  private(set) var hasFailed = false
  private(set) var message: String?
  private var line: [UInt8] = []

  /// Takes bytes of the stream that came at a moment.
  mutating func take(_ bytes: some Sequence<UInt8>, at moment: Int) {
    for byte in bytes {
      guard byte == UInt8(ascii: "\n") else {
        line.append(byte)
        continue
      }
      read(at: moment)
      line.removeAll(keepingCapacity: true)
    }
  }

  private static let mark = Array("data:".utf8)

  private mutating func read(at moment: Int) {
    // Others are comments, names of events, or nothing.
    guard line.starts(with: Self.mark) else { return }
    let data = line.dropFirst(Self.mark.count).drop { $0 == UInt8(ascii: " ") }
    guard !data.starts(with: "[DONE]".utf8) else {
      isEnded = true
      return
    }
    let event = data.withUnsafeBytes { try? JSONParser.parse($0, path: "event") }
    guard let event, event["error"] == nil else {
      hasFailed = true
      message = message ?? event?["error"]?["message"]?.string
      return
    }
    if let usage = event["usage"], !usage.isNull {
      promptTokenCount = usage["prompt_tokens"]?.integer ?? 0
      answerTokenCount = usage["completion_tokens"]?.integer
      cachedTokenCount = usage["prompt_tokens_details"]?["cached_tokens"]?.integer ?? 0
    }
    guard let choice = event["choices"]?.array?.first else { return }
    let texts = [
      choice["text"], choice["delta"]?["content"], choice["delta"]?["reasoning_content"],
    ]
    if texts.contains(where: { $0?.string?.isEmpty == false }) { pieces.append(moment) }
  }
}
