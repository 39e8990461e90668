import Foundation
import TestSupport
import Testing

/// `flashinfer-run` on a terminal without a prompt.
@Suite(
  .serialized,
  .enabled(if: Program.isBuilt, "the executables are not built beside the tests: swift build first")
)
final class ConversationTests {
  private let folder = TemporaryFolder()
  private var model: String { folder.path + "/model" }
  private var saved: String { folder.path + "/chat.json" }
  private let template: String
  private let sampling = ["--seed", "5", "--max-tokens", "12"]

  init() {
    var tiny = TinyModel()
    tiny.contextLength = 2048
    folder.write("model", tiny.gguf(seed: 1).bytes())
    template = folder.write(
      "template",
      Array(
        """
        {% for m in messages %}<{{ m.role }}>{{ m.content }}
        {% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}
        """.utf8))
  }

  /// The terminal's sign that a line is read: from there on pasted blocks have marks.
  private static let ready = "\u{1B}[?2004h"

  private func converse(
    _ lines: [String], _ arguments: [String] = [], model: String? = nil
  ) throws -> Program.Screen {
    try type(lines.map { (Self.ready, $0 + "\r") }, arguments, model: model)
  }

  private func type(
    _ typing: [(cue: String, keys: String)], _ arguments: [String] = [], model: String? = nil
  ) throws -> Program.Screen {
    try Program.onTerminal(
      "flashinfer-run",
      [model ?? self.model, "--chat-template", template] + sampling + arguments,
      environment: ["TERM=xterm", "HOME=" + folder.path], typing: typing)
  }

  private struct Message: Codable, Equatable {
    var role: String
    var content: String

    static func user(_ text: String) -> Message { Message(role: "user", content: text) }
  }

  private func messages() throws -> [Message] {
    try JSONDecoder().decode(
      [Message].self, from: Data(contentsOf: URL(fileURLWithPath: saved)))
  }

  /// The answer of `--messages`.
  private func answer(
    to messages: [Message], _ arguments: [String] = [], model: String? = nil
  ) throws -> String {
    struct Result: Decodable { var text: String }
    let path = folder.write("messages", Array(try JSONEncoder().encode(messages)))
    let result = try Program.run(
      "flashinfer-run",
      [
        model ?? self.model, "--chat-template", template, "--messages", path, "--json",
      ] + sampling + arguments)
    #expect(result.status == 0, "\(result.errors)")
    return try JSONDecoder().decode(Result.self, from: Data(result.output.utf8)).text
  }

  @Test(arguments: [
    [], ["--system", "Be brief."], ["--kv-type", "q8", "--threads", "1"],
    ["--kv-policy", "window=128"],
    ["--ignore-eos", "--max-tokens", "60"],
  ])
  func `Every turn is answered as --messages answers the same history`(
    arguments: [String]
  ) throws {
    let screen = try converse(
      ["the first message", "and a second one", "/save \(saved)", "/quit"], arguments)
    #expect(screen.status == 0, "\(screen.transcript)")
    let messages = try messages()
    let first = arguments.first == "--system" ? 1 : 0
    try #require(messages.count == first + 4, "\(messages)")
    let plain = first == 1 ? Array(arguments.dropFirst(2)) : arguments
    for turn in [first, first + 2] {
      #expect(messages[turn].role == "user" && messages[turn + 1].role == "assistant")
      let expected = try answer(to: Array(messages[...turn]), plain)
      #expect(messages[turn + 1].content == expected, "\(messages)")
    }
    if first == 1 { #expect(messages[0] == Message(role: "system", content: "Be brief.")) }
  }

  /// Where layers have states, an answer is taken back to a copy of them, or read again.
  @Test(arguments: ["llama", "qwen35"])
  func `/regenerate gives another answer, which the same seed gives again`(family: String) throws {
    var tiny = TinyModel(architecture: family)
    tiny.contextLength = 2048
    let model = folder.write(family, tiny.gguf(seed: 1).bytes())
    let lines = ["one", "two", "/regenerate", "/regenerate", "/save \(saved)", "/quit"]
    #expect(try converse(lines, model: model).status == 0)
    let third = try messages()
    #expect(try converse(lines, model: model).status == 0)
    #expect(try messages() == third && third.count == 4)
    #expect(try converse(["one", "two", "/save \(saved)", "/quit"], model: model).status == 0)
    let first = try messages()
    #expect(third[..<3] == first[..<3] && third[3] != first[3])
    let nothing = try converse(["/regenerate", "/quit"], model: model)
    #expect(nothing.status == 0 && nothing.transcript.contains("no message to answer"))
  }

  @Test func `A conversation that was saved goes on where it was`() throws {
    let more = ["another message", "/save \(saved)", "/quit"]
    #expect(try converse(["a message"] + more).status == 0)
    let whole = try messages()
    #expect(try converse(["a message", "/save \(saved)", "/quit"]).status == 0)
    #expect(try messages() == Array(whole[..<2]))
    #expect(try converse(["/load \(saved)"] + more).status == 0)
    #expect(try messages() == whole)
    let missing = try converse(["/load \(folder.path)/none", "/stats", "/quit"])
    #expect(missing.status == 0 && missing.transcript.contains("No such file"))
    let replaced = try converse(["a", "/save \(model)", "/quit"])
    #expect(replaced.status == 0 && replaced.transcript.contains("error: "))
  }

  @Test func `A store keeps a conversation for the next one`() throws {
    let arguments = ["--kv-store", folder.path + "/store", "--max-tokens", "80", "--ignore-eos"]
    let lines = [
      "a message " + String(repeating: "of many words ", count: 20), "/regenerate", "go on",
      "/save \(saved)", "/quit",
    ]
    #expect(try converse(lines, arguments).status == 0)
    let first = try messages()
    #expect(try converse(lines, arguments).status == 0)
    #expect(try messages() == first && first.count == 4)
    // Goes on in the middle of what is stored, and stores that in turn.
    let other = ["/load \(saved)", "/regenerate", "/system Other", "hello", "/stats", "/quit"]
    let screen = try converse(other, arguments)
    #expect(screen.status == 0 && !screen.transcript.contains("damaged"), "\(screen.transcript)")
    let last = try converse(other, arguments)
    #expect(last.status == 0 && !last.transcript.contains("damaged"), "\(last.transcript)")
  }

  @Test func `Ctrl-C ends an answer and not the conversation`() throws {
    var wide = TinyModel()
    (wide.layerCount, wide.hiddenSize, wide.feedForwardLength) = (16, 512, 1536)
    (wide.queryHeadCount, wide.headDim) = (8, 64)
    let path = folder.write("wide", wide.gguf(seed: 1).bytes())
    let arguments = ["--ignore-eos", "--max-tokens", "400"]
    let whole = try answer(to: [.user("hello")], arguments, model: path)
    let screen = try type(
      [
        // The line, then the start of the answer.
        (Self.ready, "hello\r"), ("\u{1B}[?2004l", ""),
        (String(whole.unicodeScalars.prefix(3)), "\u{3}"),
        (Self.ready, "/save \(saved)\r"), (Self.ready, "again\r"),
        ("\u{1B}[?2004l", ""), (Self.ready, "/quit\r"),
      ], arguments, model: path)
    #expect(screen.status == 0, "\(screen.transcript)")
    #expect(screen.transcript.contains("interrupted"))
    let kept = try messages()
    try #require(kept.count == 2, "\(kept)")
    #expect(!kept[1].content.isEmpty && kept[1].content.count < whole.count)
    #expect(whole.hasPrefix(kept[1].content))
    let next = try answer(to: kept + [.user("again")], ["--max-tokens", "12"], model: path)
    #expect(screen.transcript.contains(next.split(separator: "\n")[0]), "\(next)")
  }

  @Test func `Ctrl-C clears the line, and a second one ends, as Ctrl-D does`() throws {
    let cleared = try type([
      (Self.ready, "something\u{3}"), (Self.ready, "/save \(saved)\r"), (Self.ready, "\u{4}"),
    ])
    #expect(cleared.status == 0 && cleared.transcript.contains("no messages"))
    let twice = try type([(Self.ready, "\u{3}"), (Self.ready, "\u{3}")])
    #expect(twice.status == 0, "\(twice.transcript)")
    let end = try type([(Self.ready, "\u{4}")])
    #expect(end.status == 0 && end.transcript.contains("context: 2048 tokens"), "\(end.transcript)")
  }

  @Test func `Lines are edited, go on after a backslash, and are pasted as a block`() throws {
    let screen = try type([
      (Self.ready, "onf\u{7F}e\\\r"), (Self.ready, "größer\r"),
      (Self.ready, "\u{1B}[200~a\rb\rc\u{1B}[201~!\r"), (Self.ready, "/not\r"),
      (Self.ready, "/save \(saved)\r"), (Self.ready, "/quit\r"),
    ])
    #expect(screen.status == 0, "\(screen.transcript)")
    let typed = try messages().filter { $0.role == "user" }
    #expect(typed == [.user("one\ngrößer"), .user("a\nb\nc!")])
    #expect(screen.transcript.contains("no command /not"))
  }

  @Test func `What does not fit is said, and is no part of the conversation`() throws {
    let words = String(repeating: "many words ", count: 12)
    let screen = try converse(
      ["hi", words, "/save \(saved)", "/quit"], ["--context", "60", "--max-tokens", "8"])
    #expect(screen.status == 0)
    #expect(screen.transcript.contains("longer --context"), "\(screen.transcript)")
    #expect(try messages().count == 2)
  }

  @Test func `Without a chat template, or with drives, there is no conversation`() throws {
    func run(_ arguments: [String]) throws -> Program.Screen {
      try Program.onTerminal("flashinfer-run", [model] + arguments)
    }
    let plain = try run([])
    #expect(plain.status == 65 && plain.transcript.contains("--chat-template"))
    #expect(plain.transcript.contains("--raw"))
    let drives = try run(["--chat-template", template, "--attention", "in-storage"])
    #expect(drives.status == 64 && drives.transcript.contains("--attention"))
    let raw = try run(["--raw"])
    #expect(raw.status == 64 && raw.transcript.contains("no prompt"), "\(raw.transcript)")
  }
}
