import CommandLineSupport
import Testing

/// What is a command in a conversation, and what a message.
@Suite struct ConversationInputTests {
  @Test(
    "Commands",
    arguments: [
      ("/system Be brief. ", .system("Be brief.")), ("/system", .system("")),
      ("/system one\ntwo", .system("one\ntwo")),
      ("/save a b.json", .save(path: "a b.json")), ("/load  chat.json ", .load(path: "chat.json")),
      ("/regenerate", .regenerate), ("/stats", .statistics), ("/help ", .help), ("/quit", .quit),
      ("/exit", .quit),
    ] as [(String, ConversationInput)])
  func commands(text: String, expected: ConversationInput) {
    #expect(ConversationInput(text) == expected)
  }

  @Test(
    "Messages stay as they are",
    arguments: [
      " /quit", "hi", "hi /quit", "two\nlines\n", "/usr/bin is a folder", "/", "/ quit",
      "/2 is half",
      "/* a comment */", "\\",
    ])
  func messages(text: String) {
    #expect(ConversationInput(text) == .message(text))
  }

  @Test func `Two slashes begin a message with one`() {
    #expect(ConversationInput("//quit") == .message("/quit"))
    #expect(ConversationInput("// a") == .message("/ a"))
  }

  @Test func `A mistake says what would be right`() {
    for (text, hint) in [
      ("/nonsense", "/help"), ("/Quit", "/help"), ("/save", "/save chat.json"),
      ("/load ", "/load chat.json"), ("/quit now", "nothing after it"),
    ] {
      guard case .mistake(let reason) = ConversationInput(text) else {
        Issue.record("\(text) was taken")
        continue
      }
      #expect(reason.contains(hint), "\(reason)")
    }
  }

  @Test(arguments: ["", " ", "\n \t"]) func `White space is nothing`(text: String) {
    #expect(ConversationInput(text) == .nothing)
  }
}
