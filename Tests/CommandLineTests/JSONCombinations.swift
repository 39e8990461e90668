import TestSupport

/// Seeded calls of every command with `--json`, on tiny models that it makes.
struct JSONCombinations {
  private let folder: TemporaryFolder
  private let dense: String
  private let experts: String
  private let image: String
  private let neurons: String
  private let text: String
  private let store: String
  private var generator: SeededChoice

  struct Call {
    var program: String
    var arguments: [String]
  }

  init(_ folder: TemporaryFolder, seed: UInt64) throws {
    self.folder = folder
    generator = SeededChoice(seed: seed)
    dense = folder.write("dense.gguf", TinyModel().gguf(seed: 1).bytes())
    experts = folder.write(
      "experts.gguf", TinyModel.withExperts("qwen3moe").gguf(seed: 1).bytes())
    var rectified = TinyModel()
    rectified.hiddenActivation = "relu"
    let relu = folder.write("relu.gguf", rectified.gguf(seed: 1).bytes())
    text = folder.write("text", Array(String(repeating: "the rain on the an ", count: 80).utf8))
    (image, neurons) = (folder.path + "/dense.bin", folder.path + "/neurons.bin")
    store = folder.path + "/store"
    for arguments in [[dense, image], [relu, neurons, "--bundle", "neurons"]] {
      _ = try Program.run("flashinfer-convert", arguments)
    }
    _ = try Program.run(
      "flashinfer-run", [dense, "--kv-store", store, "--max-tokens", "1"] + longPrompt)
  }

  private var longPrompt: [String] {
    ["--tokens", (0..<300).map { "\($0 * 7 % 300)" }.joined(separator: ",")]
  }

  /// The next call; kinds of calls take turns.
  mutating func call(_ index: Int) -> Call {
    var call =
      switch index % 26 {
      case 0, 1, 2: run()
      case 3: describe()
      case 4: plan()
      case 5: tokenize()
      case 6: verify()
      case 7: kvStore()
      case 8: machine()
      case 9: convert()
      case 10: load()
      case 11: through()
      case 12: decode()
      case 13: prefill()
      case 14: perplexity()
      case 15: logits()
      case 16: drawnExperts()
      case 17: modelExperts()
      case 18: sparse()
      case 19: attention()
      case 20: policy()
      case 21: activations()
      case 22: inStorage()
      case 23: products()
      case 24: speculate()
      default: sparf()
      }
    call.arguments.insert("--json", at: call.arguments.firstIndex(of: "--") ?? call.arguments.count)
    return call
  }

  private mutating func some(_ options: [[String]]) -> [String] {
    options.filter { _ in generator.next(2) == 0 }.flatMap { $0 }
  }

  private mutating func one<Value>(_ values: [Value]) -> Value {
    values[generator.next(values.count)]
  }

  private var anyModel: [String] { [dense, experts, image, neurons] }

  /// Options of all that opens a model.
  private mutating func resources() -> [String] {
    some([
      ["--threads", one(["1", "2"])], ["--ram", one(["200MiB", "1GiB"])],
      ["--io", one(["auto", "pread", "mmap"])],
    ])
  }

  private static func bench(_ name: String, _ arguments: [String]) -> Call {
    Call(program: "flashinfer-bench", arguments: [name] + arguments)
  }

  private static func inspect(_ arguments: [String]) -> Call {
    Call(program: "flashinfer-inspect", arguments: arguments)
  }

  private mutating func run() -> Call {
    let prompt = one([
      ["--tokens", "5,6,7"], ["--raw", "then \"quoted\" \u{1F600}\n"], ["--raw", "--", "-1 + 1"],
    ])
    var options = some([
      ["--max-tokens", one(["1", "2", "9"])], ["--temperature", one(["0", "1.5"])],
      ["--seed", "9223372036854775807"], ["--ignore-eos"], ["--kv-type", one(["q8", "q4"])],
      ["--kv-policy", "window=128"], ["--context", "300"], ["--top-k=3"], ["--no-expert-history"],
    ])
    if generator.next(2) == 0 {
      options += ["--logprobs", one(["1", "5", "40"])]
      options += some([["--logprobs-position", one(["generated", "prompt", "1"])]])
    }
    if generator.next(6) == 0 {
      options = [
        "--attention", one(["in-storage:sparf=1/4", "in-storage:dense,host-window=9"]),
        "--devices", "2", "--max-tokens", "3",
      ]
    } else if generator.next(4) == 0 {
      options += ["--kv-store", store]
    }
    let model = one(anyModel)
    return Call(
      program: "flashinfer-run", arguments: [model] + resources() + options + prompt)
  }

  private mutating func describe() -> Call {
    Self.inspect(
      [one(anyModel)]
        + one([
          [], ["--io", "pread"], ["--tensors"], ["--tensors", "--io", "mmap"], ["--metadata"],
          ["--metadata", "--tensors"],
        ]))
  }

  private mutating func plan() -> Call {
    let options = some([["--context", "256"], ["--prompt-length", "20"]])
    return Self.inspect([one(anyModel), "--plan"] + resources() + options)
  }

  private mutating func tokenize() -> Call {
    let text = one(["", "the rain", "<|a|>\u{0}"])
    return Self.inspect(
      [one(anyModel), "--tokenize", text] + some([["--special"]]))
  }

  private mutating func verify() -> Call {
    let model = one([dense, experts, image])
    return Self.inspect([model, "--verify"] + some([["--mirror", model]]))
  }

  private mutating func kvStore() -> Call {
    Self.inspect(
      ["--kv-store", store] + (generator.next(8) == 0 ? ["--forget", "all"] : []))
  }

  private mutating func machine() -> Call {
    Self.inspect(["--machine"] + some([["--threads", "3"], ["--ram", "1GiB"]]))
  }

  private mutating func convert() -> Call {
    let output = folder.path + "/converted"
    let options = some([
      ["--quantize", one(["q4_0", "q6_k"])], ["--threads", "2"], ["--io", "pread"],
    ])
    let cut = one([[], ["--stripe", output + "-2", "--stripe-unit", "64KiB"]])
    return Call(
      program: "flashinfer-convert",
      arguments: [one([dense, experts]), output, "--force"] + options + cut)
  }

  private mutating func load() -> Call {
    let options = some([
      ["--random"], ["--repeat", one(["1", "2", "5"])], ["--queue-depth", "4"],
      ["--block-size", "8KiB"], ["--io", "pread"],
    ])
    return Self.bench("load", [dense, "--seconds", "0.02"] + options)
  }

  private mutating func through() -> Call {
    let way = one([["loader"], ["loader", "--random", "--tensors", "4"], ["mmap"], ["read"]])
    return Self.bench("load", [dense, "--through"] + way + some([["--repeat", "3"]]))
  }

  private mutating func decode() -> Call {
    let options = some([
      ["--tokens", "2"], ["--repeat", one(["1", "2"])], ["--warmup", "1"], ["--depth", "9"],
      ["--random-tokens", "3"], ["--verify", "first"],
    ])
    let model = one(anyModel)
    return Self.bench("decode", [model] + resources() + options)
  }

  private mutating func prefill() -> Call {
    let options = some([["--repeat", one(["0", "1", "2"])], ["--depth", "5"]])
    let model = one(anyModel)
    return Self.bench("prefill", [model, "--tokens", "17"] + resources() + options)
  }

  private mutating func perplexity() -> Call {
    let options = some([["--chunks", "1"], ["--kv-type", "q8"]])
    let model = one(anyModel)
    return Self.bench(
      "perplexity", [model, text, "--context", "32"] + resources() + options)
  }

  private mutating func logits() -> Call {
    let output = folder.path + "/logits"
    return Self.bench(
      "logits",
      [one(anyModel), "--tokens", "3,4,5", "--output", output]
        + resources() + some([["--prompt", "2"]]))
  }

  private mutating func drawnExperts() -> Call {
    Self.bench(
      "experts",
      ["--synthetic", one(["zipf", "uniform"]), "--slots", one(["20", "64"])]
        + ["--layers", "4", "--experts", "16", "--used", "2", "--tokens", "20", "--warmup", "5"]
        + some([["--policy", "lru"], ["--seed", "4"], ["--repeat", "0"]]))
  }

  private mutating func modelExperts() -> Call {
    Self.bench(
      "experts",
      [experts, "--tokens", "4", "--warmup", "2", "--no-expert-history"]
        + resources() + some([["--random-tokens", "5"], ["--prompt-file", text]]))
  }

  private mutating func sparse() -> Call {
    Self.bench(
      "sparse",
      [neurons, "--tokens", "2", "--warmup", "1"]
        + some([["--rungs", one(["naive", "selection,bundling"])]]))
  }

  private mutating func attention() -> Call {
    Self.bench(
      "attention",
      ["--context", "300", "--layers", "2", "--kv-heads", "2", "--query-heads", "4"]
        + ["--kv-dir", folder.path]
        + some([
          ["--repeat", one(["1", "2"])], ["--kv-ram", "1MiB"], ["--kv-type", "q4"],
        ]))
  }

  private mutating func products() -> Call {
    Self.bench(
      "products",
      ["--memory", "1MiB", "--matrix-rows", "64", "--columns", "512"]
        + some([
          ["--type", one(["Q4_0", "mxfp4,IQ1_M"])], ["--rows", one(["3", "1,24"])],
          ["--repeat", "1"], ["--threads", "1"],
        ]))
  }

  private mutating func policy() -> Call {
    Self.bench(
      "policy",
      [dense, text, "--context", "300", "--positions", "3", "--kv-policy", "window=128"]
        + resources() + some([["--kv-ram", "400KiB", "--kv-dir", folder.path]]))
  }

  private mutating func speculate() -> Call {
    let prompts = folder.write(
      "drafted", Array("{\"prompt\":\"the rain, the rain, the rain\"}\n".utf8))
    return Self.bench(
      "speculate",
      [dense, "--text", prompts, "--max-tokens", "6"]
        + one(["--oracle=3", "--garbage", "--draft=lookup", "--temperature=0.8"])
        .split(separator: "=").map(String.init) + resources())
  }

  private mutating func activations() -> Call {
    Self.bench(
      "activations",
      [dense, text, "--output", folder.path + "/activations"]
        + ["--tokens", "20", "--context", "16"] + resources())
  }

  private mutating func inStorage() -> Call {
    Self.bench(
      "in-storage",
      one([
        ["--paper"], ["--explore", "--machine", one(["paper", "laptop"])],
      ]))
  }

  private mutating func sparf() -> Call {
    Self.bench(
      "sparf",
      [dense, text, "--context", "32", "--chunks", "1"]
        + some([["--share", "1/2", "--share", "1/4,1/2"], ["--devices", "2"]]))
  }
}

/// Numbers that follow from a seed.
struct SeededChoice {
  private var state: UInt64

  init(seed: UInt64) { state = seed }

  /// A number below `bound` (SplitMix64).
  mutating func next(_ bound: Int) -> Int {
    state &+= 0x9E37_79B9_7F4A_7C15
    var value = state
    value = (value ^ (value >> 30)) &* 0xBF58_476D_1CE4_E5B9
    value = (value ^ (value >> 27)) &* 0x94D0_49BB_1331_11EB
    return Int((value ^ (value >> 31)) % UInt64(bound))
  }
}
