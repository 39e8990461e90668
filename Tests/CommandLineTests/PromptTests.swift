import Glibc
import TestSupport
import Testing

/// How a prompt's bytes reach the model.
@Suite(
  .enabled(if: Program.isBuilt, "the executables are not built beside the tests: swift build first")
)
final class PromptTests {
  private let folder = TemporaryFolder()
  private var model: String { folder.path + "/model" }

  init() { folder.write("model", TinyModel().gguf(seed: 1).bytes()) }

  /// The tokens that a prompt became.
  private func tokens(_ arguments: [String], input: [UInt8] = []) throws -> String {
    let result = try Program.run(
      "flashinfer-run",
      [model, "--raw", "--json", "--max-tokens", "1", "--temperature", "0"] + arguments,
      input: input)
    #expect(result.status == 0, "\(result.errors)")
    let end = result.output.firstRange(of: "\"promptTokens\":[")?.upperBound
    return end.map { String(result.output[$0...].prefix { $0 != "]" }) } ?? ""
  }

  @Test func `One final newline and a byte order mark are no part of a prompt that is read`() throws
  {
    let text = "a\r\nb\r"
    let expected = try tokens([text])
    #expect(!expected.isEmpty)
    for (bytes, argument) in [
      (Array(text.utf8) + [0x0A], "a\r\nb"), (Array("2+2=\n".utf8), "2+2="),
      (Array("2+2=".utf8), "2+2="), (Array("2+2=\r\n".utf8), "2+2="),
      (Array("2+2=\r".utf8), "2+2=\r"), (Array("2+2=\n\n".utf8), "2+2=\n"),
      (Array("2+2=\r\n\r\n".utf8), "2+2=\r\n"), (Array("2+2= \n".utf8), "2+2= "),
      ([0xEF, 0xBB, 0xBF] + Array("2+2=\n".utf8), "2+2="),
      (Array("2+2=".utf8) + [0xEF, 0xBB, 0xBF], "2+2=\u{FEFF}"),
    ] as [([UInt8], String)] {
      let wanted = try tokens(["--", argument])
      #expect(try tokens([], input: bytes) == wanted, "\(bytes)")
      #expect(try tokens(["--prompt-file", "-"], input: bytes) == wanted, "\(bytes)")
      let file = folder.write("prompt", bytes)
      #expect(try tokens(["--prompt-file", file]) == wanted, "\(bytes)")
    }
    // An argument is what it is.
    #expect(try tokens(["2+2=\n"]) != tokens(["2+2="]))
  }

  @Test func `A prompt that begins with a dash is refused with the way to give it`() throws {
    for prompt in [
      "-1 + 2 =", "--- title", "-x", "--nonsense", "- hi", "-hello", "- What is this?", "-xh",
    ] {
      let result = try Program.run("flashinfer-run", [model, "--raw", prompt])
      #expect(result.status == 64, "\(prompt)")
      #expect(
        result.errors.contains("--prompt-file -") && result.errors.contains("-- '"),
        "\(result.errors)")
      #expect(!(try tokens(["--", prompt])).isEmpty)
    }
    let system = try Program.run("flashinfer-run", [model, "x", "--system", "- be brief"])
    #expect(system.status == 64 && system.errors.contains("--system='"), "\(system.errors)")
    let tokens = try Program.run("flashinfer-inspect", [model, "--tokenize", "-5"])
    #expect(tokens.status == 64 && tokens.errors.contains("='"), "\(tokens.errors)")
  }

  @Test func `A system message is read from standard input, which serves one purpose`() throws {
    let template = folder.write(
      "t.jinja", Array("{% for m in messages %}[{{ m.role }}|{{ m.content }}]{% endfor %}".utf8))
    let piped = try Program.run(
      "flashinfer-inspect",
      [model, "--chat-template", template, "--render", "hi", "--system", "-"],
      input: Array("be brief\n".utf8))
    #expect(piped.output.hasPrefix("[system|be brief][user|hi]\n"), "\(piped.errors)")
    let own = folder.write(
      "m.json", Array(#"[{"role":"system","content":"A"},{"role":"user","content":"hi"}]"#.utf8))
    for (arguments, status, text) in [
      ([model, "--system", "-"], 64, "read once"),
      ([model, "-", "--system", "-"], 64, "read once"),
      ([model, "--messages", "-", "--system", "-"], 64, "read once"),
      ([model, "--messages", own, "--system", "B"], 65, "of its own"),
    ] as [([String], Int32, String)] {
      let result = try Program.run(
        "flashinfer-run", arguments + ["--chat-template", template], input: [65])
      #expect(result.status == status && result.errors.contains(text), "\(result.errors)")
    }
  }

  @Test func `What is wrong with a command says where the right one is`() throws {
    let second = folder.write(
      "m.json", Array(#"[{"role":"user","content":"hi"},{"role":"user"}]"#.utf8))
    func conversation(_ name: String, _ json: String) -> String {
      folder.write(name, Array(json.utf8))
    }
    let message = #"[{"role":"user","content":"hi"}]"#
    let number = conversation("n.json", #"[{"role":"user","content":5}]"#)
    let request = conversation("r.json", #"{"temperature":0,"messages":\#(message)}"#)
    let tools = conversation("t.json", #"{"tools":{"a":1},"messages":\#(message)}"#)
    for (arguments, status, text) in [
      ([model, "hi", "--plan"], 64, "flashinfer-inspect"),
      ([model, "hi", "--ram", "2"], 64, "2GiB"),
      ([model, "--messages", second], 65, "messages[1], of role 'user', has no 'content'"),
      ([model, "--messages", number], 65, "neither text nor a list of parts"),
      ([model, "--messages", request], 65, "'temperature' is no part of a conversation"),
      ([model, "--messages", tools], 65, "'tools' is not a list"),
      ([model, folder.write("b.gguf", [0])], 64, "is a model's file"),
      ([model, "hi", "--template-arg", "messages=1"], 64, "part of the conversation"),
      (
        [folder.write("m.safetensors", [2, 0, 0, 0, 0, 0, 0, 0] + Array("{}".utf8)), "hi"], 65,
        "name the folder"
      ),
      (["What is flash storage?"], 66, "the first argument is the model's path"),
      ([], 64, "<model>"),
    ] as [([String], Int32, String)] {
      let result = try Program.run("flashinfer-run", arguments)
      #expect(result.status == status && result.errors.contains(text), "\(result.errors)")
      #expect(result.errors.hasSuffix("\n") && !result.errors.hasSuffix("\n\n"))
    }
  }

  @Test func `Help that cannot be written is an error`() throws {
    for command in ["run --help", "inspect --version", "bench help load"] {
      let result = try Program.shell("\"$BIN\"/flashinfer-\(command) > /dev/full")
      #expect(result.status == 1 && result.errors.contains("standard output"), "\(command)")
    }
  }

  @Test func `What is no UTF-8 is refused as a prompt and as a system message`() throws {
    for command in ["--raw \"$T\"", "x --system \"$T\"", "--raw --prompt-file text"] {
      let result = try Program.shell(
        "cd '\(folder.path)'; T=$(printf 'caf\\351'); printf '%s' \"$T\" > text; "
          + "exec \"$BIN\"/flashinfer-run model \(command)")
      #expect(result.status == 65, "\(command): \(result.errors)")
    }
  }

  @Test func `A dash is standard input wherever a text is named`() throws {
    let bytes = Array("the end".utf8)
    #expect(try tokens(["-"], input: bytes) == tokens(["the end"]))
    let text = Array(String(repeating: "the quick brown fox jumps over it ", count: 40).utf8)
    let file = folder.write("text", text)
    for arguments in [
      ["perplexity", model, "TEXT", "--context", "16", "--chunks", "2"],
      ["policy", model, "TEXT", "--context", "32", "--positions", "4"],
      ["decode", model, "--tokens", "2", "--warmup", "1", "--text", "TEXT"],
    ] {
      func run(_ name: String, _ input: [UInt8] = []) throws -> Program.Result {
        let named = arguments.map { $0 == "TEXT" ? name : $0 }
        return try Program.run("flashinfer-bench", named, input: input)
      }
      let (named, piped) = (try run(file), try run("-", text))
      #expect(named.status == 0 && piped.status == 0, "\(arguments[0]): \(piped.errors)")
      #expect(
        named.output.split(separator: "\n").count == piped.output.split(separator: "\n").count)
    }
    let empty = try Program.run("flashinfer-bench", ["perplexity", model, "-"])
    #expect(empty.status == 65 && empty.errors.contains("standard input"), "\(empty.errors)")
  }
}
