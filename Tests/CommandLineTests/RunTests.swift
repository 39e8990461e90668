import Glibc
import TensorBasics
import TestSupport
import Testing

/// The contract of `flashinfer-run` and `flashinfer-inspect` that scripts depend on.
@Suite(
  .serialized,
  .enabled(if: Program.isBuilt, "the executables are not built beside the tests: swift build first")
)
final class RunTests {
  private let folder = TemporaryFolder()
  private var model: String { folder.path + "/model" }
  private let bytes = TinyModel().gguf(seed: 1).bytes()

  init() { folder.write("model", bytes) }

  private func run(_ arguments: [String], input: [UInt8] = []) throws -> Program.Result {
    try Program.run("flashinfer-run", arguments, input: input)
  }

  @Test("--json prints one object with the fields of the contract") func jsonFields() throws {
    let result = try run([
      model, "--tokens", "5,6,7", "--json", "--logprobs", "2", "--max-tokens", "3", "--ignore-eos",
    ])
    #expect(result.status == 0)
    #expect(result.output.filter { $0 == "\n" }.count == 1)
    for field in [
      "text", "promptTokens", "tokens", "topLogprobs", "timing", "loadSeconds",
      "timeToFirstTokenSeconds", "prefillTokensPerSecond", "decodeTokensPerSecond", "io",
      "bytesRead", "requests", "bytesPerToken", "dutyCycle", "driveBytesPerSecond", "memory",
      "kvType", "kvPolicy", "kvBlocksAttended", "kvBlocksSkipped", "kvBytesRead", "kvBytesWritten",
      "kvBytesPerToken", "kvResidentFraction",
      "budgetBytes", "peakResidentBytes", "plan", "pinnedBytes", "streamedBytes",
    ] { #expect(result.output.contains("\"\(field)\":"), "\(field)") }
    #expect(result.output.contains("\"promptTokens\":[5,6,7]"))
    #expect(result.errors.contains("seed"))
  }

  @Test("Equal seeds give equal answers through every back end", arguments: ["pread", "mmap"])
  func backEndsAgree(backEnd: String) throws {
    let arguments = [model, "--raw", "then", "--seed", "7", "--max-tokens", "12", "--ignore-eos"]
    let expected = try run(arguments)
    let result = try run(arguments + ["--io", backEnd])
    #expect(expected.status == 0 && result.status == 0)
    #expect(result.output == expected.output)
  }

  @Test("A prompt is the same from the argument, a file and standard input") func sources() throws {
    let rest = ["--raw", "--temperature", "0", "--max-tokens", "4"]
    folder.write("other", Array("the end".utf8))
    let expected = try run([model, "the end"] + rest)
    #expect(
      try run([model, "--prompt-file", folder.path + "/other"] + rest).output == expected.output)
    #expect(try run([model] + rest, input: Array("the end".utf8)).output == expected.output)
  }

  @Test("Failures end with their exit code and one line that says why") func failures() throws {
    folder.write("other", Array(bytes.prefix(bytes.count / 2)))
    let long = String(repeating: "word ", count: 600)
    let cases: [(arguments: [String], input: [UInt8], status: Int32)] = [
      ([model, "x", "--nonsense"], [], 64), ([model, "x", "--max-tokens", "0"], [], 64),
      ([model, "--raw", "x", "--kv-type", "q5"], [], 64), ([model, "--tokens", "1,a"], [], 64),
      ([model, "--tokens", "1 2"], [], 64), ([model, "--tokens", "1,,2"], [], 64),
      ([model, "--tokens", "1,2,"], [], 64), ([model, "--tokens", " "], [], 64),
      ([model, "x"], [], 65),
      ([model, "--raw", ""], [], 65), ([model, "--raw"], [], 65),
      ([model, "--raw", long], [], 65), ([model, "--raw"], [0xFF, 0xFE], 65),
      ([model, "--raw"], [1, 0, 2], 65), ([model, "--tokens", "99999"], [], 65),
      ([folder.path, "x"], [], 65), ([folder.path + "/other", "x"], [], 65),
      (["/etc/passwd", "x"], [], 65), ([folder.path + "/none", "x"], [], 66),
      ([model, "--prompt-file", folder.path + "/none"], [], 66),
      ([model, "--raw", "x", "--ram", "1MiB"], [], 69),
      ([model, "--raw", "x", "--kv-ram", "1KiB"], [], 69),
    ]
    for (arguments, input, status) in cases {
      let result = try run(arguments, input: input)
      #expect(result.status == status, "\(arguments.dropFirst()): \(result.errors)")
      #expect(result.output.isEmpty && !result.errors.isEmpty)
    }
  }

  @Test("The smallest budget a refusal names is one that works") func minimumBudget() throws {
    let arguments = [model, "--raw", "x", "--max-tokens", "20", "--ram"]
    let refusal = try run(arguments + ["1MiB"]).errors
    let words = refusal.split(whereSeparator: \.isWhitespace)
    let smallest = words.suffix(2).joined()
    let result = try run(arguments + [smallest])
    #expect(result.status == 0, "\(smallest): \(result.errors)")
  }

  @Test("Keys and values beyond --kv-ram change nothing, and the smallest that works is named")
  func keyValueBudget() throws {
    let tokens = (0..<1100).map { String(5 + $0 % 250) }.joined(separator: ",")
    let arguments = [
      model, "--tokens", tokens, "--context", "1200", "--max-tokens", "8", "--temperature", "0",
      "--ignore-eos",
    ]
    let expected = try run(arguments)
    let refusal = try run(arguments + ["--kv-ram", "1KiB"])
    #expect(expected.status == 0 && refusal.status == 69)
    let smallest = refusal.errors.split(whereSeparator: \.isWhitespace).suffix(2).joined()
    for io in ["auto", "pread", "mmap"] {
      let result = try run(
        arguments + ["--kv-ram", smallest, "--kv-dir", folder.path, "--io", io])
      #expect(result.status == 0 && result.output == expected.output, "\(result.errors)")
      #expect(result.errors.contains("keys and values"), "\(result.errors)")
    }
    #expect(folder.entries.filter { $0.contains("kv") }.isEmpty)
    let nowhere = try run(arguments + ["--kv-ram", smallest, "--kv-dir", folder.path + "/none"])
    #expect(nowhere.status != 0 && nowhere.errors.contains("/none"))
  }

  @Test("A signal ends it with 130, also while it waits for a prompt")
  func interruption() throws {
    for signal in [SIGINT, SIGTERM] {
      let result = try Program.run(
        "flashinfer-run", [model, "--raw"], keepsInputOpen: true, signal: (signal, 300))
      #expect(result.status == 130)
      #expect(!result.errors.isEmpty)
    }
  }

  @Test("flashinfer-inspect describes, plans, tokenises, and verifies GGUF files")
  func inspect() throws {
    let description = try Program.run("flashinfer-inspect", [model])
    #expect(description.status == 0 && description.output.contains("architecture: llama"))
    let plan = try Program.run("flashinfer-inspect", [model, "--plan", "--ram", "100MiB"])
    #expect(plan.status == 0 && plan.output.contains("pinned weights"))
    let text = " the\u{A0}é <|endoftext|>\n"
    let tokens = try Program.run("flashinfer-inspect", [model, "--tokenize", text])
    let piped = try Program.run(
      "flashinfer-inspect", [model, "--tokenize", "-"], input: Array(text.utf8))
    #expect(tokens.status == 0 && tokens.output.first == "[" && tokens.output == piped.output)
    let special = try Program.run(
      "flashinfer-inspect", [model, "--tokenize", "<|endoftext|>", "--special"])
    #expect(special.output == "[0]\n")
    let cache = TemporaryFolder()
    let environment = ["XDG_CACHE_HOME=\(cache.path)"]
    func inspect(_ more: [String] = []) throws -> Program.Result {
      try Program.run("flashinfer-inspect", [model] + more, environment: environment)
    }
    #expect(try inspect().output.contains("identity: not known"))
    for words in ["read for the first time", "unchanged since they were last read"] {
      let verification = try inspect(["--verify"])
      #expect(verification.status == 0 && verification.output.contains(words))
    }
    #expect(try inspect().output.contains("of the checksums of all weights"))
    // Other bytes in the same file.
    folder.write("model", TinyModel().gguf(seed: 2).bytes())
    for words in ["now holds another model", "unchanged since they were last read"] {
      let verification = try inspect(["--verify"])
      #expect(verification.status == 0 && verification.output.contains(words))
    }
    // One byte of it is damaged: code 65, as often as it is asked.
    var damaged = TinyModel().gguf(seed: 2).bytes()
    damaged[damaged.count - 40] ^= 1
    folder.write("model", damaged)
    for _ in 0..<2 {
      let verification = try inspect(["--verify"])
      #expect(verification.status == 65 && verification.errors.contains("download it again"))
    }
    // The same bytes, written again; and other names and times of them.
    folder.write("model", TinyModel().gguf(seed: 2).bytes())
    for words in ["and they are what they were", "unchanged since they were last read"] {
      #expect(try inspect(["--verify"]).output.contains(words))
    }
  }

  @Test func `Questions to inspect that exclude each other are refused, not dropped`() throws {
    for (arguments, reason) in [
      (["--plan", "--tensors"], "--plan and --tensors exclude each other"),
      (["--verify", "--tokenize", "a"], "--verify and --tokenize exclude"),
      (["--render", "a", "--messages", "-"], "give the prompt once"),
      (["--machine"], "give only one of"),
    ] {
      let result = try Program.run("flashinfer-inspect", [model] + arguments)
      #expect(result.status == 64 && result.errors.contains(reason), "\(result.errors)")
    }
  }

  @Test("Striped and mirrored models answer like the file they came from")
  func severalDrives() throws {
    let paths = ["s0", "s1", "s2"].map { "\(folder.path)/\($0)" }
    let convert = [model, paths[0], "--stripe", paths[1], "--stripe", paths[2]]
    for refused in [["--stripe-unit", "5000"], ["--stripe", paths[0]]] {
      #expect(try Program.run("flashinfer-convert", convert + refused).status == 64)
    }
    let lone = try Program.run(
      "flashinfer-convert", [model, paths[0], "--stripe-unit", "4096"])
    #expect(lone.status == 64 && lone.errors.contains("--stripe"))
    #expect(folder.entries == ["model"])
    let converted = try Program.run("flashinfer-convert", convert + ["--stripe-unit", "16KiB"])
    #expect(converted.status == 0, "\(converted.errors)")
    #expect(folder.entries == ["model", "s0", "s1", "s2"])
    #expect(try Program.run("flashinfer-convert", convert).status == 64)
    #expect(try Program.run("flashinfer-convert", convert + ["--force"]).status == 0)
    let rest = ["--raw", "then", "--seed", "7", "--max-tokens", "12", "--ignore-eos"]
    let expected = try run([model] + rest)
    for path in paths {
      let result = try run([path] + rest)
      #expect(result.status == 0 && result.output == expected.output, "\(result.errors)")
    }
    let copy = folder.write("copy", bytes)
    let mirrored = try run([model, "--mirror", copy, "--mirror", model] + rest)
    #expect(mirrored.status == 0 && mirrored.output == expected.output)
    let verified = try Program.run("flashinfer-inspect", [paths[1], "--verify"])
    #expect(verified.status == 0 && verified.output.contains("intact"))
    unlink(paths[2])
    let missing = try run([paths[0]] + rest)
    #expect(missing.status == 66 && missing.errors.contains(paths[2]))
    folder.write("s2", folder.read("s1"))
    let swapped = try run([paths[0]] + rest)
    #expect(swapped.status == 65 && swapped.errors.contains(paths[2]))
    folder.write("copy", Array(bytes.dropLast()))
    let short = try run([model, "--mirror", copy] + rest)
    #expect(short.status == 65 && short.errors.contains(copy) && short.errors.contains(model))
  }

  @Test("Experts are described and bundled; dense models refuse") func experts() throws {
    let target = folder.path + "/image"
    let dense = try Program.run("flashinfer-convert", [model, target, "--bundle", "experts"])
    #expect(dense.status == 65 && dense.errors.contains("no experts"), "\(dense.errors)")
    #expect(try Program.run("flashinfer-convert", [model, target, "--bundle", "row"]).status == 64)
    #expect(folder.entries == ["model"])
    #expect(try Program.run("flashinfer-convert", [model, target, "--bundle", "none"]).status == 0)
    let tiny = TinyModel.withExperts("qwen2moe")
    let source = folder.write("experts", tiny.gguf(seed: 1).bytes())
    let line = "experts: 2 of 8, FFN 64, gated shared FFN 96"
    let described = try Program.run("flashinfer-inspect", [source])
    #expect(described.status == 0 && described.output.contains(line + "\n"), "\(described.output)")
    for (arguments, ending) in [
      ([], ", in bundles of 16 KiB\n"), (["--bundle", "experts"], ", in bundles of 16 KiB\n"),
      (["--bundle", "none"], "\n"),
    ] {
      let converted = try Program.run(
        "flashinfer-convert", [source, target, "--force"] + arguments)
      #expect(converted.status == 0, "\(converted.errors)")
      let image = try Program.run("flashinfer-inspect", [target])
      #expect(image.output.contains(line + ending), "\(image.output)")
      let verified = try Program.run("flashinfer-inspect", [target, "--verify"])
      #expect(verified.status == 0 && verified.output.contains("intact"))
    }
  }

  @Test("Each copy of a mirrored image is verified") func verifiesCopies() throws {
    let image = folder.path + "/image"
    #expect(try Program.run("flashinfer-convert", [model, image]).status == 0)
    var damaged = folder.read("image")
    let copy = folder.write("copy", damaged)
    let arguments = [image, "--mirror", copy, "--verify"]
    #expect(try Program.run("flashinfer-inspect", arguments).status == 0)
    damaged[damaged.count - 5000] ^= 1
    folder.write("copy", damaged)
    let result = try Program.run("flashinfer-inspect", arguments)
    #expect(result.status == 65 && result.errors.contains(copy))
  }

  @Test func `What has no effect, or less than it seems to, says so`() throws {
    let long = try run([model, "--raw", "the", "--context", "1000000", "--max-tokens", "2"])
    #expect(
      long.status == 0 && long.errors.contains("warning: --context 1000000"), "\(long.errors)")
    let store = folder.path + "/store"
    let short = try run([model, "--raw", "the", "--kv-store", store, "--max-tokens", "2"])
    #expect(short.errors.contains("--kv-store kept nothing"), "\(short.errors)")
    _ = try Program.shell("rm -r '\(store)'")
    var floats = TinyModel()
    (floats.matrixTypes, floats.tableType) = ([.f16], .f16)
    let source = folder.write("floats", floats.gguf(seed: 1).bytes())
    for (input, changesNothing) in [(source, false), (model, true)] {
      let result = try Program.run(
        "flashinfer-convert", [input, folder.path + "/image", "--force", "--quantize", "q8_0"])
      #expect(result.status == 0)
      #expect(result.errors.contains("changes nothing") == changesNothing, "\(result.errors)")
    }
    let attention = ["attention", "--context", "512", "--layers", "2", "--kv-ram"]
    let refused = try Program.run("flashinfer-bench", attention + ["1"])
    #expect(refused.status == 69 && refused.errors.contains("smallest"), "\(refused.errors)")
    let least = refused.errors.split(whereSeparator: \.isWhitespace).suffix(2).joined()
    #expect(try Program.run("flashinfer-bench", attention + [least]).status == 0)
  }

  @Test func `Inspect lists tensors, and shows the template and a rendered prompt`() throws {
    func inspect(_ arguments: [String], input: [UInt8] = []) throws -> Program.Result {
      try Program.run("flashinfer-inspect", arguments, input: input)
    }
    let described = try inspect([model]).output
    for line in ["parameters: ", "quantisation: q8_0\n"] {
      #expect(described.lowercased().contains(line), "\(described)")
    }
    let lines = try inspect([model, "--tensors"]).output.split(separator: "\n")
    #expect(lines[0].hasPrefix("name ") && lines[0].hasSuffix("bytes"))
    #expect(lines.contains { $0.hasPrefix("token_embd.weight ") && $0.contains("320 × 64") })
    #expect(Set(lines.map(\.count)).count == 1, "columns are aligned")
    let bare = try inspect([model, "--render", "hi"])
    #expect(bare.status == 65 && bare.errors.contains("no chat template"))
    #expect(try inspect([model, "--template"]).status == 65)
    for option in ["--system", "--chat-template", "--template-arg", "--now"] {
      #expect(try inspect([model, option, "a=1"]).status == 64, "\(option)")
    }
  }

  @Test func `Another template and a file of messages make the prompt`() throws {
    let folder = TemporaryFolder()
    let template = folder.write(
      "t.jinja",
      Array(
        ("{% for m in messages %}[{{ m.role }}|{{ m.content }}{{ m.reasoning_content }}]{% endfor %}"
          + "{{ effort }}{{ enable_thinking }}{{ strftime_now(' %Y-%m-%d') }}").utf8))
    let messages = folder.write(
      "m.json",
      Array(
        #"[{"role":"user","content":"the"},{"role":"assistant","content":null,"thinking":"an"}]"#
          .utf8))
    let rendered = try Program.run(
      "flashinfer-inspect",
      [
        model, "--chat-template", template, "--messages", messages, "--no-thinking",
        "--template-arg", "effort=high", "--now", "2026-01-31", "--system", "s",
      ])
    #expect(rendered.status == 0, "\(rendered.errors)")
    #expect(
      rendered.output.hasPrefix("[system|s][user|the][assistant|an]highFalse 2026-01-31\n"),
      "\(rendered.output)")
    let unread = try Program.run(
      "flashinfer-inspect",
      [
        model, "--chat-template", template, "--messages", messages, "--template-arg", "effort=high",
        "--template-arg", "efort=low", "--template-arg", "m=1", "--template-arg", "efort=high",
      ])
    let warnings = unread.errors.split(separator: "\n").filter { $0.hasPrefix("warning: ") }
    #expect(
      warnings == [
        "warning: --template-arg efort has no effect: the chat template does not read it"
      ])
    for text in ["", " \n"] {
      let blank = folder.write("blank.jinja", Array(text.utf8))
      let result = try Program.run(
        "flashinfer-inspect", [model, "--render", "x", "--chat-template", blank])
      #expect(result.status == 65 && result.errors.contains("the template is empty"))
    }
    let bad = folder.write("bad.jinja", Array("{% if %}".utf8))
    let refused = try Program.run(
      "flashinfer-inspect", [model, "--render", "x", "--chat-template", bad])
    #expect(
      refused.status == 65 && refused.errors.contains("\(bad): line 1, column "),
      "\(refused.errors)")
    let raising = folder.write(
      "raising.jinja", Array("{{ raise_exception('roles must alternate') }}".utf8))
    let unable = try Program.run(
      "flashinfer-inspect", [model, "--render", "x", "--chat-template", raising])
    #expect(
      unable.status == 65 && unable.errors.contains("conversation: \(raising): "),
      "\(unable.errors)")
    let answer = try run([
      model, "--chat-template", template, "--messages", messages, "--max-tokens", "1", "--ram",
      "60MiB", "--json",
    ])
    #expect(answer.status == 0, "\(answer.errors)")
    #expect(try run([model, "x", "--messages", messages]).status == 64)
    #expect(try run([model, "--raw", "x", "--no-thinking"]).status == 64)
    #expect(try run([model, "x", "--template-arg", "=1"]).status == 64)
    #expect(try run([model, "x", "--now", "soon"]).status == 64)
  }

  @Test(.enabled(if: RealModels.smolLM2 != nil, "SmolLM2 is not there"))
  func `A rendered prompt is the one that a run answers`() throws {
    let model = try #require(RealModels.smolLM2)
    let rendered = try Program.run(
      "flashinfer-inspect", [model, "--render", "-", "--system", "Be brief."],
      input: Array("Hi <|im_end|>\n".utf8))
    #expect(rendered.status == 0, "\(rendered.errors)")
    #expect(
      rendered.output.hasPrefix(
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi <|im_end|><|im_end|>\n"),
      "\(rendered.output)")
    let answer = try run([
      model, "Hi <|im_end|>", "--system", "Be brief.", "--max-tokens", "1", "--json", "--ram",
      "60MiB",
    ])
    let start = try #require(answer.output.firstRange(of: "\"promptTokens\":[")?.upperBound)
    let tokens = answer.output[start...].prefix { $0 != "]" }
    #expect(rendered.output.hasSuffix(" tokens: [\(tokens)]\n"), "\(rendered.output)")
    let template = try Program.run("flashinfer-inspect", [model, "--template"])
    #expect(template.status == 0 && template.output.contains("{% for message in messages %}"))
  }
}
