import ArgumentParser
import CommandLineSupport
import ModelFormat
import Runtime
import TensorBasics
import Tokenization
import WeightLoader

/// `flashinfer-inspect MODEL`: what a model file holds, and what running it would take; with `--kv-store`,
/// what a store of keys and values holds; with `--machine`, what the process may use of the machine.
@main
struct Inspect: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "flashinfer-inspect",
    abstract: "Shows a model's architecture, layout and sizes; tokenises, plans, verifies.",
    discussion: """
      Examples:
        flashinfer-inspect model.bin
        flashinfer-inspect model.bin --plan --ram 2GiB
        flashinfer-inspect model.bin --tensors
        flashinfer-inspect model.gguf --metadata
        flashinfer-inspect model.bin --render "Why is the sky blue?"
        flashinfer-inspect model.bin --verify
        flashinfer-inspect --kv-store cache
        flashinfer-inspect --machine
      """,
    version: FlashInferVersion.current)

  static func main() { runAsProgram() }

  @Argument(
    help: """
      Flash image, GGUF file or Hugging Face folder; a vocabulary alone is enough for --tokenize.
      """)
  var model: String?

  @OptionGroup(title: "Memory, processors and drive") var resources: ResourceOptions
  @OptionGroup(title: "Experts and neurons") var neurons: NeuronArguments
  @OptionGroup(title: "Drafts, with --plan") var drafts: DraftArguments

  @Flag(
    help:
      "Predict residency, bytes per token and tokens/s of flashinfer-run under --ram; loads nothing (flashinfer-serve --plan is of a server)."
  )
  var plan = false

  @Flag(help: "With --plan: measure drive and processor anew, and keep that for later runs.")
  var calibrate = false

  @OptionGroup var spread: SpreadArguments

  @Option(help: "With --plan: tokens of the prompt (default: 512, or half a shorter context).")
  var promptLength: Int?

  @Option(
    help: ArgumentHelp(
      "With --plan: sequences that are answered at the same time.", valueName: "count"))
  var sequences = 1

  @Flag(help: "Show what this process may use of the machine, and from where; without MODEL.")
  var machine = false

  @Flag(help: "Print one JSON object.")
  var json = false

  @Option(
    help: ArgumentHelp(
      "Print the token ids of TEXT as a JSON array; - reads standard input to its end.",
      valueName: "text"))
  var tokenize: String?

  @Flag(help: "With --tokenize: recognise control tokens.")
  var special = false

  @Flag(
    help: """
      Read everything and compare checksums; a GGUF file has none and is compared with those \
      remembered from when it was read before.
      """)
  var verify = false

  @Option(
    help: ArgumentHelp(
      "List a store of keys and values (flashinfer-run --kv-store); without MODEL.",
      valueName: "dir"))
  var kvStore: String?

  @Option(
    help: ArgumentHelp("With --kv-store: delete that entry, or all.", valueName: "id"))
  var forget: String?

  @OptionGroup(title: "Parts of a model") var views: ViewOptions
  @OptionGroup(title: "Output") var messages: OutputOptions

  /// The longest answer of flashinfer-run, where nothing else is asked for.
  private static let answerLength = 512

  func validate() throws {
    let subjects = [model != nil, kvStore != nil, machine].count { $0 }
    guard subjects == 1 else {
      throw ValidationError(
        "give \(subjects == 0 ? "" : "only one of ")a MODEL, --kv-store or --machine")
    }
    let asked = [
      plan ? "--plan" : nil, verify ? "--verify" : nil, tokenize.map { _ in "--tokenize" },
      views.firstAsked,
    ].compactMap { $0 }
    guard asked.count <= 1 else {
      throw ValidationError(
        "\(asked.joined(separator: " and ")) exclude each other: ask one after the other")
    }
    guard forget == nil || kvStore != nil else {
      throw ValidationError("--forget goes with --kv-store")
    }
    guard plan || !calibrate else { throw ValidationError("--calibrate goes with --plan") }
    guard plan || drafts.draft == .auto else { throw ValidationError("--draft goes with --plan") }
    guard plan || sequences == 1 else { throw ValidationError("--sequences goes with --plan") }
    guard (1...ResourceOptions.mostSequences).contains(sequences) else {
      throw ValidationError("--sequences must be between 1 and \(ResourceOptions.mostSequences)")
    }
    guard (1...ResourceOptions.longestContext).contains(promptLength ?? 1) else {
      throw ValidationError(
        "--prompt-length must be between 1 and \(ResourceOptions.longestContext)")
    }
  }

  func run() throws {
    Interruption.install()
    try reportingErrors {
      if let kvStore { return try showStore(StoreReport(path: kvStore)) }
      if machine { return showMachine() }
      // Reading and rendering leave nothing behind.
      Interruption.endProcessAtOnce(!plan && !verify)
      guard let model else { return }
      if views.areAsked { return try show(views, of: model) }
      if let tokenize {
        try printTokens(tokenize, model)
      } else if plan {
        try showPlan(
          PlanReport(
            model,
            PlanReport.Question(
              resources: resources, promptLength: promptLength, sequenceCount: sequences,
              answerLength: Self.answerLength,
              calibrates: calibrate, spread: spread, neurons: neurons.options,
              drafts: drafts)))
      } else if verify {
        try verifyChecksums(model)
      } else {
        try describe(model)
      }
    }
  }

  /// Prints one JSON object about what was asked for.
  private func printJSON(
    _ mode: String, _ model: ModelSummary?, _ members: (inout JSONWriter) -> Void
  ) {
    JSONDocument("flashinfer-inspect", Self.self, model: model).print { json in
      json.text("mode", mode)
      members(&json)
    }
  }

  private func show(_ views: ViewOptions, of model: String) throws {
    let (found, description) = try views.views(of: model)
    guard json else { return found.printLines() }
    printJSON("view", description.map { ModelSummary(model, $0) }, found.write)
  }

  private func showPlan(_ report: PlanReport) {
    if json { printJSON("plan", report.model, report.write) } else { report.printLines() }
  }

  private func showMachine() {
    let report = MachineReport(resources: resources)
    if json { printJSON("machine", nil, report.write) } else { report.printLines() }
    report.warn()
  }

  private func showStore(_ report: StoreReport) throws {
    guard let forget else {
      if json { printJSON("kvStore", nil, report.write) } else { report.printLines() }
      return
    }
    let count = try report.remove(forget)
    if json {
      printJSON("kvStore", nil) { json in
        json.number("forgotten", count)
        report.write(to: &json)
      }
    } else {
      let what = forget == "all" ? StoreReport.entries(count) : forget
      Terminal.print("\(what) forgotten\n")
    }
  }

  private func printTokens(_ argument: String, _ model: String) throws {
    let description = try ModelSource.describe(model)
    let text =
      argument == "-" ? try Terminal.readAll(path: nil) : argument.systemPath
    do {
      guard let tokenizer = try Tokenizer(of: description) else {
        throw CommandError(.badData, "\(model): \(description.vocabularyProblem)")
      }
      let tokens = try tokenizer.encode(text, parseSpecial: special)
      if json {
        printJSON("tokenize", ModelSummary(model, description)) { json in
          json.array("tokens", of: tokens) { $0.number(nil, $1) }
        }
      } else {
        Terminal.print("[" + tokens.map(String.init).joined(separator: ",") + "]\n")
      }
    } catch let error as TokenizerError { throw RuntimeError(error, in: model) }
  }

  private func describe(_ model: String) throws {
    let report = try DescriptionReport(model, backend: resources.io)
    if json { printJSON("describe", report.summary, report.write) } else { try report.printLines() }
  }

  /// Compares every extent of a flash image with its checksum, and weights of other files with what they were
  /// when they were read before.
  private func verifyChecksums(_ model: String) throws {
    let whole = try ModelSource.open(model, mirrors: resources.mirror, backend: resources.io)
    // Each copy by itself: reads of a mirror are shared among its copies.
    let results = try ([model] + resources.mirror).map { path in
      try VerificationResult(
        path: path, ModelSource.open(path, backend: resources.io), Interruption.flag)
    }
    if json {
      printJSON("verify", ModelSummary(model, whole)) { json in
        json.array("copies", of: results) { $1.write(to: &$0) }
      }
    } else {
      for result in results {
        Terminal.print((results.count == 1 ? "" : "\(result.path): ") + result.text + "\n")
      }
    }
  }
}
